"""Fits the head from samples, in a worker process: `python -m moe_router.fitting ORDER.json`.

ORDER.json holds {"digest", "samples": [[expert, intent, text], ...], "fallback", "old", "margin", "folder", "number"}.
The worker writes FOLDER/head.npz, report.json and confusion.png, and says one JSON object a line: {"phase",
"progress"} and at last {"refusal"} or {"error"}. scikit-learn and its threads stay out of the node that routes, and an
unfinished fit can be ended at any time.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from moe_router import measures, ngrams
from moe_router.classifier import NEIGHBOURS, NONE, Head, Matrix
from moe_router.encoder import Encoder
from moe_router.gate import refusal
from moe_router.models import Labels, LinearModels
from moe_router.prepare_encoder import models_folder

FALSE_REJECTS = 0.02  # share of in-domain samples that the distance test may turn away in service
BANK = 4096  # samples that the distance test knows, evenly from all fine labels
_BLENDS = (0.0, 1.0, 2.0, 3.0, 4.0)
_CHEAP_ERRORS = 0.003  # share of wrong ones among those that the n-gram model decides alone, one more than seen
_CHEAP_LEAST = 0.9  # and never below this confidence
_CHEAP_STRANGERS = 0.01  # share of what belongs to no expert that it may take for an expert's
_NAMED = 20  # a fine label with fewer samples also learns from its own name
_FOLDS = 3

Say = Callable[[str, float], None]


def key(text: str) -> int:
    """8 bytes that stand for a sample's text."""
    return int.from_bytes(hashlib.sha256(text.encode('utf-8', 'replace')).digest()[:8], 'big')


def fit(texts: Sequence[str], vectors: Matrix, experts: Sequence[str], intents: Sequence[str], digest: str,
        named: Matrix | None = None, say: Say = lambda _phase, _share: None) -> Head:
    """Fit a head.

    Blend and temperature are fitted on held-out scores, so that confidences are probabilities.

    Args:
        vectors: (n, 384) unit vectors of the texts.
        experts: who should answer, NONE = nobody; intents: fine labels, '' = found by clustering.
        named: unit vector of each intent's name, row by row as `intents`; None = names are not learned from.
    Raises ValueError for fewer than two classes.
    """
    labels = Labels.of(vectors, experts, intents)
    if len(labels.experts) < 2:
        raise ValueError(f'The router needs samples of two experts at least, there are {len(labels.experts)}.')
    grams = [ngrams.columns(text) for text in texts]
    models = LinearModels(labels, vectors, grams, named if named is not None else np.empty((0, 384), np.float32),
                          intents, _NAMED)
    truth = labels.truth
    known = labels.names[truth] != NONE

    held_encoder = np.zeros((len(texts), labels.count))
    held_grams = np.zeros_like(held_encoder)
    held_nearness = np.zeros(len(texts))
    for number, (rows, rest) in enumerate(labels.folds(_FOLDS)):
        weights, bias = models.encoder(rows)
        held_encoder[rest] = vectors[rest] @ weights.T + bias
        held_grams[rest] = models.gram_logits(*models.grams(rows), rest)
        held_nearness[rest] = _nearness(vectors[rest], vectors[_bank(rows[known[rows]], labels.target)])
        say('fit', (number + 1) / (_FOLDS + 1))

    right = labels.owner[None, :] == truth[:, None]
    blend = min(_BLENDS, key=lambda factor: _temperature(held_encoder + factor * held_grams, right)[1])
    held = held_encoder + blend * held_grams
    temperature, cheap_temperature = _temperature(held, right)[0], _temperature(held_grams, right)[0]
    weights, bias = models.encoder(np.arange(len(texts)))
    gram_weights, gram_bias, idf = models.grams(np.arange(len(texts)))
    bank = _bank(np.flatnonzero(known), labels.target)
    centre = vectors.mean(axis=0)
    shares = _summed(held / temperature, labels)
    head = Head(
        experts=labels.experts, weights=weights, bias=bias, gram_weights=gram_weights.astype(np.float16),
        gram_bias=gram_bias, idf=idf, blend=blend, temperature=temperature, cheap_temperature=cheap_temperature,
        cheap_limit=_cheap_limit(_summed(held_grams / cheap_temperature, labels), truth, known), owner=labels.owner,
        bank=vectors[bank], bank_owner=truth[bank], bank_texts=np.array([texts[row][:300] for row in bank], np.str_),
        scales=np.array([0.0, 1.0, 0.0, 1.0]), familiarity_limit=-1e9, centre=centre,
        spread=float(np.linalg.norm(vectors - centre, axis=1).mean()),
        checked=np.array([key(text) for text in texts], np.uint64), passed=shares.argmax(axis=1) == truth,
        digest=digest, report='')
    energies = head.energies(held)
    scales = np.array([energies[known].mean(), energies[known].std() + 1e-6,
                       held_nearness[known].mean(), held_nearness[known].std() + 1e-6])
    head = Head(**{**head.__dict__, 'scales': scales})
    familiar = head.familiarities(energies, held_nearness)
    limit = float(np.quantile(familiar[known], FALSE_REJECTS)) if known.sum() > 10 * NEIGHBOURS else -1e9
    report = _report(shares, familiar, truth, known, labels.names, head, len(texts))
    say('evaluate', 1.0)
    return Head(**{**head.__dict__, 'familiarity_limit': limit, 'report': json.dumps(report)})


def _summed(logits: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    """Probabilities (n, experts) from logits of fine labels."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return np.asarray(shares @ np.eye(len(labels.experts))[labels.owner])


def _temperature(logits: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[float, float]:
    """The divisor with the least negative log-likelihood of the right expert, and that likelihood [nats]."""
    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        likelihood = (shares * right).sum(axis=1) / shares.sum(axis=1)
        return float(-np.log(np.maximum(likelihood, 1e-12)).mean())
    found = minimize_scalar(loss, bounds=(-3.0, 2.0), method='bounded', options={'xatol': 0.02})
    return float(np.exp(found.x)), float(found.fun)


def _bank(rows: NDArray[np.int64], target: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most BANK of the rows, evenly from all fine labels."""
    if len(rows) <= BANK:
        return rows
    order = np.random.default_rng(0).permutation(rows)
    rank = np.empty(len(order), dtype=np.int64)
    seen: dict[int, int] = {}
    for place, label in enumerate(target[order]):
        rank[place] = seen[label] = seen.get(label, -1) + 1
    return np.sort(order[np.argsort(rank, kind='stable')[:BANK]])


def _nearness(vectors: Matrix, bank: Matrix) -> NDArray[np.float64]:
    """Mean cosine to the nearest of a bank."""
    count = min(NEIGHBOURS, len(bank))
    if not count:
        return np.zeros(len(vectors))
    return np.asarray(np.partition(vectors @ bank.T, -count, axis=1)[:, -count:].mean(axis=1), np.float64)


def _cheap_limit(shares: NDArray[np.float64], truth: NDArray[np.int64], known: NDArray[np.bool_]) -> float:
    """The least confidence from which the n-gram model is hardly ever wrong; 2 = never sure enough."""
    confidence, found = shares.max(axis=1), shares.argmax(axis=1)
    order = np.argsort(-confidence)
    wrong = np.cumsum(found[order] != truth[order])
    strangers = np.cumsum(~known[order] & (found[order] != truth[order]))
    good = (wrong + 1 <= _CHEAP_ERRORS * np.arange(1, len(order) + 1)) & (confidence[order] >= _CHEAP_LEAST)
    good &= strangers <= _CHEAP_STRANGERS * (~known).sum()
    return float(confidence[order][np.flatnonzero(good)[-1]]) if good.any() else 2.0


def _report(shares: NDArray[np.float64], familiar: NDArray[np.float64], truth: NDArray[np.int64],
            known: NDArray[np.bool_], names: NDArray[np.str_], head: Head, samples: int) -> dict[str, Any]:
    """What a person and the gate want to know of a fit; all on held-out scores."""
    found = shares.argmax(axis=1)
    shown = [str(name) or 'none' for name in names]
    return {
        'samples': samples, 'accuracy': float((found == truth).mean()), 'macro_f1': measures.macro_f1(truth, found),
        'ece': measures.calibration_error(shares.max(axis=1), found == truth),
        'ood_recall': measures.recall_of_strangers(familiar[known], familiar[~known]),
        'domains': measures.accuracies(truth, found, shown), 'names': shown,
        'confusion': measures.confusion(truth, found, len(names)).tolist(), 'temperature': head.temperature,
        'blend': head.blend, 'cheap_limit': head.cheap_limit}


def _tell(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def run(order: dict[str, Any]) -> None:
    """Carry out an order; raises ValueError where the samples do not allow it."""
    folder = Path(order['folder'])
    experts, intents, texts = map(list, zip(*order['samples'], strict=True))
    experts = [NONE if expert == order['fallback'] else expert for expert in experts]
    _tell(phase='embed', progress=0.0)
    encoder = Encoder(models_folder())
    names = sorted(set(intents))
    vectors = encoder.encode([*texts, *(name.replace('_', ' ') or 'x' for name in names)])
    place = {name: len(texts) + index for index, name in enumerate(names)}
    _tell(phase='fit', progress=0.0)
    head = fit(texts, vectors[:len(texts)], experts, intents, order['digest'],
               vectors[[place[intent] for intent in intents]], lambda phase, share: _tell(phase=phase, progress=share))
    _tell(phase='gate', progress=0.0)
    old = None
    if order.get('old'):
        try:
            old = Head.load(Path(order['old']))
        except (OSError, ValueError, KeyError):
            old = None  # what cannot be read cannot serve either
    reason = refusal(head, old, dict(zip(map(key, texts), experts, strict=True)), float(order['margin']))
    report = json.loads(head.report)
    folder.mkdir(parents=True, exist_ok=True)
    measures.draw_confusion(np.array(report['confusion']), report['names'], folder / 'confusion.png')
    (folder / 'report.json').write_text(json.dumps(report, indent=2), encoding='utf-8')
    head.save(folder / 'head.npz')
    _tell(refusal=reason)


def main() -> int:
    """Fit as ordered; 1 with one sentence where the samples do not allow it."""
    try:
        run(json.loads(Path(sys.argv[1]).read_text(encoding='utf-8')))
    except (ValueError, OSError) as error:
        _tell(error=str(error))
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
