"""Drawing a token from logits, in numpy; the order of the samplers is llama.cpp's default."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from moe_experts.engines.engine import Sampling

_CANDIDATES = 256  # top_k = 0 is cut here: what lies beyond has no measurable probability after min_p and top_p


class Sampler:
    """Draws the tokens of one sequence. Same settings, seed and logits give the same tokens."""

    def __init__(self, settings: Sampling) -> None:
        self._settings = settings
        self._random = np.random.default_rng(None if settings.seed < 0 else settings.seed)
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
        final = _softmax(np.where(keep, logits[best].astype(np.float64) / settings.temp, -np.inf))
        return int(best[self._random.choice(count, p=final)])

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
