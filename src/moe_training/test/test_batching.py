"""The rows of every step, and sequences of several rows."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from moe_training.batching import StepRows, batches, collate, microbatches, packed
from moe_training.chat import TokenRow, tokenize
from moe_training.dataset import Example
from moe_training.settings import Settings

ROWS = [TokenRow([1] * length, [2]) for length in range(1, 40)]


def test_every_row_is_seen_once_an_epoch_and_the_seed_decides_the_order():
    epoch = batches(ROWS, 8, random.Random(1))
    assert sorted(len(row) for batch in epoch for row in batch) == sorted(map(len, ROWS))
    assert max(map(len, epoch)) == 8
    assert epoch == batches(ROWS, 8, random.Random(1))
    assert epoch != batches(ROWS, 8, random.Random(2))


def test_a_step_has_the_same_rows_whenever_it_is_asked_for():
    steps = StepRows(ROWS, 8, 3)
    forward = [steps[step] for step in range(12)]
    assert [StepRows(ROWS, 8, 3)[step] for step in reversed(range(12))] == forward[::-1]
    assert forward[:steps.per_epoch] != forward[steps.per_epoch:2 * steps.per_epoch]


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_packing_loses_no_row_and_overfills_no_sequence(lengths):
    rows = [TokenRow([index] * length, [0]) for index, length in enumerate(lengths)]
    sequences = packed(rows, 31)
    assert max(sum(map(len, sequence)) for sequence in sequences) <= 31
    assert sorted(row.prompt[0] for sequence in sequences for row in sequence) == list(range(len(rows)))


def test_packed_rows_do_not_see_each_other():
    batch = collate([[TokenRow([5, 6], [7]), TokenRow([8], [9, 9])]])
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9, 9]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 2]]
    assert batch.mask[0, 0].int().tolist()[3] == [0, 0, 0, 1, 0, 0]
    assert (batch.columns.tolist(), batch.targets.tolist()) == ([1, 3, 4], [7, 9, 9])
    assert [len(part) for part in microbatches(ROWS[:10], Settings(batch_size=4))] == [4, 4, 2]


def test_a_text_is_cut_into_pieces_that_predict_every_token_but_the_first():
    class Letters:
        eos_token_id = 0

        def __call__(self, text, add_special_tokens):
            return {'input_ids': [ord(letter) for letter in text]}

    rows = tokenize([Example((), 'abcdefgh')], Letters(), '', 4)
    assert [row.prompt + row.answer for row in rows] == [
        [97, 98, 99, 100], [100, 101, 102, 103], [103, 104, 0]]
