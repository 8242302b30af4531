"""Settings that can never work, and what makes two jobs the same."""

from dataclasses import replace

import pytest

from moe_training.errors import RequestError
from moe_training.settings import Settings


@pytest.mark.parametrize(('name', 'value'), [
    ('batch_size', 0), ('learning_rate', float('nan')), ('learning_rate', 0.0), ('rank', -1), ('warmup_ratio', 2.0),
    ('epochs', 0.0), ('targets', ('lm_head',)), ('precision', 'fp8'), ('gradient_accumulation', 0),
    ('scheduler', 'greedy'), ('method', 'prefix'), ('num_workers', -1), ('max_seq_len', 8), ('patience', -1)])
def test_settings_that_can_never_work_are_named(name, value):
    with pytest.raises(RequestError, match='targets' if name == 'targets' else name):
        replace(Settings(), **{name: value}).check()


def test_how_a_step_is_divided_makes_no_other_job():
    settings = Settings(batch_size=8, gradient_accumulation=2)
    assert settings.digest() == replace(settings, batch_size=4, gradient_accumulation=4, num_workers=3).digest()
    assert settings.digest() != replace(settings, batch_size=4).digest()
    assert settings.digest() != replace(settings, seed=1).digest()
