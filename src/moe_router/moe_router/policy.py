"""From scores to a decision: who is available, how sure one must be, when the fallback expert answers."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from moe_router.classifier import NONE, Scores


@dataclass(frozen=True)
class Decision:
    """Which expert should answer; fields as in moe_interfaces/RouteDecision.

    `stage` is "named", "rule", "cheap" (n-grams alone), "learned" (with the encoder), "llm", "session" or "fallback".
    """

    choice: str
    confidence: float
    ranked: tuple[str, ...]
    probabilities: tuple[float, ...]
    none_probability: float
    abstained: bool
    stage: str


@dataclass(frozen=True)
class Limits:
    """When to abstain.

    Attributes:
        threshold: confidence below it abstains, 0..1.
        margin: lead over the next expert below which it abstains, 0..1.
    """

    fallback: str
    threshold: float = 0.5
    margin: float = 0.0


def certain(choice: str, stage: str) -> Decision:
    """A decision that nobody has to doubt: the caller named the expert, or a rule did."""
    return Decision(choice, 1.0, (choice,), (1.0,), 0.0, False, stage)


def abstention(limits: Limits) -> Decision:
    """Nobody is chosen, so the fallback expert answers."""
    return Decision(limits.fallback, 0.0, (), (), 1.0, True, 'fallback')


def decide(scores: Scores, available: Set[str], limits: Limits,
           categories: Mapping[str, str] | None = None) -> Decision:
    """The best available expert, or the fallback expert where none is sure enough.

    Args:
        available: experts that can answer now; others are passed over in ranked order.
        categories: category of each expert; given, the best category is chosen first and the expert within it
            (strategy `hierarchical`).
    """
    pairs = sorted(zip(scores.experts, map(float, scores.probabilities), strict=True),
                   key=lambda pair: (-pair[1], pair[0]))
    none = sum(share for name, share in pairs if name in (NONE, limits.fallback))
    ranked = [pair for pair in pairs if pair[0] not in (NONE, limits.fallback)]
    candidates = [pair for pair in ranked if pair[0] in available]
    sure = scores.familiar
    if categories is not None and candidates:
        sums: dict[str, float] = {}
        for name, share in candidates:
            sums[categories.get(name, '')] = sums.get(categories.get(name, ''), 0.0) + share
        best_category = max(sums, key=lambda name: (sums[name], name))
        candidates = [pair for pair in candidates if categories.get(pair[0], '') == best_category]
        # within a category that is sure, the best expert answers, however close the next one is
        sure = sure and sums[best_category] >= limits.threshold and sums[best_category] > none
    choice, confidence = candidates[0] if candidates else ('', 0.0)
    if categories is None:
        runner_up = max((share for name, share in ranked if name != choice), default=0.0)
        sure = sure and confidence >= limits.threshold and confidence > none \
            and (not limits.margin or confidence - runner_up >= limits.margin)
    found = Decision(choice, confidence, tuple(name for name, _share in ranked),
                     tuple(share for _name, share in ranked), none, False, 'cheap' if scores.cheap else 'learned')
    if not candidates or not sure:
        return replace(found, choice=limits.fallback, abstained=True, stage='fallback')
    return found
