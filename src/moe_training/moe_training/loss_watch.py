"""Watches loss, gradient and speed: what is no number is never learned from, what looks wrong is said."""

from __future__ import annotations

import math
from collections import deque
from enum import Enum

from moe_training.errors import TrainingError
from moe_training.settings import Progress, Upkeep

FLAT_STEPS = 100
FLAT_SHARE = 0.002
LEARNED = 0.05  # [nats/token] below it a loss may well stand still
SETTLED_STEPS = 10  # rates of the first steps say nothing
SLOW_ITERATIONS = 1.0  # [1/s]
LONG_ETA_S = 100 * 3600.0


class Verdict(Enum):
    """What to do with a step."""

    LEARN = 'learn'
    SKIP = 'skip'
    ROLL_BACK = 'roll back'


class LossGuard:
    """Skips steps whose loss or gradient norm is no number, then asks to roll back, then gives up."""

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep
        self._skipped = self._rolled_back = 0

    def judge(self, step: int, loss: float, norm: float, rate: float) -> Verdict:
        """Verdict on a step; raises TrainingError when rolling back did not help."""
        if math.isfinite(loss) and math.isfinite(norm):
            self._skipped = 0
            return Verdict.LEARN
        self._skipped += 1
        if self._skipped <= self._upkeep.nan_skips:
            return Verdict.SKIP
        self._skipped = 0
        if self._rolled_back >= self._upkeep.nan_rollbacks:
            raise TrainingError(
                f'The loss is {loss} and the gradient norm {norm} at step {step}, after {self._rolled_back} returns to '
                f'the last checkpoint; lower learning_rate (now {rate:g}), set max_grad_norm, or look for broken rows '
                'with validate-dataset.')
        self._rolled_back += 1
        return Verdict.ROLL_BACK


class Warnings:
    """What a person should hear about a fit, each once."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=FLAT_STEPS)
        self._said: set[str] = set()
        self._steps = 0

    def of(self, progress: Progress) -> list[str]:
        """New warnings after a step."""
        self._steps += 1
        self._losses.append(progress.loss)
        found = []
        if len(self._losses) == FLAT_STEPS:
            half = FLAT_STEPS // 2
            recent = list(self._losses)
            before, after = sum(recent[:half]) / half, sum(recent[half:]) / half
            if before > LEARNED and abs(before - after) < FLAT_SHARE * before:
                found.append(('flat', f'The loss has not moved for {FLAT_STEPS} steps ({after:.3f}); raise '
                              'learning_rate, or look at the dataset with analyze-dataset.'))
        if self._steps >= SETTLED_STEPS and 0 < progress.iterations_per_second < SLOW_ITERATIONS:
            found.append(('slow', f'{progress.iterations_per_second:.2f} steps/s: lower max_seq_len or batch_size, use '
                          'method lora, or precision bf16.'))
        if self._steps >= SETTLED_STEPS and progress.eta_s > LONG_ETA_S:
            found.append(('long', f'{progress.eta_s / 3600:.0f} hours to go: lower epochs or set max_steps, use method '
                          'lora or a smaller base.'))
        news = [text for kind, text in found if kind not in self._said]
        self._said |= {kind for kind, _text in found}
        return news
