"""One answer in the making, whatever computes it."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from moe_experts.engines.engine import Piece, Request, Result
from moe_experts.engines.grammar import Matcher
from moe_experts.engines.prefix_cache import Owner
from moe_experts.engines.runtime import Runtime
from moe_experts.engines.sampling import Sampler
from moe_experts.engines.text import AnswerText


class Sequence:
    """A request with its tokens.

    Args:
        prompt: its tokens.
        matcher: of the grammar that binds the answer.
        limit: most tokens, prompt and answer together.

    Attributes:
        slot: place in the KV cache; -1 = it waits for one.
        decoded: tokens in the cache.
        pending: tokens to decode next.
    """

    def __init__(self, request: Request, prompt: list[int], matcher: Matcher | None, limit: int) -> None:
        self.request, self.prompt, self.limit = request, prompt, limit
        self.arrived = time.monotonic()
        self.slot = -1
        self.owner: Owner = ('', 0)
        self.decoded: list[int] = []
        self.pending: list[int] = []
        self._matcher = matcher
        self._sampler = Sampler(request.sampling)
        self._text = AnswerText(request.stop)
        self._tokens: list[int] = []
        self._opening: list[int] = []
        self._cached = 0
        self._started = self._first = 0.0

    @property
    def room(self) -> int:
        """Cells that it may need."""
        return min(len(self.prompt) + self.request.max_tokens, self.limit)

    def place(self, slot: int, owner: Owner, cached: int) -> None:
        """Begin in a slot that holds the first `cached` tokens already."""
        self.slot, self.owner, self._cached = slot, owner, cached
        self._started = time.monotonic()
        if self._matcher:
            # what the grammar forces at the beginning needs no step of its own: it is decoded with the prompt
            self._opening = self._matcher.forced(self.room - len(self.prompt) - 1)
        self.decoded = self.prompt[:cached]
        self.pending = self.prompt[cached:] + self._opening

    def take(self, most: int) -> list[int]:
        """The next tokens to decode, which count as decoded."""
        tokens, self.pending = self.pending[:most], self.pending[most:]
        self.decoded += tokens
        return tokens

    def advance(self, logits: NDArray[np.float32], runtime: Runtime) -> tuple[list[Piece], str]:
        """Draw the next token and what follows from it; returns the new text and why it ends ('' = it goes on).

        Raises EngineError (3000) where the grammar breaks.
        """
        opening, self._opening = self._opening, []
        fresh = [] if self._matcher and self._matcher.done else self._draw(logits, runtime)
        if not self._first:
            self._first = time.monotonic()
        pieces: list[Piece] = []
        for token in opening + fresh:
            if runtime.is_end(token):
                return pieces, 'stop'
            self._tokens.append(token)
            self._sampler.accept(token)
            text = self._text.add(runtime.piece(token))
            if text:
                pieces.append(Piece(self.request.id, text, token))
            if self._text.stopped:
                return pieces, 'stop'
            if len(self._tokens) >= self.request.max_tokens:
                return pieces, 'length'
        if self._matcher and self._matcher.done:
            return pieces, 'stop'
        if len(self.decoded) + len(fresh) >= self.limit:
            return pieces, 'length'
        self.pending = fresh
        return pieces, ''

    def _draw(self, logits: NDArray[np.float32], runtime: Runtime) -> list[int]:
        """The drawn token and those that the grammar forces after it."""
        if self._matcher:
            self._matcher.apply(logits)
        elif self.request.sampling.ignore_eos:
            logits[runtime.end_token] = -np.inf
        token = self._sampler.draw(logits)
        if self._matcher is None or runtime.is_end(token):
            return [token]
        self._matcher.accept(token)
        return [token, *self._matcher.forced(max(0, self.limit - len(self.decoded) - 1))]

    def finish(self, reason: str, code: int = 0, message: str = '') -> list[Piece | Result]:
        """The text that was held back, and the result."""
        tail = self._text.finish()
        now = time.monotonic()
        started = self._started or now
        first = self._first or now
        result = Result(
            self.request.id, self._text.text, tuple(self._tokens), reason, len(self.prompt),
            queue_s=started - self.arrived, prefill_s=first - started if self._started else 0.0,
            first_token_s=first - self.arrived if self._first else 0.0, decode_s=now - first,
            total_s=now - self.arrived, error_code=code, error_msg=message, cached_tokens=self._cached)
        return [Piece(self.request.id, tail, -1), result] if tail else [result]
