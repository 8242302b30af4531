"""The calibrated head: fine labels summed into experts, with a distance test for what is out of every domain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NONE = 'general'  # samples of the fallback expert are the class of everything that no expert knows
_NEIGHBOURS = 5
_FALSE_REJECTS = 0.02  # share of in-domain samples that the distance test may turn away


@dataclass(frozen=True)
class Scores:
    """Probabilities of the experts (sum 1, NONE among them) and the mean cosine to the nearest samples."""

    experts: tuple[str, ...]
    probabilities: NDArray[np.float64]
    nearness: float


@dataclass(frozen=True)
class Head:
    """A fitted head, served as one matrix product.

    Attributes:
        weights: (fine labels, 384); bias: (fine labels,).
        owner: expert's index of each fine label.
        samples: (n, 384) unit vectors of the in-domain samples.
        nearness_limit: mean cosine below it is out of every domain.
    """

    experts: tuple[str, ...]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    owner: NDArray[np.int64]
    samples: NDArray[np.float32]
    nearness_limit: float
    digest: str

    def score(self, vector: NDArray[np.float32]) -> Scores:
        """Score one unit vector (384,)."""
        logits = (self.weights @ vector + self.bias).astype(np.float64)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        probabilities = np.bincount(self.owner, weights=shares, minlength=len(self.experts)).astype(np.float64)
        cosines = self.samples @ vector
        count = min(_NEIGHBOURS, cosines.size)
        nearness = float(np.partition(cosines, -count)[-count:].mean()) if count else 1.0
        return Scores(self.experts, probabilities, nearness)

    def save(self, path: Path) -> None:
        """Write the head, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f'.{path.name}.tmp.npz')
        np.savez(temporary, experts=np.array(self.experts), weights=self.weights, bias=self.bias, owner=self.owner,
                 samples=self.samples, nearness_limit=self.nearness_limit, digest=np.array(self.digest))
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Head:
        """Read a head; raises OSError or ValueError. Pickles are refused."""
        with np.load(path, allow_pickle=False) as content:
            return cls(tuple(map(str, content['experts'])), content['weights'], content['bias'], content['owner'],
                       content['samples'], float(content['nearness_limit']), str(content['digest']))


def fit(vectors: NDArray[np.float32], experts: list[str], intents: list[str], digest: str) -> Head:
    """Fit a head on unit vectors (n, 384) with their experts and intents.

    The temperature is fitted on out-of-fold scores, so that confidences are probabilities (Guo et al.,
    arXiv 1706.04599). Raises ValueError for fewer than two experts.
    """
    from scipy.optimize import minimize_scalar
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    names = tuple(sorted(set(experts)))
    if len(names) < 2:
        raise ValueError(f'The router needs samples of two experts at least, there are {len(names)}.')
    fine = [f'{expert}\x1f{intent}' for expert, intent in zip(experts, intents, strict=True)]
    counts = {label: fine.count(label) for label in set(fine)}
    # a fine label with few samples is no label of its own
    fine = [label if counts[label] >= 5 else label.split('\x1f')[0] + '\x1f' for label in fine]
    labels = sorted(set(fine))
    target = np.array([labels.index(label) for label in fine])
    owner = np.array([names.index(label.split('\x1f')[0]) for label in labels])
    truth = np.array([names.index(expert) for expert in experts])

    def regression(rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        model = LogisticRegression(C=30.0, max_iter=300).fit(vectors[rows], target[rows])
        weights = np.zeros((len(labels), vectors.shape[1]))
        bias = np.full(len(labels), -30.0)
        weights[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
        return weights, bias

    held = np.zeros((len(target), len(labels)))
    for rows, rest in StratifiedKFold(3, shuffle=True, random_state=0).split(vectors, truth):
        weights, bias = regression(rows)
        held[rest] = vectors[rest] @ weights.T + bias

    def loss(log_temperature: float) -> float:
        logits = held / np.exp(log_temperature)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        right = np.where(owner[None, :] == truth[:, None], shares, 0.0).sum(axis=1)
        return float(-np.log(np.maximum(right, 1e-12)).mean())

    temperature = float(np.exp(minimize_scalar(loss, bounds=(-2.0, 2.0), method='bounded').x))
    weights, bias = regression(np.arange(len(target)))
    known = vectors[np.array([expert != NONE for expert in experts])]
    return Head(names, (weights / temperature).astype(np.float32), (bias / temperature).astype(np.float32), owner,
                known, _nearness_limit(known), digest)


def _nearness_limit(known: NDArray[np.float32]) -> float:
    """The mean cosine to their nearest others that all but a few in-domain samples exceed."""
    if len(known) <= _NEIGHBOURS:
        return -1.0
    cosines = known @ known.T
    np.fill_diagonal(cosines, -1.0)
    nearest = np.partition(cosines, -_NEIGHBOURS, axis=1)[:, -_NEIGHBOURS:].mean(axis=1)
    # a new wording is farther from the samples than they are from each other
    return float(np.quantile(nearest, _FALSE_REJECTS)) - 0.1
