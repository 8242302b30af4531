"""What a job makes, as it is served: an adapter on a base, or a model of its own, in any number format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moe_training.chat import TokenRow
from moe_training.dataset import Example
from moe_training.errors import TrainingError
from moe_training.quantization import CANDIDATES
from moe_training.serving_score import Score, ServedModel, score

KEPT_SHARE = 0.98  # of F16's held-out score
SPEED_ROUNDS = 3


@dataclass(frozen=True)
class Product:
    """Files to serve.

    Attributes:
        file: makes the model file (for an adapter: the base) in a number format and returns its path.
        adapter: GGUF adapter; None = the model stands alone.
        context: longest sequence that is served for scoring [tokens].
    """

    file: Callable[[str], Path]
    adapter: Path | None
    context: int

    def open(self, quantization: str) -> ServedModel:
        """Load it; the caller closes it. Raises TrainingError."""
        return ServedModel(self.file(quantization), self.adapter, context=self.context)

    def artifact(self, quantization: str) -> Path:
        """The file that the registry keeps."""
        return self.adapter or self.file(quantization)


@dataclass(frozen=True)
class Candidate:
    """A number format with its held-out score and decoding speed [tokens/s]."""

    quantization: str
    score: Score
    rate: float


def value(found: Score) -> float:
    """One figure of a score: exact answers, and overlap of words where nothing is exact."""
    return found.exact or found.f1


def fastest(product: Product, rows: list[TokenRow], asked: list[Example],
            tell: Callable[[str], None] = lambda _name: None) -> tuple[Candidate, list[Candidate]]:
    """Try the formats; returns the fastest that keeps KEPT_SHARE of F16's score, and all that were tried.

    Raises TrainingError where there are no rows to score.
    """
    if not rows:
        raise TrainingError('quantization best needs held-out rows to compare formats by; set holdout or heldout.')
    tried: list[Candidate] = []
    for name in CANDIDATES:
        tell(name)
        served = product.open(name)
        try:
            rate = max(served.rate(rows[0].prompt) for _ in range(SPEED_ROUNDS))
            tried.append(Candidate(name, score(served, rows, asked), rate))
        finally:
            served.close()
    least = KEPT_SHARE * value(tried[0].score)
    return max((each for each in tried if value(each.score) >= least), key=lambda each: each.rate), tried
