"""What is a mixture worth? Perplexity of right answers to questions of two domains, and of one.

    ./moe python benchmarks/mixture.py [--no-dense]

Two held-out questions of different domains make one prompt, their answers one text; a part of the questions is asked
alone, too. Compared on the answers: every expert alone, the expert that fits each text best (known only afterwards),
the experts mixed at the logits with the router's probabilities as weights, the same by Bayes' rule alone (as published:
no weight goes back to the prior), and one adapter trained on the rows of all experts together, notes in front of them
included, with as many steps as all of them had, in $MOE_HOME/benchmarks (made once, also by experts_quality.py; it
takes an hour or two on two cores, so --no-dense leaves it out).
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import random
from dataclasses import dataclass

import numpy as np
from experts_quality import CATALOGUE, DATA, EXPERTS, FALLBACK, dense_adapter, fitted_router, rows, steps
from measurement import Figure, report
from numpy.typing import NDArray

from moe_experts.engines.engine import Engine, EngineSettings
from moe_experts.engines.mixture import SHARE, Posterior
from moe_experts.engines.opening import open_engine
from moe_router.mixture import blended
from moe_router.policy import Limits
from moe_router.router import Router
from moe_training.paths import served_base

PAIRS, SINGLES = 8, 40  # texts of each ordered pair of domains, of each domain
DENSE = 'all domains'


@dataclass(frozen=True)
class Text:
    """A prompt with its right answer; weights are those the router mixes experts with."""

    prompt: str
    answer: str
    weights: dict[str, float]


def texts(router: Router) -> dict[str, list[Text]]:
    """Texts of two domains and of one, always the same."""
    draw = random.Random(2)
    held = {name: rows(name, 'heldout') for name in EXPERTS}

    def text(*names: str) -> Text:
        drawn = [draw.choice(held[name]) for name in names]
        prompt = ' '.join(row.prompt for row in drawn)
        decision = router.route(prompt, set(EXPERTS), Limits(FALLBACK)).decision
        weights = dict(blended(decision, len(EXPERTS) + 1, set(EXPERTS), dict.fromkeys((*EXPERTS, FALLBACK), 'one')))
        return Text(prompt, ' '.join(row.completion for row in drawn), weights)

    return {'two domains': [text(*pair) for pair in itertools.permutations(EXPERTS, 2) for _ in range(PAIRS)],
            'one domain': [text(name) for name in EXPERTS for _ in range(SINGLES)]}


def likelihoods(engine: Engine, models: tuple[str, ...], text: Text) -> dict[str, NDArray[np.float64]]:
    """Log-likelihood [nats] of every token of the answer by every model, each with its own system prompt."""
    found = {}
    for name in models:
        system = CATALOGUE[name if name in EXPERTS else FALLBACK]['system_prompt']
        adapter = '' if name == FALLBACK else name
        found[name] = np.array(engine.score((('system', system), ('user', text.prompt)), [text.answer], adapter)[0])
    return found


def mixed(text: Text, alone: dict[str, NDArray[np.float64]], share: float) -> float:
    """Log-likelihood [nats] of an answer by the mixture."""
    posterior = Posterior(list(text.weights.values()), share)
    rows_of_tokens = np.stack([alone[name] for name in text.weights], axis=1)
    return math.fsum(posterior.observe(row) for row in rows_of_tokens)


def perplexity(logs: list[float], tokens: int) -> float:
    """Of texts with these log-likelihoods [nats] and as many tokens in all."""
    return math.exp(-sum(logs) / tokens)


def compare(kind: str, chosen: list[Text], engine: Engine, models: tuple[str, ...]
            ) -> tuple[list[Figure], dict[str, float]]:
    """Perplexity of one kind of texts by everyone, the mixture first."""
    scored = [likelihoods(engine, models, text) for text in chosen]
    tokens = sum(len(alone[FALLBACK]) for alone in scored)
    found = {name: perplexity([float(alone[name].sum()) for alone in scored], tokens) for name in models}
    best = min(EXPERTS, key=lambda name: found[name])
    after = perplexity([max(float(alone[name].sum()) for name in EXPERTS) for alone in scored], tokens)
    bayes = perplexity([mixed(*one, 0.0) for one in zip(chosen, scored, strict=True)], tokens)
    mixture = perplexity([mixed(*one, SHARE) for one in zip(chosen, scored, strict=True)], tokens)
    limit = min(found[best], found.get(DENSE, math.inf))
    figures = [
        Figure(f'{kind}: the mixture', mixture, 'ppl', f'< {limit:.3g}', mixture < limit),
        Figure("  by Bayes' rule alone", bayes, 'ppl'),
        Figure(f'  the best expert alone ({best})', found[best], 'ppl'),
        Figure('  for each text the expert that fits it best', after, 'ppl'),
        *([Figure(f'  {DENSE} in one adapter', found[DENSE], 'ppl')] if DENSE in found else []),
        Figure('  the bare base', found[FALLBACK], 'ppl'),
        Figure('  experts in a mixture', sum(len(text.weights) for text in chosen) / len(chosen), '')]
    return figures, {**found, 'mixture': mixture, 'bayes': bayes, 'tokens': tokens}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--no-dense', action='store_true', help='do not train one adapter on all domains')
    dense = not parser.parse_args().no_dense
    chosen = texts(fitted_router())
    engine = open_engine(served_base(), EngineSettings(threads=os.cpu_count() or 1))
    for name in EXPERTS:
        engine.load_adapter(name, DATA / CATALOGUE[name]['adapter'], 1.0)
    if dense:
        engine.load_adapter(DENSE, dense_adapter(sum(map(steps, EXPERTS)), reader=True), 1.0)
    models = (*EXPERTS, FALLBACK, *([DENSE] if dense else []))
    figures, detail = [], {}
    for kind, some in chosen.items():
        rows_of_kind, detail[kind] = compare(kind, some, engine, models)
        figures += rows_of_kind
    report('mixture', figures, {'share': SHARE, 'perplexity': detail})


if __name__ == '__main__':
    main()
