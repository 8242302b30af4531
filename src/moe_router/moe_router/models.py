"""Fine labels, and the two linear models that are fitted over them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from moe_router import ngrams
from moe_router.classifier import Matrix, Vector

_NEVER = -30.0  # logit of a label without samples
_STRENGTH = 30.0  # inverse of the regularisation, for unit vectors
_PHRASINGS = 12  # samples of an expert without intents per cluster


@dataclass(frozen=True)
class Labels:
    """Fine labels under experts.

    Attributes:
        names: of the experts, sorted; truth: the expert's index of each sample.
        target: fine label of each sample; owner: the expert's index of each fine label.
    """

    names: NDArray[np.str_]
    truth: NDArray[np.int64]
    target: NDArray[np.int64]
    owner: NDArray[np.int64]

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts, sorted."""
        return tuple(map(str, self.names))

    @property
    def count(self) -> int:
        """How many fine labels there are."""
        return len(self.owner)

    @classmethod
    def of(cls, vectors: Matrix, experts: Sequence[str], intents: Sequence[str]) -> Labels:
        """Given intents are labels; samples without one are clustered by their vectors (n, 384)."""
        names, truth = np.unique(np.array(experts, dtype=np.str_), return_inverse=True)
        fine = [(int(owner), intent) for owner, intent in zip(truth, intents, strict=True)]
        for index in range(len(names)):
            rows = [row for row, (owner, intent) in enumerate(fine) if owner == index and not intent]
            clusters = min(15, len(rows) // _PHRASINGS)
            if clusters > 1:
                found = KMeans(clusters, n_init=2, random_state=0).fit_predict(vectors[rows])
                for row, cluster in zip(rows, found, strict=True):
                    fine[row] = (index, f'\x1f{cluster}')
        labels = sorted(set(fine))
        place = {label: number for number, label in enumerate(labels)}
        return cls(names, truth.astype(np.int64), np.array([place[label] for label in fine]),
                   np.array([owner for owner, _intent in labels]))

    def folds(self, count: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Rows to fit on and rows held out, every expert in each where it has the samples."""
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # an expert with fewer samples than folds is no fault
            yield from StratifiedKFold(count, shuffle=True, random_state=0).split(self.truth, self.truth)


class LinearModels:
    """Fits both models on any rows of the samples.

    Args:
        grams: columns of each sample (see ngrams).
        named: unit vector of each sample's intent by its name, or (0, 384).
        few: a label with fewer samples also learns from its name.
    """

    def __init__(self, labels: Labels, vectors: Matrix, grams: list[NDArray[np.int64]], named: Matrix,
                 intents: Sequence[str], few: int) -> None:
        self._labels, self._vectors, self._grams, self._named = labels, vectors, grams, named
        self._given = np.array([bool(intent) for intent in intents])
        self._few = few

    def encoder(self, rows: NDArray[np.int64]) -> tuple[Matrix, Vector]:
        """Multinomial regression on vectors: weights (labels, 384), bias (labels,)."""
        target, vectors = self._labels.target[rows], self._vectors[rows]
        if len(self._named):
            _labels, first, counts = np.unique(target, return_index=True, return_counts=True)
            extra = first[(counts < self._few) & self._given[rows[first]]]
            vectors = np.concatenate([vectors, self._named[rows[extra]]])
            target = np.concatenate([target, target[extra]])
        weights = np.zeros((self._labels.count, vectors.shape[1]), dtype=np.float32)
        bias = np.full(self._labels.count, _NEVER, dtype=np.float32)
        classes = np.unique(target)
        if len(classes) == 1:
            bias[classes] = 0.0
            return weights, bias
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # nearly converged is good enough, many labels are wanted
            model = LogisticRegression(C=_STRENGTH, max_iter=150, tol=1e-3).fit(vectors, target)
        return self._spread(model, weights, bias)

    def grams(self, rows: NDArray[np.int64]) -> tuple[Matrix, Vector, Vector]:
        """One linear machine a label on n-grams: weights (columns, labels), bias (labels,), rarity (columns,)."""
        idf = ngrams.rarity([self._grams[row] for row in rows])
        target = self._labels.target[rows]
        weights = np.zeros((self._labels.count, ngrams.COLUMNS), dtype=np.float32)
        bias = np.full(self._labels.count, -1.0, dtype=np.float32)
        if len(np.unique(target)) > 1:
            model = LinearSVC(C=1.0, random_state=0, max_iter=100, tol=0.05)
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                model.fit(self._sparse(rows, idf), target)
            weights, bias = self._spread(model, weights, bias)
        return np.ascontiguousarray(weights.T), bias, idf

    def gram_logits(self, weights: Matrix, bias: Vector, idf: Vector,
                    rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Logits (rows, labels) of the second model."""
        return np.asarray(self._sparse(rows, idf) @ weights + bias, dtype=np.float64)

    def _sparse(self, rows: NDArray[np.int64], idf: Vector) -> sparse.csr_matrix:
        found = [self._grams[row] for row in rows]
        ends = np.cumsum([0, *map(len, found)])
        data = np.concatenate([ngrams.values(one, idf) for one in found])
        return sparse.csr_matrix((data, np.concatenate(found), ends), shape=(len(rows), ngrams.COLUMNS))

    @staticmethod
    def _spread(model: LogisticRegression | LinearSVC, weights: Matrix, bias: Vector) -> tuple[Matrix, Vector]:
        """Put a model's rows to its labels; with two classes scikit-learn keeps one row for both."""
        coefficients, intercept = model.coef_, model.intercept_
        if len(model.classes_) == 2 and len(coefficients) == 1:
            half = 0.5 if isinstance(model, LogisticRegression) else 1.0
            coefficients = np.concatenate([-half * coefficients, half * coefficients])
            intercept = np.concatenate([-half * intercept, half * intercept])
        weights[model.classes_], bias[model.classes_] = coefficients, intercept
        return weights, bias
