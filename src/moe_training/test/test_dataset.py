"""Datasets of every format and shape, good and bad."""

import json

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from moe_training import dataset_rows
from moe_training.dataset import Example, Problem, read_dataset, rows_of, split, validate
from moe_training.errors import DatasetError

WORD = st.text(st.characters(codec='utf-8', exclude_categories=('Cs',)), min_size=1).filter(str.strip)


def test_bad_rows_are_named_by_line_and_reason(tmp_path):
    path = tmp_path / 'rows.jsonl'
    path.write_text('{"prompt": "a", "completion": "b"}\nnot json\n\n'
                    '{"prompt": "a"}\n{"prompt": "", "completion": "b"}\n')
    dataset = read_dataset(path)
    assert [example.prompt for example in dataset.examples] == ['a']
    assert [problem.line for problem in dataset.problems] == [2, 4, 5]
    with pytest.raises(DatasetError, match='line 2'):
        dataset.require_valid()


@pytest.mark.parametrize(('line', 'reason'), [
    (b'[1]', 'a list, not an object'), (b'{"a": 1}', 'no key "prompt" (found: a)'),
    (b'{"prompt": NaN, "completion": "b"}', 'NaN is no JSON'),
    (b'{"prompt": "a", "completion": -Infinity}', '-Infinity is no JSON'),
    (b'{"prompt": "a", "completion": "\\ud800"}', 'surrogate'), (b'{"prompt": "\xff", "completion": "b"}', 'not UTF-8'),
    (b'{"prompt": 1.5, "completion": "b"}', 'number 1.5'), (b'{"text": " "}', '"text" is empty'),
    (b'{"prompt": "' + b'x' * 40_000 + b'", "completion": "b"}', 'too long'),
    (b'{"instruction": "a", "output": ""}', '"output" is empty'), (b'[' * 100_000, 'not JSON'),
    (b'{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}', 'order of roles'),
    (b'{"messages": [{"role": "user", "content": "a"}, 7]}', 'message 1 is no object')])
def test_every_reason(tmp_path, line, reason):
    path = tmp_path / 'rows.jsonl'
    path.write_bytes(b'{"text": "good"}\n' + line + b'\n')
    found = validate(path)
    assert (found.rows, found.bad_rows, found.problems[0].line) == (2, 1, 2)
    assert reason in found.problems[0].reason


def test_a_line_longer_than_memory_allows_is_skipped_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_rows, 'MAX_LINE_BYTES', 64)
    path = tmp_path / 'rows.jsonl'
    path.write_text('{"text": "one"}\n{"text": "' + 'x' * 500 + '"}\n{"text": "two"}')
    assert [row.completion if isinstance(row, Example) else row.reason for _line, row in rows_of(path)] == [
        'one', 'too long: more than 64 bytes', 'two']


def test_shapes_are_read_and_a_missing_file_is_named(tmp_path):
    path = tmp_path / 'rows.jsonl'
    path.write_text('{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
                    '{"instruction": "add", "input": "1 and 2", "output": "3"}\n'
                    '{"instruction": "greet", "input": "", "output": "hello"}\n{"text": "once upon a time"}\n')
    assert [(example.prompt, example.completion) for example in read_dataset(path).require_valid().examples] == [
        ('q', 'a'), ('add\n\n1 and 2', '3'), ('greet', 'hello'), ('', 'once upon a time')]
    with pytest.raises(DatasetError, match='absent'):
        read_dataset(tmp_path / 'absent.jsonl')


def test_csv_tsv_parquet_and_text_are_read(tmp_path):
    (tmp_path / 'a.csv').write_bytes(b'\xef\xbb\xbfprompt,completion\n"two\nlines",b\nonly one\nc,\xff\n"d",e\n')
    (tmp_path / 'a.tsv').write_text('prompt\tcompletion\na\tb\n')
    parquet.write_table(pyarrow.table({'prompt': ['a', None, 'c'], 'completion': ['b', 'x', 'd']}),
                        tmp_path / 'a.parquet')
    (tmp_path / 'a.txt').write_text('first\nparagraph\n\n\nsecond\n')
    found = list(rows_of(tmp_path / 'a.csv'))
    assert [line for line, _row in found] == [2, 4, 5, 6]
    assert [isinstance(row, Problem) for _line, row in found] == [False, True, True, False]
    assert found[0][1].prompt == 'two\nlines'
    assert [row.prompt for _line, row in rows_of(tmp_path / 'a.tsv')] == ['a']
    assert [line for line, row in rows_of(tmp_path / 'a.parquet') if isinstance(row, Problem)] == [2]
    assert [row.completion for _line, row in rows_of(tmp_path / 'a.txt')] == ['first\nparagraph', 'second']


@pytest.mark.parametrize('content', [b'\x80\x04\x95', b'PK\x03\x04'])
def test_pickles_and_archives_are_never_opened(tmp_path, content):
    (tmp_path / 'a.jsonl').write_bytes(content + b'rest')
    with pytest.raises(DatasetError, match='never opened'):
        validate(tmp_path / 'a.jsonl')


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORD, WORD), min_size=1, max_size=5))
def test_whatever_is_written_is_read_back_in_every_format(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp('formats')
    (folder / 'a.jsonl').write_text(''.join(json.dumps({'prompt': p, 'completion': c}) + '\n' for p, c in pairs))
    parquet.write_table(pyarrow.table({'prompt': [p for p, _c in pairs], 'completion': [c for _p, c in pairs]}),
                        folder / 'a.parquet')
    for name in ('a.jsonl', 'a.parquet'):
        examples = read_dataset(folder / name).require_valid().examples
        assert [(example.prompt, example.completion) for example in examples] == pairs


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=80) | st.sampled_from([b'{"prompt": "a", "completion": "b"}', b'{"text":', b'"']),
                max_size=6), st.sampled_from(['.jsonl', '.csv', '.tsv', '.txt']))
def test_no_bytes_break_a_reader(tmp_path_factory, lines, suffix):
    path = tmp_path_factory.mktemp('fuzz') / f'rows{suffix}'
    path.write_bytes(b'\n'.join(lines))
    try:
        found = validate(path)
    except DatasetError:
        return
    assert 0 <= found.bad_rows <= found.rows
    assert all(problem.line >= 1 and problem.reason for problem in found.problems)


def test_the_split_does_not_depend_on_the_order(tmp_path):
    path = tmp_path / 'rows.jsonl'
    path.write_text(''.join(f'{{"prompt": "p{n}", "completion": "c"}}\n' for n in range(40)))
    examples = read_dataset(path).examples
    train, held = split(examples, 0.1)
    again, held_again = split(examples[::-1], 0.1)
    assert {one.prompt for one in held} == {one.prompt for one in held_again}
    assert len(held) == 4
    assert len(train) == len(again) == 36
