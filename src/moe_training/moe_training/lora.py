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
from moe_training.errors import CancelledError, TrainingError

TARGETS = ('q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj')


@dataclass(frozen=True)
class Settings:
    """What one fit depends on; learning_rate is the peak of a cosine with warm-up."""

    epochs: float = 6.0
    max_steps: int = 0
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup_ratio: float = 0.05
    max_grad_norm: float = 1.0
    rank: int = 8
    alpha: int = 16
    seed: int = 42


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
    eta_s: float


def batches(rows: list[TokenRow], size: int, generator: random.Random) -> Iterator[list[TokenRow]]:
    """One epoch: rows of like length together (less padding), batches in random order."""
    order = sorted(rows, key=lambda row: (len(row), generator.random()))
    groups = [order[start:start + size] for start in range(0, len(order), size)]
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
        r=settings.rank, lora_alpha=settings.alpha, target_modules=list(TARGETS), lora_dropout=0.0))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    per_epoch = math.ceil(len(rows) / settings.batch_size)
    total = settings.max_steps or max(1, round(settings.epochs * per_epoch))
    warmup = max(1, round(settings.warmup_ratio * total))
    step, began, seen = 0, time.monotonic(), 0
    while step < total:
        for batch in batches(rows, settings.batch_size, generator):
            if cancelled():
                raise CancelledError(f'Training was cancelled at step {step} of {total}.')
            share = (step + 1) / warmup if step < warmup else 0.5 * (
                1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
            rate = settings.learning_rate * max(share, 0.01)
            for group in optimiser.param_groups:
                group['lr'] = rate
            loss = _loss(model, batch)
            if not math.isfinite(loss.item()):
                raise TrainingError(f'The loss is {loss.item()} at step {step + 1}; lower learning_rate '
                                    f'({settings.learning_rate:g}) or check the dataset.')
            loss.backward()
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm or math.inf))
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            step += 1
            seen += sum(map(len, batch))
            elapsed = time.monotonic() - began
            tell(Progress(step, total, step / per_epoch, loss.item(), rate, norm, seen / elapsed,
                          elapsed / step * (total - step)))
            if step == total:
                break
    return model


def _loss(model: Any, batch: list[TokenRow]) -> Any:
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
    with torch.autocast('cpu', dtype=torch.bfloat16):
        causal = model.get_base_model()
        states = causal.model(input_ids=ids, attention_mask=mask).last_hidden_state
        logits = causal.lm_head(states[rows, columns])
    return torch.nn.functional.cross_entropy(logits.float(), torch.tensor(targets))
