"""The datasets and adapters in data/ are what the manifest and the README say."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

DATA = Path(__file__).parents[1] / 'data'
CATALOGUE = {row['name']: row for row in yaml.safe_load((DATA / 'experts.yaml').read_text())['experts']}
TRAINED = [name for name, row in CATALOGUE.items() if 'adapter' in row]
READERS = [name for name, row in CATALOGUE.items() if 'notes' in row]
MANIFEST = json.loads((DATA / 'adapters' / 'manifest.json').read_text())


def rows(name, part):
    return [json.loads(line) for line in (DATA / name / f'{part}.jsonl').read_text().splitlines()]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def shape(prompt):
    """A prompt without its numbers: what a template would leave equal."""
    return re.sub(r'\d+', '0', prompt.lower()).strip(' .!?')


@pytest.mark.parametrize('name', TRAINED)
def test_every_domain_has_enough_pairs_and_a_held_out_part_of_other_wordings(name):
    train, heldout = rows(name, 'train'), rows(name, 'heldout')
    assert len(train) >= 400
    assert not {shape(row['prompt']) for row in train} & {shape(row['prompt']) for row in heldout}
    assert {row['fact'] for row in heldout} <= {row['fact'] for row in train}
    assert all(row['completion'].strip() and row['intent'] for row in train + heldout)


@pytest.mark.parametrize('name', [name for name in READERS if 'wordings' in CATALOGUE[name]])
def test_more_wordings_ask_for_every_fact_in_words_of_no_other_part(name):
    train, wordings = rows(name, 'train'), rows(name, 'wordings')
    others = [row for part in ('train', 'facts', 'heldout', 'unseen') for row in rows(name, part)]
    assert {(row['fact'], row['completion']) for row in wordings} == {(row['fact'], row['completion']) for row in train}
    assert not {shape(row['prompt']) for row in others} & {shape(row['prompt']) for row in wordings}


def test_what_belongs_to_nobody_is_shown_in_other_words_than_it_is_asked_for():
    shown, asked = ({shape(row['prompt']) for part in parts for row in rows('general', part)}
                    for parts in (('train', 'wordings'), ('heldout',)))
    assert len(shown) >= 900
    assert not shown & asked
    assert all(row['intent'] for row in rows('general', 'wordings'))


@pytest.mark.parametrize('name', READERS)
def test_further_facts_are_others_than_the_trained_ones(name):
    train, facts = rows(name, 'train'), rows(name, 'facts')
    for key in ('fact', 'completion'):
        assert not {row[key] for row in train} & {row[key] for row in facts}
    assert len({row['fact'] for row in facts}) >= 60
    assert all(row['intent'] and len(row['completion']) <= 110 for row in facts)


@pytest.mark.parametrize('name', READERS)
def test_unseen_wordings_ask_for_every_fact_in_words_of_no_other_part(name):
    known = [row for part in ('train', 'facts') for row in rows(name, part)]
    others = [row for part in ('train', 'wordings', 'facts', 'heldout') for row in rows(name, part)]
    unseen = rows(name, 'unseen')
    assert {row['fact'] for row in unseen} == {row['fact'] for row in known}
    assert not {shape(row['prompt']) for row in others} & {shape(row['prompt']) for row in unseen}


@pytest.mark.parametrize('name', READERS)
def test_a_fact_has_one_answer(name):
    answers = {}
    for row in [row for part in ('train', 'wordings', 'facts', 'heldout', 'unseen') for row in rows(name, part)]:
        answers.setdefault(row['fact'], set()).add(row['completion'])
    assert not {fact: found for fact, found in answers.items() if len(found) > 1}


def test_motion_answers_match_the_schema():
    schema = json.loads((DATA / 'motion' / 'schema.json').read_text())
    for row in rows('motion', 'train') + rows('motion', 'heldout'):
        jsonschema.validate(json.loads(row['completion']), schema)


@pytest.mark.parametrize('name', TRAINED)
def test_adapters_are_small_and_as_the_manifest_says(name):
    entry, path = MANIFEST['adapters'][name], DATA / CATALOGUE[name]['adapter']
    assert path.stat().st_size == entry['size_bytes'] <= 5_000_000
    assert sha256(path) == entry['sha256']
    assert sha256(DATA / CATALOGUE[name]['samples']) == entry['dataset_sha256']
    assert entry['metrics']['heldout_exact'] > 0 and entry['settings']['seed'] == 42


def test_the_routers_samples_are_as_the_manifest_says():
    for name, row in CATALOGUE.items():
        assert sha256(DATA / row['samples']) == MANIFEST['router']['samples_sha256'][name]
    assert MANIFEST['router']['metrics']['heldout_accuracy'] >= 0.95
