"""What a fit depends on, what it is kept up with, and what it tells."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass

from moe_training.errors import RequestError

PRECISIONS = ('auto', 'fp32', 'bf16', 'fp16')
METHODS = ('lora', 'full')
TARGETS = ('q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj')
# transformers' SchedulerType without "greedy", whose state cannot be kept without a pickle.
SCHEDULERS = ('linear', 'cosine', 'cosine_with_restarts', 'polynomial', 'constant', 'constant_with_warmup',
              'inverse_sqrt', 'reduce_lr_on_plateau', 'cosine_with_min_lr', 'cosine_warmup_with_min_lr',
              'warmup_stable_decay')
LEARNING_RATES = {'lora': 1e-3, 'full': 1e-4}


@dataclass(frozen=True)
class Settings:
    """What the weights after a fit depend on.

    Attributes:
        learning_rate: peak of the schedule.
        max_grad_norm: of clipping; 0 = none.
        num_workers: processes that put batches together ahead of time; 0 = this one. Changes no weight.
        notes: in front of each prompt (notes.py); 0 = none.
        patience: evaluations without gain after which the fit stops and takes the best weights; 0 = never.
    """

    method: str = 'lora'
    epochs: float = 6.0
    max_steps: int = 0
    batch_size: int = 16
    gradient_accumulation: int = 1
    learning_rate: float = 1e-3
    scheduler: str = 'cosine'
    warmup_ratio: float = 0.05
    max_grad_norm: float = 1.0
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = TARGETS
    precision: str = 'auto'
    gradient_checkpointing: bool = False
    num_workers: int = 0
    packing: bool = False
    max_seq_len: int = 256
    patience: int = 0
    notes: int = 0
    seed: int = 42

    @property
    def step_rows(self) -> int:
        """Rows of one optimiser step."""
        return self.batch_size * self.gradient_accumulation

    def check(self) -> None:
        """Raise RequestError for settings that can never work (NaN included)."""
        ranges = (('max_steps', 0, 10_000_000), ('batch_size', 1, 1024), ('gradient_accumulation', 1, 1024),
                  ('learning_rate', 1e-8, 1.0), ('warmup_ratio', 0.0, 1.0), ('max_grad_norm', 0.0, 1e6),
                  ('rank', 1, 256), ('alpha', 1e-3, 1024.0), ('num_workers', 0, 64), ('patience', 0, 1000),
                  ('max_seq_len', 16, 8192), ('notes', 0, 20))
        for name, low, high in ranges:
            if not low <= getattr(self, name) <= high:
                raise RequestError(f'{name} is {getattr(self, name)}; it must be {low:g}..{high:g}.')
        if not (self.max_steps or 0.0 < self.epochs <= 10_000.0):
            raise RequestError(f'epochs is {self.epochs}; it must be above 0, or set max_steps.')
        if not self.targets or (unknown := sorted(set(self.targets) - set(TARGETS))):
            raise RequestError(f'lora_targets {", ".join(unknown)} are unknown; there are {", ".join(TARGETS)}.')
        for name, known in (('precision', PRECISIONS), ('method', METHODS), ('scheduler', SCHEDULERS)):
            if getattr(self, name) not in known:
                raise RequestError(f'{name} {getattr(self, name)} is not available; there are {", ".join(known)}.')

    def digest(self) -> str:
        """SHA-256 of all that the weights depend on; how a step is divided into batches is not part of it."""
        values = asdict(self)
        for name in ('batch_size', 'gradient_accumulation', 'num_workers', 'gradient_checkpointing'):
            del values[name]
        return hashlib.sha256(json.dumps([values, self.step_rows], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Upkeep:
    """How a fit is kept alive.

    Attributes:
        checkpoint_steps: steps between checkpoints, beside one an epoch.
        keep_last: checkpoints between epochs that are kept; those of epochs all are.
        nan_skips: steps in a row that may be skipped because loss or gradient are no number.
        nan_rollbacks: returns to the last checkpoint, each with half the rate, before the fit ends.
        evaluation_rows: held-out rows whose loss is taken each epoch.
    """

    checkpoint_steps: int = 100
    keep_last: int = 2
    nan_skips: int = 3
    nan_rollbacks: int = 2
    evaluation_rows: int = 64


@dataclass(frozen=True)
class Progress:
    """One step; losses in nats per answer token (NaN = none yet), rates per second, eta in seconds."""

    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    iterations_per_second: float
    eta_s: float
    validation_loss: float = math.nan
