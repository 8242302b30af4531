"""Drawing a token from logits, in numpy; the order of the samplers is llama.cpp's default."""

from __future__ import annotations

import secrets
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from moe_experts.engines.engine import Sampling
from moe_experts.engines.mixture import log_softmax

_CANDIDATES = 256  # top_k = 0 is cut here: what lies beyond has no measurable probability after min_p and top_p
_NEAR = 8.0  # [nats] below the best: there are nearly always enough candidates so near, and finding them is cheap
_MIROSTAT_M = 100  # tokens from which Mirostat 1 estimates the exponent of Zipf's law, as in llama.cpp


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
        self._mu = 2.0 * settings.mirostat_tau

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
        if settings.mirostat:
            return self._mirostat(logits)
        best = _best(logits, min(settings.top_k or _CANDIDATES, _CANDIDATES))
        count = best.size
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
        return self._choose(best[keep], logits[best[keep]] / settings.temp)

    def _choose(self, tokens: NDArray[np.intp], scores: NDArray[np.float32]) -> int:
        self._step += 1
        return int(tokens[(scores + _gumbel(self._seed, self._step, tokens)).argmax()])

    def _mirostat(self, logits: NDArray[np.float32]) -> int:
        """Mirostat 1 and 2.0 (Basu et al., arXiv 2007.14966): keep the surprise [bits] of the answer near tau."""
        settings = self._settings
        best = _best(logits, _CANDIDATES)
        scaled = logits[best].astype(np.float64) / settings.temp
        probabilities = _softmax(scaled)
        if settings.mirostat == 1:
            count = min(_MIROSTAT_M, best.size) - 1
            ranks = np.log((np.arange(count) + 2.0) / (np.arange(count) + 1.0))
            falls = np.log(probabilities[:count] / probabilities[1:count + 1])
            exponent = float((ranks * falls).sum() / (ranks * ranks).sum()) if count else 1.0
            epsilon = exponent - 1.0
            base = (epsilon * 2.0 ** self._mu) / (1.0 - logits.size ** -epsilon) if epsilon else 2.0 ** self._mu
            kept = int(np.clip(base ** (1.0 / exponent) if exponent > 0 and base > 0 else best.size, 1, best.size))
        else:
            kept = max(1, int((-np.log2(probabilities) <= self._mu).sum()))
        probabilities = _softmax(scaled[:kept])
        token = self._choose(best[:kept], scaled[:kept].astype(np.float32))
        surprise = -float(np.log2(probabilities[int(np.flatnonzero(best[:kept] == token)[0])]))
        self._mu -= settings.mirostat_eta * (surprise - settings.mirostat_tau)
        return token

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


def _best(logits: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """The `count` highest that are not masked, highest first."""
    near = np.flatnonzero(logits >= logits.max() - _NEAR)
    if near.size < count:
        near = np.flatnonzero(logits > -np.inf)
    if near.size > count:
        near = near[np.argpartition(logits[near], -count)[-count:]]
    return near[np.lexsort((near, -logits[near]))]


def probable(logits: NDArray[np.float32], count: int) -> list[tuple[int, float]]:
    """The most probable tokens of logits (vocabulary,), with their probabilities."""
    best = _best(logits, count)
    return [(int(token), float(value)) for token, value in zip(best, np.exp(log_softmax(logits)[best]), strict=True)]


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
