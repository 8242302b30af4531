"""Are the experts worth asking? Held-out phrasings, as the suite serves them.

    ./moe exec python benchmarks/experts_quality.py [--no-dense]

Routing: share of held-out prompts that the fitted router gives to the right expert. Answers: share of held-out prompts
whose greedy answer is exactly the right one (JSON by value), and the overlap of words (F1 as in SQuAD, arXiv
1606.05250). Experts that carry notes are asked as the router asks them, and once more without. An answer is doubtful
where several notes were about as near; "none" counts the answers that say that no note fits. New facts are questions
and notes of another domain, which the expert never saw in training.

Experts without notes are compared with the bare base and with one adapter trained on all domains together ("dense"):
once with as many steps as the longest-trained expert had, once with as many as all experts had together. Dense
adapters are trained once, with the same settings, and kept in $MOE_HOME/benchmarks; --no-dense leaves them out.
"""

from __future__ import annotations

import argparse
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
from moe_router.notes import Note, NoteIndex, block, read_of
from moe_router.policy import Limits
from moe_router.prepare_encoder import models_folder
from moe_router.router import Router
from moe_router.worker import fit_in_worker
from moe_training.adapter_file import write_adapter
from moe_training.chat import tokenize
from moe_training.dataset import read_dataset
from moe_training.fitting import fit
from moe_training.notes import DRAWS, NONE_FITS, facts_of
from moe_training.paths import moe_home, served_base
from moe_training.serving_score import same, word_f1
from moe_training.settings import Progress, Settings
from moe_training.trainable_base import prepare_trainable_base
from moe_training.trainable_model import load_model

DATA = Path(__file__).parents[1] / 'data'
CATALOGUE = {row['name']: row for row in yaml.safe_load((DATA / 'experts.yaml').read_text())['experts']}
FALLBACK = 'general'
EXPERTS = [name for name, row in CATALOGUE.items() if 'adapter' in row]
READERS = [name for name, row in CATALOGUE.items() if 'notes' in row]
SAMPLES = 20
AHEAD = 10.0  # percentage points
NEW_FACTS = 60  # prompts
MOST, BUDGET, MARGIN = 3, 1200, 0.1  # the router's notes_most, notes_bytes and notes_margin


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
    count = len(rows(name, 'train')) * (DRAWS if settings.notes else 1)
    return round(settings.epochs * math.ceil(count / settings.batch_size))


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


class Notes:
    """The notes of the built-in experts, found as the router finds them."""

    def __init__(self) -> None:
        self._encoder = Encoder(models_folder())
        self._index = NoteIndex(self._encoder.encode)
        for name in READERS:
            facts = facts_of(read_dataset(DATA / CATALOGUE[name]['notes']).examples)
            self._index.replace(name, [Note(number, name, '', fact.text, questions=fact.questions)
                                       for number, fact in enumerate(facts, 1)])

    def before(self, name: str, prompts: list[str]) -> tuple[list[str], list[bool]]:
        """Prompts behind the expert's notes, and whether several of them were about as near."""
        found = [self._index.find(name, vector, MOST, BUDGET, MARGIN) for vector in self._encoder.encode(prompts)]
        return ([f'{block(read_of(notes))}\n\n{prompt}' if notes else prompt
                 for notes, prompt in zip(found, prompts, strict=True)], [len(notes) > 1 for notes in found])


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


def percent(hits: list[bool]) -> float:
    """Share of what is true [%]."""
    return 100 * sum(hits) / len(hits)


def reading(engine: Engine, notes: Notes) -> tuple[list[Figure], dict[str, Any]]:
    """The experts as they are served, with their notes; and the base and other domains' experts with the same ones."""
    figures, detail, total = [], {}, {'right': [], 'wrong': []}
    for name in READERS:
        held, system = rows(name, 'heldout'), CATALOGUE[name]['system_prompt']
        prompts, doubtful = notes.before(name, [row.prompt for row in held])
        given = answers(engine, name, system, prompts, '')
        right = list(map(same, given, [row.completion for row in held]))
        none = [text == NONE_FITS for text in given]
        wrong = [not (hit or nothing or doubt) for hit, nothing, doubt in zip(right, none, doubtful, strict=True)]
        base = list(map(same, answers(engine, '', system, prompts, ''), [row.completion for row in held]))
        reader = READERS[(READERS.index(name) + 1) % len(READERS)]
        new = list(map(same, answers(engine, reader, CATALOGUE[reader]['system_prompt'], prompts[:NEW_FACTS], ''),
                       [row.completion for row in held[:NEW_FACTS]]))
        figures += [Figure(f'{name} with notes: right', percent(right), '%'),
                    Figure('  wrong and not doubtful', percent(wrong), '%'),
                    Figure('  doubtful', percent(doubtful), '%'), Figure('  none', percent(none), '%'),
                    Figure('  the bare base with the same notes: right', percent(base), '%'),
                    Figure(f'  {reader}, to which these facts are new, with the same notes: right', percent(new), '%')]
        total['right'] += right
        total['wrong'] += wrong
        detail[name] = {'answers': given, 'doubtful': doubtful}
    right, wrong = percent(total['right']), percent(total['wrong'])
    return [*figures, Figure('all with notes: right', right, '%', '>= 85', right >= 85),
            Figure('  wrong and not doubtful', wrong, '%', '<= 5', wrong <= 5)], detail


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('--no-dense', action='store_true', help='leave the adapters of all domains out')
    options = parser.parse_args()
    shares = routed()
    sizes = {name: len(rows(name, 'heldout')) for name in CATALOGUE}
    right = 100 * sum(shares[name] * sizes[name] for name in CATALOGUE) / sum(sizes.values())
    figures = [Figure('routed to the right expert', right, '%', '>= 95', right >= 95)]
    figures += [Figure(f'  {name}', 100 * share, '%') for name, share in shares.items()]

    engine = open_engine(served_base(), EngineSettings(threads=os.cpu_count() or 1, queue_limit=10_000))
    for name in EXPERTS:
        engine.load_adapter(name, DATA / CATALOGUE[name]['adapter'], 1.0)
    read, detail = reading(engine, Notes())
    figures += read

    longest, total = max(map(steps, EXPERTS)), sum(map(steps, EXPERTS))
    contenders: dict[str, Any] = {'expert': None, 'base': ''}
    for key, count in () if options.no_dense else (('dense', longest), ('dense, all steps', total)):
        engine.load_adapter(key, dense_adapter(count), 1.0)
        contenders[key] = key
    alone: dict[str, Any] = {}
    for name in EXPERTS:
        alone[name] = without_notes(engine, name, contenders)
        figures += own_figures(name, alone[name])
    for key, note in (('base', ''), ('dense', f', {longest} steps'), ('dense, all steps', f', {total} steps')):
        if key in contenders:
            ahead = sum(alone[name]['expert']['exact'] - alone[name][key]['exact'] for name in EXPERTS) / len(EXPERTS)
            counts = key != 'dense, all steps'
            figures.append(Figure(f'without notes, experts ahead of {key}{note}', ahead, 'points',
                                  f'>= {AHEAD:g}' if counts else '', ahead >= AHEAD if counts else None))
    show_samples({name: detail.get(name) or alone[name]['expert'] for name in EXPERTS})
    report('experts_quality', figures, {'steps': {name: steps(name) for name in EXPERTS}, 'with notes': detail,
                                        'without notes': alone})


def without_notes(engine: Engine, name: str, contenders: dict[str, Any]) -> dict[str, Any]:
    """Scores and answers of every contender on an expert's held-out prompts as they stand."""
    held, row = rows(name, 'heldout'), CATALOGUE[name]
    schema = (DATA / row['output_schema']).read_text() if 'output_schema' in row else ''
    right, scores = [each.completion for each in held], {}
    for key, adapter in contenders.items():
        system = CATALOGUE[FALLBACK]['system_prompt'] if adapter else row['system_prompt']
        given = answers(engine, name if adapter is None else adapter, system, [each.prompt for each in held], schema)
        scores[key] = {'exact': percent(list(map(same, given, right))),
                       'f1': 100 * sum(map(word_f1, given, right)) / len(held), 'answers': given}
        if schema:
            scores[key]['valid'] = percent([is_valid(text, json.loads(schema)) for text in given])
    return scores


def own_figures(name: str, scores: dict[str, Any]) -> list[Figure]:
    """An expert's figures without notes, beside those of the other contenders."""
    own, figures = scores['expert'], []
    if 'valid' in own:
        figures.append(Figure(f'{name}: valid by schema', own['valid'], '%', '>= 100', own['valid'] >= 100))
    figures.append(Figure(f'{name}{" without notes" if name in READERS else ""}: exact answers', own['exact'], '%',
                          '>= 95' if 'valid' in own else '', own['exact'] >= 95 if 'valid' in own else None))
    return figures + [Figure(f'  {key} (exact; F1 {score["f1"]:.0f} against {own["f1"]:.0f})', score['exact'], '%')
                      for key, score in scores.items() if key != 'expert']


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
        held, each = rows(name, 'heldout'), SAMPLES // len(EXPERTS)
        for index in range(0, len(held), max(1, len(held) // each))[:each]:
            print(f'[{name}] {held[index].prompt}\n  expert: {detail[name]["answers"][index]}\n'
                  f'  right:  {held[index].completion}')


if __name__ == '__main__':
    main()
