"""LoRA fine-tuning of the shared base on question and answer, on a CPU in minutes.

A plain loop instead of transformers' Trainer: the loss needs the logits of the answers alone, and the logits over
49,152 tokens are what costs most on a CPU.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_training.chat import TokenRow
from moe_training.errors import CancelledError, RequestError, TrainingError

POOL_BATCHES = 8
PRECISIONS = ('fp32', 'bf16')
TARGETS = ('q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj')


@dataclass(frozen=True)
class Settings:
    """What one fit depends on; learning_rate is the peak of a cosine with warm-up, max_grad_norm 0 = no clipping."""

    epochs: float = 6.0
    max_steps: int = 0
    batch_size: int = 16
    gradient_accumulation: int = 1
    learning_rate: float = 1e-3
    warmup_ratio: float = 0.05
    max_grad_norm: float = 1.0
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = TARGETS
    precision: str = 'bf16'
    seed: int = 42

    def check(self) -> None:
        """Raise RequestError for settings that can never work (NaN included)."""
        ranges = (('max_steps', 0, 10_000_000), ('batch_size', 1, 1024), ('gradient_accumulation', 1, 1024),
                  ('learning_rate', 1e-8, 1.0), ('warmup_ratio', 0.0, 1.0), ('max_grad_norm', 0.0, 1e6),
                  ('rank', 1, 256), ('alpha', 1e-3, 1024.0))
        for name, low, high in ranges:
            if not low <= getattr(self, name) <= high:
                raise RequestError(f'{name} is {getattr(self, name)}; it must be {low:g}..{high:g}.')
        if not (self.max_steps or 0.0 < self.epochs <= 10_000.0):
            raise RequestError(f'epochs is {self.epochs}; it must be above 0, or set max_steps.')
        if unknown := sorted(set(self.targets) - set(TARGETS)):
            raise RequestError(f'lora_targets {", ".join(unknown)} are unknown; there are {", ".join(TARGETS)}.')
        if self.precision not in PRECISIONS:
            raise RequestError(f'precision {self.precision} is not available; there are {", ".join(PRECISIONS)}.')


@dataclass(frozen=True)
class Progress:
    """One step; loss in nats per answer token, rates per second, eta in seconds."""

    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    iterations_per_second: float
    eta_s: float


def batches(rows: list[TokenRow], size: int, generator: random.Random) -> Iterator[list[TokenRow]]:
    """One epoch in random order; within a pool of a few batches, rows of like length stand together (less padding).

    Sorting the whole epoch by length would put rows of one kind into the same batches, and rare kinds are then not
    learned.
    """
    order = list(rows)
    generator.shuffle(order)
    pool = size * POOL_BATCHES
    groups: list[list[TokenRow]] = []
    for start in range(0, len(order), pool):
        part = sorted(order[start:start + pool], key=len)
        groups += [part[at:at + size] for at in range(0, len(part), size)]
    generator.shuffle(groups)
    yield from groups


def fit(base: Path, rows: list[TokenRow], settings: Settings, tell: Callable[[Progress], None],
        cancelled: Callable[[], bool] = lambda: False) -> Any:
    """Train an adapter on rows and return the peft model.

    Raises TrainingError when the loss is no number, CancelledError when `cancelled` says so.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(settings.seed)
    generator = random.Random(settings.seed)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha,  # type: ignore[arg-type]  # any number works
        target_modules=list(settings.targets), lora_dropout=0.0))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    per_epoch = max(1, math.ceil(len(rows) / settings.batch_size / settings.gradient_accumulation))
    total = settings.max_steps or max(1, round(settings.epochs * per_epoch))
    warmup = max(1, round(settings.warmup_ratio * total))
    began, seen = time.monotonic(), 0
    stream = _endless(rows, settings.batch_size, generator)
    for step in range(total):
        share = (step + 1) / warmup if step < warmup else 0.5 * (
            1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
        rate = settings.learning_rate * max(share, 0.01)
        for group in optimiser.param_groups:
            group['lr'] = rate
        value = 0.0
        for _ in range(settings.gradient_accumulation):
            if cancelled():
                raise CancelledError(f'Training was cancelled at step {step} of {total}.')
            batch = next(stream)
            loss = _loss(model, batch, settings.precision) / settings.gradient_accumulation
            loss.backward()
            value += loss.item()
            seen += sum(map(len, batch))
        if not math.isfinite(value):
            raise TrainingError(f'The loss is {value} at step {step + 1}; lower learning_rate '
                                f'({settings.learning_rate:g}) or check the dataset.')
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm or math.inf))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        elapsed = time.monotonic() - began
        tell(Progress(step + 1, total, (step + 1) / per_epoch, value, rate, norm, seen / elapsed,
                      (step + 1) / elapsed, elapsed / (step + 1) * (total - step - 1)))
    return model


def _endless(rows: list[TokenRow], size: int, generator: random.Random) -> Iterator[list[TokenRow]]:
    """Epoch after epoch."""
    while True:
        yield from batches(rows, size, generator)


def answer_loss(model: Any, rows: list[TokenRow], batch_size: int = 8) -> float:
    """Mean cross-entropy of the answers [nats/token], in float32 whatever it was trained in."""
    import torch

    total = 0.0
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            batch = rows[start:start + batch_size]
            total += _loss(model, batch, 'fp32').item() * sum(len(row.answer) for row in batch)
    return total / sum(len(row.answer) for row in rows)


def _loss(model: Any, batch: list[TokenRow], precision: str) -> Any:
    """Mean cross-entropy over the answer tokens of a batch."""
    import torch

    width = max(map(len, batch))
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    rows, columns, targets = [], [], []
    for index, row in enumerate(batch):
        tokens = row.prompt + row.answer
        ids[index, :len(tokens)] = torch.tensor(tokens)
        mask[index, :len(tokens)] = 1
        for offset, token in enumerate(row.answer):
            rows.append(index)
            columns.append(len(row.prompt) + offset - 1)  # the state before a token predicts it
            targets.append(token)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=precision == 'bf16'):
        causal = model.get_base_model()
        states = causal.model(input_ids=ids, attention_mask=mask).last_hidden_state
        logits = causal.lm_head(states[rows, columns])
    return torch.nn.functional.cross_entropy(logits.float(), torch.tensor(targets))
