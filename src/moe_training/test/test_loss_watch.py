"""Verdicts on losses, and warnings."""

import math

import pytest

from moe_training.errors import TrainingError
from moe_training.loss_watch import LossGuard, Verdict, Warnings
from moe_training.settings import Progress, Upkeep


def progress(step, loss=1.0, rate=5.0, eta=10.0):
    return Progress(step, 1000, 1.0, loss, 1e-3, 1.0, 100.0, rate, eta)


def test_bad_numbers_are_skipped_then_rolled_back_then_end_the_fit():
    guard = LossGuard(Upkeep(nan_skips=2, nan_rollbacks=1))
    assert guard.judge(1, 1.0, 1.0, 1e-3) is Verdict.LEARN
    verdicts = [guard.judge(step, math.nan, 1.0, 1e-3) for step in (2, 3, 4)]
    assert verdicts == [Verdict.SKIP, Verdict.SKIP, Verdict.ROLL_BACK]
    assert guard.judge(2, 1.0, math.inf, 1e-3) is Verdict.SKIP
    guard.judge(3, 1.0, math.inf, 1e-3)
    with pytest.raises(TrainingError, match='lower learning_rate'):
        guard.judge(4, 1.0, math.inf, 1e-3)


@pytest.mark.parametrize(('settings', 'text'), [
    ({'loss': 0.7}, 'has not moved'), ({'rate': 0.2}, 'steps/s'), ({'eta': 4e6}, 'hours to go')])
def test_what_looks_wrong_is_said_once(settings, text):
    warnings = Warnings()
    losing = {} if 'loss' in settings else {'loss': None}
    said = [one for step in range(300)
            for one in warnings.of(progress(step, **{**settings, **({'loss': 5.0 / (step + 1)} if losing else {})}))]
    assert len(said) == 1 and text in said[0]
