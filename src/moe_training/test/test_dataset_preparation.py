"""Preparation of datasets."""

import json
import random

import pytest

from moe_training.command import ask
from moe_training.dataset import read_dataset
from moe_training.dataset_preparation import prepare
from moe_training.errors import DatasetError


def test_rows_are_cleaned_deduplicated_and_split_by_hash(tmp_path):
    rows = [{'prompt': f'question {n}', 'completion': f'answer\r\n{n}\x00 '} for n in range(200)]
    random.Random(3).shuffle(rows)
    folder = tmp_path / 'in'
    folder.mkdir()
    (folder / 'a.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in [*rows[:150], rows[0]]) + 'bad\n')
    (folder / 'b.csv').write_text('instruction,output\nadd,3\n')
    first = prepare('rust', [folder], tmp_path / 'one', 0.2)
    assert (first.dropped, first.reasons) == (2, {'duplicate': 1, 'bad': 1})
    assert first.problems[0]['line'] == 152
    held = {example.prompt for example in read_dataset(tmp_path / 'one' / 'heldout.jsonl').require_valid().examples}
    assert 15 <= len(held) <= 45
    assert first.rows + first.heldout_rows == 151
    assert read_dataset(tmp_path / 'one' / 'train.jsonl').require_valid().digest == first.digest
    assert '\\r' not in (tmp_path / 'one' / 'train.jsonl').read_text()
    # more rows, in another order: the old ones stay on their side
    (folder / 'a.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in reversed(rows)))
    prepare('rust', [folder], tmp_path / 'two', 0.2)
    again = {example.prompt for example in read_dataset(tmp_path / 'two' / 'heldout.jsonl').examples}
    assert held <= again
    assert not again & {example.prompt for example in read_dataset(tmp_path / 'one' / 'train.jsonl').examples}


def test_what_cannot_be_prepared_is_named(tmp_path):
    (tmp_path / 'bad.jsonl').write_text('{"prompt": "a"}\n')
    with pytest.raises(DatasetError, match='No usable row'):
        prepare('rust', [tmp_path / 'bad.jsonl'], tmp_path / 'out')
    assert not list((tmp_path / 'out').glob('*.jsonl'))
    with pytest.raises(DatasetError, match='does not exist'):
        prepare('rust', [tmp_path / 'absent'])
    with pytest.raises(DatasetError, match='no name of a folder'):
        prepare('../up', [tmp_path])
    with pytest.raises(DatasetError, match='does not exist'):
        ask('prepare', domain='rust', paths=[str(tmp_path / 'absent')], output='', holdout=0.1)


def test_a_command_in_its_own_process(tmp_path):
    (tmp_path / 'rows.jsonl').write_text('{"text": "one"}\nbad\n')
    assert ask('validate', path=str(tmp_path / 'rows.jsonl'))['problems'] == [
        {'line': 2, 'reason': 'not JSON (Expecting value at column 1)'}]
    assert ask('analyse', path=str(tmp_path / 'rows.jsonl'), compared_with='', plot='')['rows'] == 2
