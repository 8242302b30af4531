"""The calibrated head: two linear models over fine labels, summed into experts, and a test for what is out of all.

The cheap model reads hashed n-grams, the other one the sentence vector; where the encoder ran, both are added. What
belongs to no expert is the explicit class NONE, and apart from it a distance test against a threshold that was
fitted on held-out samples.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_router import ngrams
from moe_router.whole_file import replacing

NONE = ''  # the class of what no expert knows
NEIGHBOURS = 5  # samples that the distance test looks at

Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """What a head says about a prompt.

    Attributes:
        probabilities: one per expert, sum 1, NONE among them.
        familiarity: higher is nearer to the known; NaN where the cheap model alone looked.
        familiar: the distance test holds it for one of the known domains.
        cheap: the n-gram model was sure enough, the encoder did not run.
    """

    experts: tuple[str, ...]
    probabilities: NDArray[np.float64]
    familiarity: float
    familiar: bool
    cheap: bool


@dataclass(frozen=True)
class Head:
    """A fitted head, served as one matrix product.

    Attributes:
        weights: (fine labels, 384); bias: (fine labels,).
        gram_weights: (columns, fine labels), float16; gram_bias: (fine labels,); idf: (columns,).
        blend: factor of the n-gram model's logits beside the encoder's.
        temperature, cheap_temperature: divisors that make confidences probabilities.
        cheap_limit: confidence from which the n-gram model decides alone; above 1 = never.
        owner: expert's index of each fine label.
        bank: (n, 384) unit vectors of in-domain samples, bank_owner their experts, bank_texts their texts.
        scales: mean and deviation of energy, mean and deviation of nearness, over held-out in-domain samples.
        familiarity_limit: below it a prompt is out of every domain.
        centre, spread: mean vector of the samples and the mean distance to it, to notice drift.
        checked: first 8 bytes of the sha256 of every sample's text; passed: which were right when held out.
        digest: of the samples; report: JSON of how good the fit is.
    """

    experts: tuple[str, ...]
    weights: Matrix
    bias: Vector
    gram_weights: NDArray[np.float16]
    gram_bias: Vector
    idf: Vector
    blend: float
    temperature: float
    cheap_temperature: float
    cheap_limit: float
    owner: NDArray[np.int64]
    bank: Matrix
    bank_owner: NDArray[np.int64]
    bank_texts: NDArray[np.str_]
    scales: NDArray[np.float64]
    familiarity_limit: float
    centre: Vector
    spread: float
    checked: NDArray[np.uint64]
    passed: NDArray[np.bool_]
    digest: str
    report: str

    def gram_logits(self, text: str) -> NDArray[np.float64]:
        """Logits (fine labels,) of the n-gram model."""
        found = ngrams.columns(text)
        rows = self.gram_weights[found].astype(np.float32)
        return (ngrams.values(found, self.idf) @ rows + self.gram_bias).astype(np.float64)

    def score_cheaply(self, grams: NDArray[np.float64]) -> Scores | None:
        """The n-gram model's scores where it is sure enough to decide alone."""
        if self.cheap_limit > 1.0:
            return None
        probabilities = self._summed(grams / self.cheap_temperature)
        best = int(probabilities.argmax())
        if probabilities[best] < self.cheap_limit or self.experts[best] == NONE:
            return None
        return Scores(self.experts, probabilities, float('nan'), True, True)

    def score(self, vector: Vector, grams: NDArray[np.float64]) -> Scores:
        """Score a unit vector (384,) and the logits of the same text's n-grams."""
        logits = (self.weights @ vector + self.bias).astype(np.float64) + self.blend * grams
        probabilities = self._summed(logits / self.temperature)
        familiarity = float(self.familiarities(self.energies(logits[None, :]), self.nearness(vector[None, :]))[0])
        return Scores(self.experts, probabilities, familiarity, familiarity >= self.familiarity_limit, False)

    def energies(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Energy of in-domain fine labels (Liu et al., arXiv 2010.03759) of rows of logits."""
        none = self.experts.index(NONE) if NONE in self.experts else -1
        known = logits[:, self.owner != none]
        top = known.max(axis=1)
        return np.asarray(top + np.log(np.exp(known - top[:, None]).sum(axis=1)))

    def nearness(self, vectors: Matrix) -> NDArray[np.float64]:
        """Mean cosine of each row to its nearest samples (Sun et al., arXiv 2204.06507)."""
        count = min(NEIGHBOURS, len(self.bank))
        if not count:
            return np.zeros(len(vectors))
        return np.asarray(np.partition(vectors @ self.bank.T, -count, axis=1)[:, -count:].mean(axis=1), np.float64)

    def familiarities(self, energies: NDArray[np.float64], nearness: NDArray[np.float64]) -> NDArray[np.float64]:
        """Both standardised and added: each notices strangers that the other does not."""
        energy_mean, energy_deviation, near_mean, near_deviation = self.scales
        return np.asarray((energies - energy_mean) / energy_deviation + (nearness - near_mean) / near_deviation)

    def nearest(self, vector: Vector, count: int = NEIGHBOURS) -> list[tuple[str, str, float]]:
        """Expert, text and cosine of the nearest samples, nearest first."""
        cosines = self.bank @ vector
        order = np.argsort(-cosines)[:count]
        return [(self.experts[self.bank_owner[row]], str(self.bank_texts[row]), float(cosines[row])) for row in order]

    def _summed(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of the experts from logits of their fine labels."""
        shares = np.exp(logits - logits.max())
        sums = np.bincount(self.owner, weights=shares / shares.sum(), minlength=len(self.experts))
        return np.asarray(sums, dtype=np.float64)

    def save(self, path: Path) -> None:
        """Write the head, whole or not at all."""
        with replacing(path) as file:
            content: dict[str, Any] = {field.name: np.array(getattr(self, field.name)) for field in fields(self)}
            np.savez(file, **content)

    @classmethod
    def load(cls, path: Path) -> Head:
        """Read a head; raises OSError, ValueError or KeyError. Pickles are refused, and numbers that are none."""
        with np.load(path, allow_pickle=False) as content:
            found = {field.name: content[field.name] for field in fields(cls)}
        for name, value in found.items():
            if value.dtype.kind == 'f' and not np.isfinite(value).all():
                raise ValueError(f'{path} holds numbers that are none in {name}; retrain the router.')
        for name in ('blend', 'temperature', 'cheap_temperature', 'cheap_limit', 'familiarity_limit', 'spread'):
            found[name] = float(found[name])
        for name in ('digest', 'report'):
            found[name] = str(found[name])
        return cls(**{**found, 'experts': tuple(map(str, found['experts']))})
