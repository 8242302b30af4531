"""Several experts as one: their next-token distributions mixed, their weights updated from token to token.

The ensemble of Branch-Train-Merge (Li et al., arXiv 2208.03306), with the posterior carried along:
p(x_t | x_<t) = sum_k w_k p_k(x_t | x_<t), and w_k becomes proportional to w_k p_k(x_t | x_<t). By Bayes' rule alone the
mixture would bet everything on whoever knew the first sentence and need a sentence of bad guesses to leave him, so a
little of the weight goes back to the prior at every token (fixed share; Herbster and Warmuth, Tracking the Best Expert,
Machine Learning 32, 1998): an answer that passes from one domain to the next passes from one expert to the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SHARE = 0.05  # of the weight that goes back to the prior at every token; benchmarks/mixture.py shows what it is worth


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities [nats] of the last axis, in double precision; -inf stays -inf."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), dtype=np.float64)


class Posterior:
    """How far each expert is believed.

    Args:
        prior: of every expert, >= 0, one of them above 0; they need not sum to 1.
        share: of the weight that goes back to the prior at every token, 0..1; 0 is Bayes' rule alone.
    """

    def __init__(self, prior: Sequence[float], share: float = SHARE) -> None:
        with np.errstate(divide='ignore'):
            self._prior = np.log(np.asarray(prior, dtype=np.float64) / np.sum(prior))
            self._kept, self._returned = np.log1p(-share), self._prior + np.log(share)
        self.logs = self._prior  # weights (experts,) [nats]

    def observe(self, likelihoods: NDArray[np.float64]) -> float:
        """Take in the log-likelihood (experts,) [nats] of a token; returns that of the mixture."""
        joint = self.logs + likelihoods
        total = float(np.logaddexp.reduce(joint))
        if np.isfinite(total):  # a token that no expert thought possible says nothing about them
            self.logs = np.logaddexp(joint - total + self._kept, self._returned)
        return total


class Mixture:
    """The state of one mixed answer.

    Args:
        weights: prior of every expert, >= 0, one of them above 0; they need not sum to 1.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self._posterior = Posterior(weights)
        self._rows: NDArray[np.float64] = np.empty((0, 0))

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the experts after all tokens observed; they sum to 1."""
        return tuple(float(value) for value in np.exp(self._posterior.logs))

    def mix(self, logits: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Log-probabilities (vocabulary,) of the mixture from one row of logits per expert."""
        self._rows = log_softmax(np.stack(logits))
        mixed = np.logaddexp.reduce(self._rows + self._posterior.logs[:, None], axis=0)
        return np.asarray(mixed, dtype=np.float32)

    def observe(self, token: int) -> None:
        """Update the weights with a token drawn from the last mix()."""
        self._posterior.observe(self._rows[:, token])
