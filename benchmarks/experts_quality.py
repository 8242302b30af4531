"""Are the experts worth asking? Held-out phrasings, as the suite serves them.

    ./moe exec python benchmarks/experts_quality.py [--dense none|one|all]

Routing: share of held-out prompts that the fitted router gives to the right expert. Answers: share of held-out prompts
whose greedy answer is exactly the right one (JSON by value), and the overlap of words (F1 as in SQuAD, arXiv
1606.05250). Experts that carry notes are asked as the router asks them, and once more without. An answer is doubtful
where several notes were about as near; "none" counts the answers that say that no note fits; a note that is near enough
is said word for word. New facts are questions and notes of another domain, which the expert never saw in training.
"Unseen" prompts were written after everything that the held-out ones had helped to choose (data/README.md).

The experts are compared with the bare base and with one adapter for all domains together ("dense"), both as served
(the same notes in front) and by heart. Dense adapters come in two kinds: "by heart", trained on the rows alone, and
"reader", trained on every row as its own expert was, with notes. "Reader" is trained twice: with as many steps as the
longest-trained expert had ("one"), and with as many as all experts had together ("all"). They are made once, with the
same settings, and kept in $MOE_HOME/benchmarks.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from measurement import Figure, report

from moe_experts.engines.engine import Engine, EngineSettings, Request, Result, Sampling
from moe_experts.engines.opening import open_engine
from moe_router.encoder import Encoder
from moe_router.notes import Note, NoteIndex, block, read_of, word_for_word
from moe_router.policy import Limits
from moe_router.prepare_encoder import models_folder
from moe_router.router import Router
from moe_router.worker import fit_in_worker
from moe_training.adapter_file import write_adapter
from moe_training.chat import tokenize
from moe_training.dataset import Example, read_dataset
from moe_training.fitting import fit
from moe_training.notes import DRAWS, NONE_FITS, NotedExamples, facts_of
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
MOST, BUDGET, MARGIN, SURE = 3, 1200, 0.1, 0.65  # the router's notes_most, notes_bytes, notes_margin and notes_sure


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


def asked(name: str) -> list[Row]:
    """All wordings that the router learns and by which notes are found."""
    return [row for part in ('train', 'wordings', 'facts') if part == 'train' or part in CATALOGUE[name]
            for row in rows(name, part)]


def steps(name: str) -> int:
    """Optimiser steps that the expert's adapter was trained with."""
    settings = Settings(**CATALOGUE[name].get('training', {}))
    count = len(rows(name, 'train')) * (DRAWS if settings.notes else 1)
    return round(settings.epochs * math.ceil(count / settings.batch_size))


def training_rows(name: str, reader: bool) -> list[Example]:
    """A domain's rows; for a reader as its expert is trained on them."""
    found = read_dataset(DATA / name / 'train.jsonl').require_valid().examples
    settings = Settings(**CATALOGUE[name].get('training', {}))
    return NotedExamples(found, settings.notes, settings.seed).drawn(found) if reader and settings.notes else found


def dense_adapter(count: int, reader: bool) -> Path:
    """One adapter for all domains, trained for `count` steps; made once."""
    from transformers import AutoTokenizer

    kind = 'reader' if reader else 'by-heart'
    path = moe_home() / 'benchmarks' / f'dense-{kind}-{count}.gguf'
    if path.is_file():
        return path
    base = prepare_trainable_base()
    tokenizer = AutoTokenizer.from_pretrained(base)
    system = CATALOGUE[FALLBACK]['system_prompt']
    examples = [row for name in EXPERTS for row in training_rows(name, reader)]

    def tell(progress: Progress) -> None:
        if progress.step % 20 == 0:
            print(f'dense {kind}, {count} steps: step {progress.step}, loss {progress.loss:.3f}, '
                  f'{progress.eta_s:.0f} s to go', flush=True)

    settings = Settings(max_steps=count)
    model = fit(load_model(base, settings), tokenize(examples, tokenizer, system, settings.max_seq_len), settings, tell)
    return write_adapter(model, path, 'all domains')


def fitted_router() -> Router:
    """A router that has learned the training prompts of every domain."""
    router = Router(Encoder(models_folder()))
    samples = [(name, row.intent, row.prompt) for name in CATALOGUE for row in asked(name)]
    with tempfile.TemporaryDirectory() as folder:
        router.head = fit_in_worker(samples, '', Path(folder), Path(folder) / 'none', FALLBACK, 0.0,
                                    lambda _phase, _share: None, lambda: False).head
    return router


def routed(router: Router, name: str, part: str) -> list[bool]:
    """Which prompts of a domain's part go to its expert."""
    return [router.route(row.prompt, set(EXPERTS), Limits(FALLBACK)).decision.choice == name
            for row in rows(name, part)]


class Notes:
    """The notes of the built-in experts, found as the router finds them."""

    def __init__(self) -> None:
        self._encoder = Encoder(models_folder())
        self._index = NoteIndex(self._encoder.encode)
        for name in READERS:
            facts = facts_of([Example((('user', row.prompt),), row.completion) for row in asked(name)])
            self._index.replace(name, [Note(number, name, '', fact.text, questions=fact.questions)
                                       for number, fact in enumerate(facts, 1)])

    def before(self, name: str, prompts: list[str]) -> tuple[list[str], list[str], list[bool]]:
        """Prompts behind the expert's notes, the grammar of each answer, and whether several were about as near."""
        found = [self._index.find(name, vector, MOST, BUDGET, MARGIN) for vector in self._encoder.encode(prompts)]
        return ([f'{block(read_of(notes))}\n\n{prompt}' if notes else prompt
                 for notes, prompt in zip(found, prompts, strict=True)],
                [word_for_word(notes[0]) if notes and notes[0].score >= SURE else '' for notes in found],
                [len(notes) > 1 for notes in found])


def answers(engine: Engine, adapter: str, system: str, prompts: list[str], schema: str = '',
            grammars: Iterable[str] = ()) -> list[str]:
    """Greedy answers, batched as the expert node batches them."""
    for index, (prompt, grammar) in enumerate(zip_longest(prompts, grammars, fillvalue='')):
        engine.submit(Request(
            id=str(index), messages=(('system', system), ('user', prompt)), adapter=adapter,
            sampling=Sampling(temp=0.0), max_tokens=96, json_schema=schema, grammar=grammar))
    found: dict[str, str] = {}
    while engine.busy():
        for item in engine.step():
            if isinstance(item, Result):
                found[item.id] = item.text
    return [found[str(index)] for index in range(len(prompts))]


def percent(hits: list[bool]) -> float:
    """Share of what is true [%]."""
    return 100 * sum(hits) / len(hits)


class Served:
    """Experts as they are served, with their notes, on one part; and what others make of the same notes."""

    def __init__(self, engine: Engine, notes: Notes, part: str, others: list[str]) -> None:
        self.detail: dict[str, Any] = {}
        self.right: dict[str, dict[str, float]] = {}  # share by domain and by who answered [%]
        self.figures: list[Figure] = []
        total: dict[str, list[bool]] = {'right': [], 'wrong': []}
        for name in READERS:
            held, row = rows(name, part), CATALOGUE[name]
            prompts, grammars, doubtful = notes.before(name, [each.prompt for each in held])
            completions = [each.completion for each in held]
            given = answers(engine, name, row['system_prompt'], prompts, grammars=grammars)
            right = list(map(same, given, completions))
            none = [text == NONE_FITS for text in given]
            wrong = [not (hit or nothing or doubt) for hit, nothing, doubt in zip(right, none, doubtful, strict=True)]
            self.right[name] = {'expert': percent(right)}
            self.figures += [Figure(f'{name}, {part}, with notes: right', percent(right), '%'),
                             Figure('  wrong and not doubtful', percent(wrong), '%'),
                             Figure('  doubtful', percent(doubtful), '%'), Figure('  none', percent(none), '%'),
                             Figure('  said word for word', percent(list(map(bool, grammars))), '%')]
            trained = {each.completion for each in rows(name, 'train')}
            for label, known in (('facts it was trained on', True), ('facts that are notes alone', False)):
                hits = [hit for hit, text in zip(right, completions, strict=True) if (text in trained) == known]
                if hits:
                    self.figures.append(Figure(f'  {label}: right', percent(hits), '%'))
            for key in others:
                own = CATALOGUE[FALLBACK] if key else row
                said = answers(engine, key, own['system_prompt'], prompts, grammars=grammars)
                share = percent(list(map(same, said, completions)))
                self.right[name][key or 'base'] = share
                self.figures.append(Figure(f'  {key or "the bare base"} with the same notes: right', share, '%'))
            total['right'] += right
            total['wrong'] += wrong
            self.detail[name] = {'answers': given, 'doubtful': doubtful}
        all_right, all_wrong = percent(total['right']), percent(total['wrong'])
        self.figures += [Figure(f'all, {part}, with notes: right', all_right, '%', '>= 85', all_right >= 85),
                         Figure('  wrong and not doubtful', all_wrong, '%', '<= 5', all_wrong <= 5)]


def new_facts(engine: Engine, notes: Notes) -> list[Figure]:
    """Facts of another domain, which an expert never saw, read from notes."""
    figures = []
    for name, reader in zip(READERS, READERS[1:] + READERS[:1], strict=True):
        held = rows(name, 'heldout')[:NEW_FACTS]
        prompts, grammars, _doubtful = notes.before(name, [row.prompt for row in held])
        given = answers(engine, reader, CATALOGUE[reader]['system_prompt'], prompts, grammars=grammars)
        share = percent(list(map(same, given, [row.completion for row in held])))
        figures.append(Figure(f'facts of {name}, new to {reader}, with notes: right', share, '%'))
    return figures


def ahead(label: str, shares: dict[str, dict[str, float]], other: str, counts: bool) -> Figure:
    """Points that the experts are ahead of another contender, mean over the domains."""
    points = sum(share['expert'] - share[other] for share in shares.values()) / len(shares)
    return Figure(f'{label}, experts ahead of {other}', points, 'points', f'>= {AHEAD:g}' if counts else '',
                  points >= AHEAD if counts else None)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        '--dense', choices=('none', 'one', 'all'), default='all',
        help='adapters for all domains: none, with the steps of one expert (half an hour on two cores), or also with '
             'those of all (an hour more)')
    options = parser.parse_args()
    router, figures = fitted_router(), []
    for part, names in (('heldout', list(CATALOGUE)), ('unseen', READERS)):
        hits = {name: routed(router, name, part) for name in names}
        right = percent([hit for each in hits.values() for hit in each])
        figures.append(Figure(f'{part}: routed to the right expert', right, '%', '>= 95', right >= 95))
        figures += [Figure(f'  {name}', percent(each), '%') for name, each in hits.items()]

    engine = open_engine(served_base(), EngineSettings(threads=os.cpu_count() or 1, queue_limit=10_000))
    for name in EXPERTS:
        engine.load_adapter(name, DATA / CATALOGUE[name]['adapter'], 1.0)
    longest, total = max(map(steps, EXPERTS)), sum(map(steps, EXPERTS))
    by_heart, reader, reader_all = (f'dense by heart, {longest} steps', f'dense reader, {longest} steps',
                                    f'dense reader, {total} steps')
    kinds = ((by_heart, longest, False), (reader, longest, True), (reader_all, total, True))
    dense = {key: (count, reads) for key, count, reads in kinds[:{'none': 0, 'one': 2, 'all': 3}[options.dense]]}
    for key, which in dense.items():
        engine.load_adapter(key, dense_adapter(*which), 1.0)

    notes = Notes()
    readers = [key for key in dense if key != by_heart]
    served = {'heldout': Served(engine, notes, 'heldout', ['', *readers]),
              'unseen': Served(engine, notes, 'unseen', readers)}
    figures += [figure for each in served.values() for figure in each.figures] + new_facts(engine, notes)
    alone = {name: without_notes(engine, name, dense) for name in EXPERTS}
    for name, scores in alone.items():
        figures += own_figures(name, scores)
    heart = {name: {key: score['exact'] for key, score in scores.items()} for name, scores in alone.items()}
    together = {name: served['heldout'].right.get(name, heart[name]) for name in EXPERTS}
    figures += [ahead('by heart', heart, key, key in ('base', by_heart)) for key in ('base', *dense)]
    figures += [ahead('as served', together, key, key != reader_all) for key in ('base', *readers)]
    show_samples({name: served['heldout'].detail.get(name) or alone[name]['expert'] for name in EXPERTS})
    report('experts_quality', figures, {'steps': {name: steps(name) for name in EXPERTS},
                                        'with notes': {part: each.detail for part, each in served.items()},
                                        'without notes': alone})


def without_notes(engine: Engine, name: str, dense: Iterable[str]) -> dict[str, Any]:
    """Scores and answers of every contender on an expert's held-out prompts as they stand."""
    held, row = rows(name, 'heldout'), CATALOGUE[name]
    schema = (DATA / row['output_schema']).read_text() if 'output_schema' in row else ''
    right, scores = [each.completion for each in held], {}
    for key, adapter in {'expert': name, 'base': '', **{key: key for key in dense}}.items():
        system = row['system_prompt'] if key in ('expert', 'base') else CATALOGUE[FALLBACK]['system_prompt']
        given = answers(engine, adapter, system, [each.prompt for each in held], schema)
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
