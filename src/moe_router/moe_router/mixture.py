"""More than one expert for one prompt: who takes part, and how their answers become one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from moe_router.policy import Decision

KINDS = ('best', 'concat', 'logits')
FALLBACK_WEIGHT = 0.9  # at least, where the fallback expert is chosen: something speaks against all others


@dataclass(frozen=True)
class Part:
    """An expert's answer; `likelihood` is the mean log-likelihood of its tokens [nats], NaN = unknown."""

    expert: str
    text: str
    weight: float
    likelihood: float = math.nan


def members(decision: Decision, count: int, available: Set[str], least: float = 0.003) -> list[tuple[str, float]]:
    """The experts to ask with weights that sum to 1, best first.

    One that was named, chosen by a rule or is the fallback answers alone, and so does whoever nobody comes close to.

    Args:
        count: most experts, `mixture_k`.
        least: probability below which an expert has nothing to add.
    """
    if decision.abstained or count <= 1 or decision.stage in ('named', 'rule'):
        return [(decision.choice, 1.0)]
    found = [(name, share) for name, share in zip(decision.ranked, decision.probabilities, strict=True)
             if name in available and share >= least][:count]
    if decision.choice not in (name for name, _share in found):
        return [(decision.choice, 1.0)]
    total = sum(share for _name, share in found)
    return [(name, share / total) for name, share in found]


def blended(decision: Decision, count: int, available: Set[str], bases: Mapping[str, str]) -> list[tuple[str, float]]:
    """The experts whose distributions are mixed with weights that sum to 1, the chosen one first.

    As many as may be, however improbable: an answer of several domains is wrong from where an expert is missing, and
    one that is not needed has lost its weight after a token or two. The fallback expert answers with the others.

    Args:
        count: most experts, `mixture_k`.
        bases: digest of the base that each expert stands on; only those on the choice's are mixed.
    """
    choice = decision.choice
    shares = dict(zip(decision.ranked, decision.probabilities, strict=True))
    own = max(decision.none_probability, FALLBACK_WEIGHT) if decision.abstained else shares.pop(choice, 0.0)
    others = [(name, share) for name, share in shares.items()
              if name != choice and name in available and share > 0.0 and bases.get(choice)
              and bases.get(name) == bases[choice]][:max(0, count - 1)]
    if not own or not others or decision.stage in ('named', 'rule'):
        return [(choice, 1.0)]
    rest = sum(share for _name, share in others)
    scale = (1.0 - own) / rest if decision.abstained else 1.0
    total = own + scale * rest
    return [(choice, own / total), *((name, scale * share / total) for name, share in others)]


def best(parts: Sequence[Part]) -> Part:
    """The part with the highest likelihood per token; unknown ones go by their weight, behind the known ones."""
    return max(parts, key=lambda part: (not math.isnan(part.likelihood),
                                        0.0 if math.isnan(part.likelihood) else part.likelihood, part.weight))


def signed(part: Part) -> str:
    """A part as it stands in a joined answer."""
    return f'{part.expert}: {part.text.strip()}'


def joined(parts: Sequence[Part]) -> str:
    """All parts, each signed, a paragraph each."""
    return '\n\n'.join(map(signed, parts))
