"""What a model makes of texts without answering: likelihoods, first tokens, hidden states. Each is computed at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from moe_experts.engines.adapters import Adapters
from moe_experts.engines.engine import EngineError
from moe_experts.engines.mixture import log_softmax
from moe_experts.engines.pace import Pace
from moe_experts.engines.places import Places
from moe_experts.engines.runtime import Run, Runtime
from moe_experts.engines.slots import Slots

SCORED_TOKENS = 64  # per decode: their logits are 0.2 MB each with 49 k words


class Scoring:
    """Computes in a slot beside those of the running sequences; every method raises EngineError (1001, 3002, 3004)."""

    def __init__(self, runtime: Runtime, adapters: Adapters, slots: Slots, places: Places, pace: Pace) -> None:
        self._runtime, self._adapters, self._slots = runtime, adapters, slots
        self._places, self._pace = places, pace

    def score(self, prompt: list[int], answers: list[list[int]], adapter: str) -> list[list[float]]:
        """Log-likelihood [nats] of every token of each answer to a prompt."""
        with self._borrow(adapter, prompt, max(map(len, answers), default=0)) as (slot, first):
            return [self._score(adapter, slot, len(prompt), first, answer) for answer in answers]

    def _score(self, adapter: str, slot: int, start: int, first: NDArray[np.float32], answer: list[int]) -> list[float]:
        """Log-likelihoods of an answer after `start` cells; `first` are the logits of its first token."""
        found, logits = [], first.reshape(1, -1)
        for begin in range(0, len(answer), SCORED_TOKENS):
            tokens = answer[begin:begin + SCORED_TOKENS]
            run = Run(slot, start + begin, tokens, len(tokens))
            last = logits[-1:].copy()
            logits = np.concatenate((last, self._decode(adapter, run)))
            found += [float(row[token]) for row, token in zip(log_softmax(logits), tokens, strict=False)]
        self._runtime.cut(slot, start)
        return found

    def distribution(self, prompt: list[int], count: int, adapter: str) -> list[tuple[int, float]]:
        """The most probable tokens after a prompt, and their probabilities."""
        with self._borrow(adapter, prompt, 0) as (_slot, logits):
            best = np.argsort(-logits, kind='stable')[:count]
            return [(int(token), float(value)) for token, value in
                    zip(best, np.exp(log_softmax(logits)[best]), strict=True)]

    def embed(self, tokens: list[int], adapter: str) -> list[float]:
        """Mean of the last hidden states (width,) of a text."""
        self._adapters.owner(adapter)
        self._check_room(len(tokens))
        slot = self._slots.take()
        try:
            states = self._runtime.hidden_states(adapter, self._adapters.scale(adapter), slot, tokens)
        finally:
            self._slots.free(slot)
        return [float(value) for value in states.mean(axis=0)]

    @contextmanager
    def _borrow(self, adapter: str, prompt: list[int], more: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Decode a prompt in a slot with room for `more` tokens; yields slot and logits (vocabulary,)."""
        owner = self._adapters.owner(adapter)
        self._check_room(len(prompt) + more)
        slot, cached, _shared = self._slots.claim(owner, prompt, self._places.holders(owner))
        known: list[int] = []
        try:
            chunk = self._pace.chunk_tokens()
            for begin in range(cached, len(prompt), chunk):
                logits = self._decode(adapter, Run(slot, begin, prompt[begin:begin + chunk], 1))
            yield slot, logits[-1].copy()
            known = prompt
        finally:
            self._places.empty(owner, known, slot)

    def _decode(self, adapter: str, run: Run) -> NDArray[np.float32]:
        return self._runtime.decode(adapter, self._adapters.scale(adapter), [run])[0]

    def _check_room(self, tokens: int) -> None:
        if tokens > self._runtime.sequence_tokens:
            raise EngineError(f'The text has {tokens} tokens; the context holds {self._runtime.sequence_tokens}. '
                              'Shorten it.')
        if self._places.reserved() + tokens > self._runtime.context_tokens:
            raise EngineError(f'{len(self._places.running)} requests fill the context; try again later.', 3002, 1.0)
