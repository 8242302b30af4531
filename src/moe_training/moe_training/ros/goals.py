"""Goals of train_expert to jobs of the core, and progress back to messages."""

from __future__ import annotations

import math
from typing import Any

from moe_interfaces.action import TrainExpert
from moe_interfaces.msg import Expert, TrainingJob
from moe_training.errors import RequestError
from moe_training.job import Job
from moe_training.lora import TARGETS, Settings
from moe_training.paths import BASE_NAME

LORA_LEARNING_RATE = 1e-3
# What a goal may ask for that this package does not do: (field, the only value it takes, what to do instead).
_FIXED = (
    ('method', 'lora', 'train an adapter with method lora'),
    ('scheduler', 'cosine', 'use cosine'),
    ('packing', False, 'leave it off; the loss is taken on answers alone'),
    ('gradient_checkpointing', False, 'lower batch_size to save memory'),
    ('early_stopping_patience', 0, 'set max_steps'),
    ('resume', '', 'start anew'))


def job_of(goal: TrainExpert.Goal, expert: Expert) -> Job:
    """A goal as a job; raises RequestError for what can never work."""
    for name, value, remedy in _FIXED:
        if getattr(goal, name) != value:
            raise RequestError(f'{name} {getattr(goal, name)!r} is not available; {remedy}.')
    if goal.base not in ('', BASE_NAME):
        raise RequestError(f'Base {goal.base} is unknown; there is {BASE_NAME}.')
    job = Job(
        expert=expert.name, dataset=goal.dataset, system_prompt=expert.system_prompt, heldout=goal.heldout,
        holdout=goal.holdout, quantization=goal.quantization, max_seq_len=goal.max_seq_len,
        settings=Settings(
            epochs=goal.epochs, max_steps=goal.max_steps, batch_size=goal.batch_size,
            gradient_accumulation=goal.gradient_accumulation, learning_rate=goal.learning_rate or LORA_LEARNING_RATE,
            warmup_ratio=goal.warmup_ratio, max_grad_norm=goal.max_grad_norm, rank=goal.lora_rank,
            alpha=goal.lora_alpha, targets=tuple(goal.lora_targets) or TARGETS,
            precision='bf16' if goal.precision == 'auto' else goal.precision, seed=goal.seed))
    job.check()
    return job


def feedback(job_id: int, progress: dict[str, Any]) -> TrainExpert.Feedback:
    """A line of the worker as feedback."""
    message = TrainExpert.Feedback(job_id=job_id, phase=progress['phase'], memory_bytes=progress['memory_bytes'],
                                   loss=math.nan, validation_loss=math.nan, eta_s=-1.0)
    for name in ('step', 'total_steps', 'epoch', 'loss', 'learning_rate', 'grad_norm', 'tokens_per_second',
                 'iterations_per_second', 'eta_s'):
        if name in progress:
            setattr(message, name, progress[name])
    return message


def note(job: TrainingJob, progress: dict[str, Any]) -> TrainingJob:
    """Put a line of the worker into the job's row."""
    for name in ('step', 'total_steps', 'epoch', 'loss', 'learning_rate', 'tokens_per_second', 'eta_s'):
        if name in progress:
            setattr(job, name, progress[name])
    return job
