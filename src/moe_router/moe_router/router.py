"""From a prompt to a decision: the cascade of rules, n-grams and encoder, by the strategy that is set."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_router.classifier import Head, Scores
from moe_router.encoder import Encoder
from moe_router.policy import Decision, Limits, abstention, certain, decide
from moe_router.rules import Rule, Rules

STRATEGIES = ('learned', 'rule_based', 'hierarchical', 'llm')
LONGEST = 8_000  # characters of a prompt that are looked at: more than the encoder's tokens hold
SESSION_SHARE = 0.5  # of the threshold suffices for the expert that a conversation is with already

Chooser = Callable[[str, tuple[str, ...]], str]


class NotFitted(Exception):
    """There is no head yet."""


@dataclass(frozen=True)
class Routed:
    """A decision and what it came from; `vector` is there where the encoder ran."""

    decision: Decision
    latency_s: float
    vector: NDArray[np.float32] | None = None
    scores: Scores | None = None
    rule: Rule | None = None


def blank(prompt: str) -> bool:
    """Whether there is nothing to read in a prompt."""
    return not any(sign.isprintable() and not sign.isspace() for sign in prompt)


class Router:
    """Decides. Its parts may be replaced while it serves.

    Args:
        choose: asks a language model for one of the names (strategy `llm`); its answer is checked here.
    """

    def __init__(self, encoder: Encoder, choose: Chooser | None = None) -> None:
        self.encoder, self._choose = encoder, choose
        self.head: Head | None = None
        self.rules = Rules()

    def route(self, prompt: str, available: Set[str], limits: Limits, strategy: str = 'learned',
              categories: Mapping[str, str] | None = None, favoured: str = '', head: Head | None = None,
              cascade: bool = True) -> Routed:
        """Decide on a prompt; raises NotFitted where the strategy needs a head and there is none.

        Args:
            available: experts that can answer now.
            categories: category of each expert, for `hierarchical`.
            favoured: expert that the conversation is with.
            head: another one than the serving head, for a replay.
            cascade: False runs the encoder in any case.
        """
        begin = time.perf_counter()
        text, head = prompt[:LONGEST], head or self.head
        rule = self.rules.match(text, available)
        if rule is not None:
            return Routed(certain(rule.expert, 'rule'), time.perf_counter() - begin, rule=rule)
        if strategy == 'rule_based':
            return Routed(abstention(limits), time.perf_counter() - begin)
        if strategy == 'llm':
            return Routed(self._ask(text, available, limits), time.perf_counter() - begin)
        if head is None:
            raise NotFitted
        grams = head.gram_logits(text)
        scores, vector = head.score_cheaply(grams) if cascade else None, None
        if scores is None:
            vector = self.encoder.encode([text])[0]
            scores = head.score(vector, grams)
        if not np.isfinite(scores.probabilities).all():
            return Routed(abstention(limits), time.perf_counter() - begin)
        decision = decide(scores, available, limits, categories if strategy == 'hierarchical' else None)
        if decision.abstained and favoured in available and favoured != limits.fallback:
            nearer = decide(scores, {favoured}, replace(limits, threshold=SESSION_SHARE * limits.threshold, margin=0.0))
            if not nearer.abstained:
                decision = replace(nearer, stage='session')
        return Routed(decision, time.perf_counter() - begin, vector, scores)

    def _ask(self, text: str, available: Set[str], limits: Limits) -> Decision:
        """What the language model says; whatever is not the name of an available expert is an abstention."""
        names = tuple(sorted(available - {limits.fallback}))
        answer = self._choose(text, names).strip() if self._choose is not None and names else ''
        return certain(answer, 'llm') if answer in names else abstention(limits)

    def explain(self, prompt: str, routed: Routed, limits: Limits) -> dict[str, Any]:
        """Why it was decided so: rule, scores of both models, nearest samples, thresholds."""
        found: dict[str, Any] = {
            'stage': routed.decision.stage, 'rule': routed.rule.name if routed.rule else None,
            'confidence_threshold': limits.threshold, 'margin': limits.margin, 'fallback_expert': limits.fallback}
        head = self.head
        if head is None or blank(prompt):
            return found
        text = prompt[:LONGEST]
        vector, grams = self.encoder.encode([text])[0], head.gram_logits(text)
        scores, cheap = head.score(vector, grams), head.score_cheaply(grams)
        found.update(
            probabilities=_shares(scores), cheap_probabilities=_shares(cheap) if cheap else None,
            cheap_limit=head.cheap_limit, familiarity=scores.familiarity, familiarity_limit=head.familiarity_limit,
            familiar=scores.familiar, nearest=[{'expert': expert, 'text': sample, 'cosine': round(cosine, 4)}
                                               for expert, sample, cosine in head.nearest(vector)])
        return found


def _shares(scores: Scores) -> dict[str, float]:
    return {name or 'none': float(share) for name, share in zip(scores.experts, scores.probabilities, strict=True)}
