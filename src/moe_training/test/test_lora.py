"""Settings of a fit and the order of its rows."""

import random

import pytest

from moe_training.chat import TokenRow
from moe_training.errors import RequestError
from moe_training.lora import Settings, batches


@pytest.mark.parametrize(('name', 'value'), [
    ('batch_size', 0), ('learning_rate', float('nan')), ('learning_rate', 0.0), ('rank', -1), ('warmup_ratio', 2.0),
    ('epochs', 0.0), ('targets', ('lm_head',)), ('precision', 'fp16'), ('gradient_accumulation', 0)])
def test_settings_that_can_never_work_are_named(name, value):
    with pytest.raises(RequestError, match='targets' if name == 'targets' else name):
        Settings(**{name: value}).check()


def test_every_row_is_seen_once_an_epoch_and_the_seed_decides_the_order():
    rows = [TokenRow([1] * length, [2]) for length in range(1, 40)]
    epoch = list(batches(rows, 8, random.Random(1)))
    assert sorted(len(row) for batch in epoch for row in batch) == sorted(map(len, rows))
    assert max(map(len, epoch)) == 8
    assert epoch == list(batches(rows, 8, random.Random(1)))
    assert epoch != list(batches(rows, 8, random.Random(2)))
