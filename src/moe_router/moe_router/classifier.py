"""The calibrated head: fine labels summed into experts, with a distance test for what is out of every domain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NONE = 'general'  # samples of the fallback expert are the class of everything that no expert knows
NEIGHBOURS = 5  # samples that the distance test looks at


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
        count = min(NEIGHBOURS, cosines.size)
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
