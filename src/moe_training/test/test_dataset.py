"""Readers of datasets."""

import pytest

from moe_training.dataset import read_dataset, split
from moe_training.errors import DatasetError


def test_bad_rows_are_named_by_line_and_reason(tmp_path):
    path = tmp_path / 'rows.jsonl'
    path.write_text('{"prompt": "a", "completion": "b"}\nnot json\n\n'
                    '{"prompt": "a"}\n{"prompt": "", "completion": "b"}\n')
    dataset = read_dataset(path)
    assert [example.prompt for example in dataset.examples] == ['a']
    assert [problem.line for problem in dataset.problems] == [2, 4, 5]
    with pytest.raises(DatasetError, match='line 2'):
        dataset.require_valid()


def test_messages_are_read_and_a_missing_file_is_named(tmp_path):
    path = tmp_path / 'rows.jsonl'
    path.write_text('{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n')
    assert read_dataset(path).require_valid().examples[0].completion == 'a'
    with pytest.raises(DatasetError, match='absent'):
        read_dataset(tmp_path / 'absent.jsonl')


def test_the_split_does_not_depend_on_the_order(tmp_path):
    path = tmp_path / 'rows.jsonl'
    path.write_text(''.join(f'{{"prompt": "p{n}", "completion": "c"}}\n' for n in range(40)))
    examples = read_dataset(path).examples
    train, held = split(examples, 0.1)
    again, held_again = split(examples[::-1], 0.1)
    assert {one.prompt for one in held} == {one.prompt for one in held_again}
    assert len(held) == 4
    assert len(train) == len(again) == 36
