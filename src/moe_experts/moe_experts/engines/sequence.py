"""One answer in the making, whatever computes it."""

from __future__ import annotations

import math
import time

import numpy as np
from numpy.typing import NDArray

from moe_experts.engines.engine import EngineError, Piece, Probable, Request, Result
from moe_experts.engines.grammar import Matcher
from moe_experts.engines.guesses import NO_GUESS, Guess
from moe_experts.engines.lookup import Lookup
from moe_experts.engines.mixture import Mixture
from moe_experts.engines.prefix_cache import Owner
from moe_experts.engines.runtime import Runtime, State
from moe_experts.engines.sampling import Sampler, probable
from moe_experts.engines.text import AnswerText

Kind = tuple[str, float, str, str, str]
AGEING_PER_S = 10.0  # points of priority that a second of waiting is worth: nobody waits for ever


class Branch:
    """A sequence as one adapter sees it; only mixtures have several.

    Attributes:
        prompt: its tokens.
        slot: place in the KV cache; -1 = none yet.
        decoded: tokens in the cache.
        pending: tokens to decode next.
        cached: tokens of the prompt that were there already.
        shared: of those, in cells that another sequence holds.
        state: what the slot held when it was taken away; None = nothing.
        logits: of the next token; None = not known yet.
        guess: what the answer goes on with, decoded along with what is certain.
    """

    def __init__(self, adapter: str, scale: float, prompt: list[int]) -> None:
        self.adapter, self.scale, self.prompt = adapter, scale, prompt
        self.slot = -1
        self.owner: Owner = ('', 0, 0.0)
        self.decoded: list[int] = []
        self.pending: list[int] = []
        self.cached = self.shared = 0
        self.state: State | None = None
        self.logits: NDArray[np.float32] | None = None
        self.guess = NO_GUESS

    def take(self, most: int) -> list[int]:
        """The next tokens to decode, which count as decoded."""
        tokens, self.pending = self.pending[:most], self.pending[most:]
        self.decoded += tokens
        return tokens

    def put_back(self, tokens: list[int]) -> None:
        """Undo take()."""
        del self.decoded[len(self.decoded) - len(tokens):]
        self.pending = tokens + self.pending


class Sequence:
    """A request with its tokens.

    Args:
        branches: one per expert.
        matcher: of the grammar that binds the answer.
        limit: most tokens, prompt and answer together.
        arrived: time.monotonic() [s] when the engine got the request.

    Attributes:
        standing: the priority that it had when its turn came.
        admitted: whether it has a place in the batch.
    """

    def __init__(self, request: Request, branches: list[Branch], matcher: Matcher | None, limit: int,
                 arrived: float) -> None:
        self.request, self.branches, self.limit = request, branches, limit
        self.arrived = self.queued = arrived
        self.standing = float(request.priority)
        self.admitted = False
        self._matcher = matcher
        self._sampler = Sampler(request.sampling)
        self._mixture = Mixture([part.weight for part in request.mixture]) if len(branches) > 1 else None
        self._lookup = Lookup()
        self._text = AnswerText(request.stop)
        self._tokens: list[int] = []
        self._probs: list[tuple[Probable, ...]] = []
        self._most = min(request.max_tokens, limit - self.prompt_tokens - 1)
        # what the grammar forces at the beginning needs no step of its own: it is decoded with the prompt
        self._opening = matcher.forced(self._most) if matcher else []
        self._started = self._first = self._last = 0.0

    @property
    def kind(self) -> Kind | None:
        """Whose answers are like this one: adapter, scale and grammar; None where no grammar binds it to a form."""
        if self._matcher is None or len(self.branches) > 1:
            return None
        return (self.branches[0].adapter, self.branches[0].scale,
                self.request.json_schema, self.request.regex, self.request.grammar)

    @property
    def tokens(self) -> list[int]:
        """The answer so far."""
        return self._tokens

    @property
    def prompt_tokens(self) -> int:
        """Length of the longest prompt."""
        return max(len(branch.prompt) for branch in self.branches)

    @property
    def room(self) -> int:
        """Cells that it may need beyond those that it shares."""
        return sum(min(len(branch.prompt) + self.request.max_tokens, self.limit) - branch.shared
                   for branch in self.branches)

    def urgency(self, now: float) -> float:
        """Priority of a waiting sequence, which grows while it waits."""
        return self.request.priority + AGEING_PER_S * (now - self.queued)

    def begin(self, now: float, guess: Guess) -> None:
        """Get its turn for the first time; every branch has its slot. `guess` is what the answer may be."""
        self._started = now
        for branch in self.branches:
            branch.decoded = branch.prompt[:branch.cached]
            branch.pending = branch.prompt[branch.cached:] + self._opening
        if guess.tokens[:len(self._opening)] == self._opening:
            self.branches[0].guess = Guess(guess.tokens[len(self._opening):self._most], guess.judge)

    def look_up(self, company: int) -> None:
        """Guess how the answer goes on, where the next step decodes so many tokens anyway."""
        branch = self.branches[0]
        if self._tokens and self._mixture is None:
            branch.guess = self._lookup.guess(branch.decoded, company, self._most - len(self._tokens))

    @property
    def foregone(self) -> bool:
        """Whether the grammar leaves no choice in all that is still to be said."""
        return self._matcher is not None and self._matcher.done

    def ready(self) -> bool:
        """Whether the next token can be drawn."""
        return all(branch.logits is not None for branch in self.branches)

    def advance(self, runtime: Runtime, now: float) -> tuple[list[Piece], str]:
        """Draw the next token and what follows from it; returns the new text and why it ends ('' = it goes on).

        `now` is when the step that made the logits was over: tokens of one step have one time.

        Raises EngineError (3000) where the grammar breaks.
        """
        opening, self._opening = self._opening, []
        fresh = [] if self.foregone else self._draw(runtime)
        for branch in self.branches:
            branch.logits = None
        self._first, self._last = self._first or now, now
        pieces: list[Piece] = []
        certain = len(self._probs)
        for index, token in enumerate(opening + fresh, len(self._tokens)):
            if runtime.is_end(token):
                return pieces, 'stop'
            self._tokens.append(token)
            self._sampler.accept(token)
            if self.request.sampling.n_probs and index >= certain:
                self._probs.append(((token, 1.0, _text(runtime, token)),))  # the grammar left no choice
            text = self._text.add(runtime.piece(token))
            if text:
                pieces.append(Piece(self.request.id, text, token, self._probs[index] if self._probs else ()))
            if self._text.stopped:
                return pieces, 'stop'
            if len(self._tokens) >= self.request.max_tokens:
                return pieces, 'length'
        if self.foregone:
            return pieces, 'stop'
        if max(len(branch.decoded) for branch in self.branches) + len(fresh) >= self.limit:
            return pieces, 'length'
        for branch in self.branches:
            branch.pending = list(fresh)
        return pieces, ''

    def _draw(self, runtime: Runtime) -> list[int]:
        """The drawn token and those that the grammar forces after it."""
        rows = [branch.logits for branch in self.branches if branch.logits is not None]
        logits = self._mixture.mix(rows) if self._mixture else rows[0]
        if self._matcher:
            self._matcher.apply(logits)
        elif self.request.sampling.ignore_eos:
            logits[runtime.end_tokens] = -np.inf
        token = self._sampler.draw(logits)
        if self._mixture:
            self._mixture.observe(token)
        if self.request.sampling.n_probs:
            # tokens of the opening come before this one and were forced
            self._probs += [((one, 1.0, _text(runtime, one)),) for one in self._given()]
            self._probs.append(tuple((one, value, _text(runtime, one))
                                     for one, value in probable(logits, self.request.sampling.n_probs)))
        if self._matcher is None or runtime.is_end(token):
            return [token]
        self._matcher.accept(token)
        longest = max(len(branch.decoded) for branch in self.branches)
        return [token, *self._matcher.forced(max(0, self.limit - longest - 1))]

    def _given(self) -> list[int]:
        """Tokens in the cache that have no probabilities noted yet."""
        branch = self.branches[0]
        return branch.decoded[len(branch.prompt) + len(self._probs):]

    def finish(self, reason: str, code: int = 0, message: str = '', retry_after_s: float = 0.0) -> list[Piece | Result]:
        """The text that was held back, and the result."""
        tail = self._text.finish()
        now = time.monotonic()
        started = self._started or now
        result = Result(
            self.request.id, self._text.text, tuple(self._tokens), reason, self.prompt_tokens,
            queue_s=started - self.arrived, prefill_s=(self._first or now) - started if self._started else 0.0,
            first_token_s=self._first - self.arrived if self._first else 0.0, decode_s=self._last - self._first,
            total_s=now - self.arrived, error_code=code, error_msg=message, retry_after_s=retry_after_s,
            cached_tokens=min(branch.cached for branch in self.branches),
            probs=tuple(self._probs[:len(self._tokens)]), weights=self._mixture.weights if self._mixture else ())
        return [Piece(self.request.id, tail, -1), result] if tail else [result]


def check_mixture(request: Request) -> None:
    """Raise EngineError for weights that no mixture can have."""
    weights = [part.weight for part in request.mixture]
    if any(not (math.isfinite(weight) and weight >= 0.0) for weight in weights) or (weights and sum(weights) <= 0.0):
        raise EngineError(f'The weights of a mixture are {weights}; they must be numbers >= 0, one of them above 0.')
    if len({part.adapter for part in request.mixture}) < len(weights):
        raise EngineError('A mixture names an expert twice; name each once.')


def _text(runtime: Runtime, token: int) -> str:
    return runtime.piece(token).decode(errors='replace')
