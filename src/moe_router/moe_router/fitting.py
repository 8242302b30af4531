"""Fits the head from samples: `python -m moe_router.fitting SAMPLES.json HEAD.npz`, a process of its own.

SAMPLES.json holds {"digest": ..., "samples": [[expert, intent, text], ...]}. scikit-learn and its threads stay out
of the node that routes, and an unfinished fit can be ended at any time.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from moe_router.classifier import NEIGHBOURS, NONE, Head
from moe_router.encoder import Encoder
from moe_router.prepare_encoder import models_folder

_FALSE_REJECTS = 0.02  # share of in-domain samples that the distance test may turn away
_FEW = 5  # a fine label with fewer samples is no label of its own


def fit(vectors: NDArray[np.float32], experts: list[str], intents: list[str], digest: str) -> Head:
    """Fit a head on unit vectors (n, 384) with their experts and intents.

    The temperature is fitted on out-of-fold scores, so that confidences are probabilities (Guo et al.,
    arXiv 1706.04599). Raises ValueError for fewer than two experts.
    """
    names = tuple(sorted(set(experts)))
    if len(names) < 2:
        raise ValueError(f'The router needs samples of two experts at least, there are {len(names)}.')
    fine = [f'{expert}\x1f{intent}' for expert, intent in zip(experts, intents, strict=True)]
    counts = {label: fine.count(label) for label in set(fine)}
    fine = [label if counts[label] >= _FEW else label.split('\x1f')[0] + '\x1f' for label in fine]
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
    if len(known) <= NEIGHBOURS:
        return -1.0
    cosines = known @ known.T
    np.fill_diagonal(cosines, -1.0)
    nearest = np.partition(cosines, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:].mean(axis=1)
    # a new wording is farther from the samples than they are from each other
    return float(np.quantile(nearest, _FALSE_REJECTS)) - 0.1


def main() -> int:
    """Fit from a file to a file; 1 with one sentence where the samples do not allow it."""
    samples_path, head_path = map(Path, sys.argv[1:])
    content = json.loads(samples_path.read_text(encoding='utf-8'))
    experts, intents, texts = map(list, zip(*content['samples'], strict=True))
    try:
        fit(Encoder(models_folder()).encode(texts), experts, intents, content['digest']).save(head_path)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
