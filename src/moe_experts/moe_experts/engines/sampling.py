"""Drawing a token from logits, in numpy; the order of the samplers is llama.cpp's default."""

from __future__ import annotations

import secrets
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from moe_experts.engines.engine import Sampling

_CANDIDATES = 256  # top_k = 0 is cut here: what lies beyond has no measurable probability after min_p and top_p


class Sampler:
    """Draws the tokens of one sequence. Same settings, seed and logits give the same tokens.

    The noise of a draw belongs to seed, step and token (the Gumbel-max trick), not to a token's rank: logits that
    differ by rounding, as they do in other company in a batch, hardly ever change what is drawn.
    """

    def __init__(self, settings: Sampling) -> None:
        self._settings = settings
        self._seed = secrets.randbits(63) if settings.seed < 0 else settings.seed
        self._step = 0
        self._history: list[int] = []

    def accept(self, token: int) -> None:
        """Remember a token for the penalties."""
        self._history.append(token)

    def draw(self, logits: NDArray[np.float32]) -> int:
        """Draw from logits (vocabulary,), which may be changed; masked tokens are -inf."""
        settings = self._settings
        for token, bias in settings.logit_bias:
            if 0 <= token < logits.size:
                logits[token] += bias
        self._penalise(logits)
        if settings.temp <= 0.0:
            return int(logits.argmax())
        count = min(settings.top_k or _CANDIDATES, logits.size, _CANDIDATES)
        best = np.argpartition(logits, -count)[-count:]
        best = best[np.argsort(-logits[best], kind='stable')]
        probabilities = _softmax(logits[best].astype(np.float64))
        keep = np.ones(count, dtype=bool)
        if settings.typical_p < 1.0:
            keep &= _typical(probabilities, settings.typical_p)
        if settings.top_p < 1.0:
            keep &= np.concatenate(([True], np.cumsum(probabilities)[:-1] < settings.top_p))
        if settings.min_p > 0.0:
            keep &= probabilities >= settings.min_p * probabilities[0]
        if not keep.any():
            keep[0] = True
        self._step += 1
        scores = logits[best[keep]] / settings.temp + _gumbel(self._seed, self._step, best[keep])
        return int(best[keep][scores.argmax()])

    def _penalise(self, logits: NDArray[np.float32]) -> None:
        settings = self._settings
        if settings.penalty_last_n == 0 or not self._history:
            return
        window = self._history if settings.penalty_last_n < 0 else self._history[-settings.penalty_last_n:]
        if settings.penalty_repeat == 1.0 and not settings.penalty_freq and not settings.penalty_present:
            return
        for token, count in Counter(window).items():
            value = logits[token]
            logits[token] = value / settings.penalty_repeat if value > 0 else value * settings.penalty_repeat
            logits[token] -= count * settings.penalty_freq + settings.penalty_present


def _gumbel(seed: int, step: int, tokens: NDArray[np.intp]) -> NDArray[np.float64]:
    """Standard Gumbel noise of each token, from a counter hashed by SplitMix64 (Steele et al., OOPSLA 2014)."""
    state = np.uint64((seed * 0x9E3779B97F4A7C15 + (step << 32)) % (1 << 64))
    mixed = state + tokens.astype(np.uint64)
    for _ in range(2):  # neighbouring counters need two rounds to look independent
        mixed = mixed + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    uniform = ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) / (1 << 53)
    return np.asarray(-np.log(-np.log(uniform)), dtype=np.float64)


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = np.exp(values - values.max())
    return np.asarray(shifted / shifted.sum(), dtype=np.float64)


def _typical(probabilities: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Locally typical sampling (Meister et al., arXiv 2202.00666): nearest to the entropy first."""
    information = -np.log(np.maximum(probabilities, 1e-30))
    order = np.argsort(np.abs(information - (probabilities * information).sum()))
    chosen = order[:int(np.searchsorted(np.cumsum(probabilities[order]), share)) + 1]
    keep = np.zeros(probabilities.size, dtype=bool)
    keep[chosen] = True
    return keep
