"""Are the experts worth asking? Held-out phrasings, as the suite serves them.

    ./moe python benchmarks/experts_quality.py

Routing: share of held-out prompts that the fitted router gives to the right expert. Answers: share of held-out prompts
whose greedy answer is exactly the right one (JSON by value), and the overlap of words (F1 as in SQuAD, arXiv
1606.05250). Experts are compared with the bare base and with one adapter trained on all domains together ("dense"):
once with as many steps as the longest-trained expert had, once with as many as all experts had together. Dense
adapters are trained once, with the same settings, and kept in $MOE_HOME/benchmarks.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from measurement import Figure, report

from moe_experts.engines.engine import Engine, EngineSettings, Request, Result, Sampling
from moe_experts.engines.opening import open_engine
from moe_router.encoder import Encoder
from moe_router.policy import Limits
from moe_router.prepare_encoder import models_folder
from moe_router.router import Router
from moe_router.worker import fit_in_worker
from moe_training.adapter_file import write_adapter
from moe_training.chat import tokenize
from moe_training.dataset import read_dataset
from moe_training.fitting import fit
from moe_training.paths import moe_home, served_base
from moe_training.serving_score import same, word_f1
from moe_training.settings import Progress, Settings
from moe_training.trainable_base import prepare_trainable_base
from moe_training.trainable_model import load_model

DATA = Path(__file__).parents[1] / 'data'
CATALOGUE = {row['name']: row for row in yaml.safe_load((DATA / 'experts.yaml').read_text())['experts']}
FALLBACK = 'general'
EXPERTS = [name for name, row in CATALOGUE.items() if 'adapter' in row]
SAMPLES = 20
AHEAD = 10.0  # percentage points


@dataclass(frozen=True)
class Row:
    """A held-out prompt with its right answer."""

    prompt: str
    completion: str
    intent: str


def rows(name: str, part: str) -> list[Row]:
    """Read a part ("train", "heldout") of a domain's dataset."""
    lines = (DATA / name / f'{part}.jsonl').read_text(encoding='utf-8').splitlines()
    return [Row(row['prompt'], row.get('completion', ''), row.get('intent', '')) for row in map(json.loads, lines)]


def steps(name: str) -> int:
    """Optimiser steps that the expert's adapter was trained with."""
    settings = Settings(**CATALOGUE[name].get('training', {}))
    return round(settings.epochs * math.ceil(len(rows(name, 'train')) / settings.batch_size))


def dense_adapter(count: int) -> Path:
    """One adapter for all domains, trained for `count` steps; made once."""
    from transformers import AutoTokenizer

    path = moe_home() / 'benchmarks' / f'dense-{count}.gguf'
    if path.is_file():
        return path
    base = prepare_trainable_base()
    tokenizer = AutoTokenizer.from_pretrained(base)
    system = CATALOGUE[FALLBACK]['system_prompt']
    examples = [row for name in EXPERTS for row in read_dataset(DATA / name / 'train.jsonl').require_valid().examples]

    def tell(progress: Progress) -> None:
        if progress.step % 20 == 0:
            print(f'dense, {count} steps: step {progress.step}, loss {progress.loss:.3f}, '
                  f'{progress.eta_s:.0f} s to go', flush=True)

    settings = Settings(max_steps=count)
    model = fit(load_model(base, settings), tokenize(examples, tokenizer, system, settings.max_seq_len), settings, tell)
    return write_adapter(model, path, 'all domains')


def fitted_router() -> Router:
    """A router that has learned the training prompts of every domain."""
    router = Router(Encoder(models_folder()))
    samples = [(name, row.intent, row.prompt) for name in CATALOGUE for row in rows(name, 'train')]
    with tempfile.TemporaryDirectory() as folder:
        router.head = fit_in_worker(samples, '', Path(folder), Path(folder) / 'none', FALLBACK, 0.0,
                                    lambda _phase, _share: None, lambda: False).head
    return router


def routed() -> dict[str, float]:
    """Share of the held-out prompts of every domain that go to its expert."""
    router = fitted_router()
    return {name: sum(router.route(row.prompt, set(EXPERTS), Limits(FALLBACK)).decision.choice == name
                      for row in rows(name, 'heldout')) / len(rows(name, 'heldout')) for name in CATALOGUE}


def answers(engine: Engine, adapter: str, system: str, prompts: list[str], schema: str) -> list[str]:
    """Greedy answers, batched as the expert node batches them."""
    for index, prompt in enumerate(prompts):
        engine.submit(Request(
            id=str(index), messages=(('system', system), ('user', prompt)), adapter=adapter,
            sampling=Sampling(temp=0.0), max_tokens=96, json_schema=schema))
    found: dict[str, str] = {}
    while engine.busy():
        for item in engine.step():
            if isinstance(item, Result):
                found[item.id] = item.text
    return [found[str(index)] for index in range(len(prompts))]


def main() -> None:
    """Measure, print, write."""
    shares = routed()
    sizes = {name: len(rows(name, 'heldout')) for name in CATALOGUE}
    right = 100 * sum(shares[name] * sizes[name] for name in CATALOGUE) / sum(sizes.values())
    figures = [Figure('routed to the right expert', right, '%', '>= 95', right >= 95)]
    figures += [Figure(f'  {name}', 100 * share, '%') for name, share in shares.items()]

    longest, total = max(map(steps, EXPERTS)), sum(map(steps, EXPERTS))
    engine = open_engine(served_base(), EngineSettings(threads=os.cpu_count() or 1, queue_limit=10_000))
    for name in EXPERTS:
        engine.load_adapter(name, DATA / CATALOGUE[name]['adapter'], 1.0)
    contenders: dict[str, Any] = {'expert': None, 'base': ''}
    for key, count in (('dense', longest), ('dense, all steps', total)):
        engine.load_adapter(key, dense_adapter(count), 1.0)
        contenders[key] = key
    general = CATALOGUE[FALLBACK]['system_prompt']
    detail: dict[str, Any] = {}
    for name in EXPERTS:
        held = rows(name, 'heldout')
        schema = (DATA / CATALOGUE[name]['output_schema']).read_text() if 'output_schema' in CATALOGUE[name] else ''
        scores = {}
        for key, adapter in contenders.items():
            dense = adapter is not None and adapter != ''
            system = general if dense else CATALOGUE[name]['system_prompt']
            given = answers(engine, name if adapter is None else adapter, system, [row.prompt for row in held], schema)
            scores[key] = {
                'exact': 100 * sum(map(same, given, [row.completion for row in held])) / len(held),
                'f1': 100 * sum(map(word_f1, given, [row.completion for row in held])) / len(held),
                'answers': given}
            if key == 'expert' and schema:
                valid = 100 * sum(is_valid(text, json.loads(schema)) for text in given) / len(held)
                figures.append(Figure(f'{name}: valid by schema', valid, '%', '>= 100', valid >= 100))
        detail[name] = scores
        best = scores['expert']['exact']
        figures.append(Figure(f'{name}: exact answers', best, '%', '>= 95' if schema else '',
                              best >= 95 if schema else None))
        figures += [Figure(f'  {key} (exact; F1 {score["f1"]:.0f} against {scores["expert"]["f1"]:.0f})',
                           score['exact'], '%') for key, score in scores.items() if key != 'expert']
    for key, note in (('base', ''), ('dense', f', {longest} steps'), ('dense, all steps', f', {total} steps')):
        ahead = sum(detail[name]['expert']['exact'] - detail[name][key]['exact'] for name in EXPERTS) / len(EXPERTS)
        counts = key != 'dense, all steps'
        figures.append(Figure(f'experts ahead of {key}{note}', ahead, 'points', f'>= {AHEAD:g}' if counts else '',
                              ahead >= AHEAD if counts else None))
    show_samples(detail)
    report('experts_quality', figures, {'steps': {name: steps(name) for name in EXPERTS}, 'answers': detail})


def is_valid(text: str, schema: dict[str, Any]) -> bool:
    """Whether a text is JSON that matches a schema."""
    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def show_samples(detail: dict[str, Any]) -> None:
    """Print answers to read, as many of every expert."""
    for name in EXPERTS:
        held = rows(name, 'heldout')
        each = SAMPLES // len(EXPERTS)
        for index in range(0, len(held), max(1, len(held) // each)):
            if each == 0:
                break
            each -= 1
            print(f'[{name}] {held[index].prompt}\n  expert: {detail[name]["expert"]["answers"][index]}\n'
                  f'  right:  {held[index].completion}\n  dense:  {detail[name]["dense"]["answers"][index]}')


if __name__ == '__main__':
    main()
