"""From scores to a decision."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from moe_router.classifier import NONE, Head, Scores


@dataclass(frozen=True)
class Decision:
    """Which expert should answer; fields as in moe_interfaces/RouteDecision."""

    choice: str
    confidence: float
    ranked: tuple[str, ...]
    probabilities: tuple[float, ...]
    none_probability: float
    abstained: bool
    stage: str


def decide(head: Head, scores: Scores, available: Set[str], fallback: str, threshold: float) -> Decision:
    """The best available expert, or the fallback expert where none is sure enough.

    Args:
        available: experts that can answer now; others are passed over.
        threshold: confidence below it abstains, 0..1.
    """
    pairs = sorted(zip(scores.experts, scores.probabilities, strict=True), key=lambda pair: (-pair[1], pair[0]))
    none = sum(float(share) for name, share in pairs if name in (NONE, fallback))
    ranked = [(name, float(share)) for name, share in pairs if name not in (NONE, fallback)]
    best = next(((name, share) for name, share in ranked if name in available), ('', 0.0))
    far = scores.nearness < head.nearness_limit
    abstained = far or best[1] < threshold or best[1] <= none
    return Decision(
        fallback if abstained else best[0], best[1], tuple(name for name, _share in ranked),
        tuple(share for _name, share in ranked), none, abstained, 'fallback' if abstained else 'learned')
