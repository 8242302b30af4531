"""Several experts as one: their next-token distributions mixed, their weights updated by Bayes' rule.

The ensemble of Branch-Train-Merge (Li et al., arXiv 2208.03306), with the posterior carried from token to token:
p(x_t | x_<t) = sum_k w_k p_k(x_t | x_<t), and w_k becomes proportional to w_k p_k(x_t | x_<t).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities [nats] of the last axis, in double precision; -inf stays -inf."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), dtype=np.float64)


class Mixture:
    """The state of one mixed answer.

    Args:
        weights: prior of every expert, >= 0, one of them above 0; they need not sum to 1.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        with np.errstate(divide='ignore'):
            self._log_weights = np.log(np.asarray(weights, dtype=np.float64) / np.sum(weights))
        self._rows: NDArray[np.float64] = np.empty((0, 0))

    @property
    def weights(self) -> tuple[float, ...]:
        """Posterior of the experts after all tokens observed; sums to 1."""
        return tuple(float(value) for value in np.exp(self._log_weights))

    def mix(self, logits: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Log-probabilities (vocabulary,) of the mixture from one row of logits per expert."""
        self._rows = log_softmax(np.stack(logits))
        mixed = np.logaddexp.reduce(self._rows + self._log_weights[:, None], axis=0)
        return np.asarray(mixed, dtype=np.float32)

    def observe(self, token: int) -> None:
        """Update the weights with a token drawn from the last mix()."""
        joint = self._log_weights + self._rows[:, token]
        total = np.logaddexp.reduce(joint)
        if np.isfinite(total):  # a token that no expert thought possible says nothing about them
            self._log_weights = joint - total
