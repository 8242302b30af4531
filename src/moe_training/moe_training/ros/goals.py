"""Goals of train_expert to jobs of the core, and progress back to messages."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from moe_interfaces.action import TrainExpert
from moe_interfaces.msg import Expert, TrainingJob
from moe_training.errors import DatasetError, TrainingError
from moe_training.job import Champion, Job
from moe_training.scratch import SIZES
from moe_training.settings import LEARNING_RATES, TARGETS, Settings, Upkeep


def within(path: str, roots: list[str]) -> Path:
    """A path below one of the roots, links resolved on both sides; raises TrainingError outside of them."""
    resolved = Path(path).resolve()
    if not any(resolved.is_relative_to(Path(root).resolve()) for root in roots):
        raise TrainingError(f'{path} is outside the folders this node may use ({", ".join(roots)}); move it there or '
                            'add its folder to allowed_roots.')
    return resolved


def dataset_within(path: str, roots: list[str]) -> None:
    """within() for a dataset, with its own kind of error."""
    try:
        within(path, roots)
    except TrainingError as error:
        raise DatasetError(str(error)) from None


def job_of(goal: TrainExpert.Goal, expert: Expert, upkeep: Upkeep, roots: list[str], champion: Champion,
           **limits: int) -> Job:
    """A goal as a job; raises TrainingError and its kinds for what can never work."""
    for path in (goal.dataset, goal.heldout):
        if path:
            dataset_within(path, roots)
    if goal.base and goal.base not in SIZES and Path(goal.base).exists():
        within(goal.base, roots)
    job = Job(
        expert=expert.name, dataset=goal.dataset, system_prompt=expert.system_prompt, base=goal.base,
        heldout=goal.heldout, holdout=goal.holdout, quantization=goal.quantization, force=goal.force,
        champion=champion, upkeep=upkeep, **limits,
        settings=Settings(
            method=goal.method, epochs=goal.epochs, max_steps=goal.max_steps, batch_size=goal.batch_size,
            gradient_accumulation=goal.gradient_accumulation,
            learning_rate=goal.learning_rate or LEARNING_RATES.get(goal.method, 0.0), scheduler=goal.scheduler,
            warmup_ratio=goal.warmup_ratio, max_grad_norm=goal.max_grad_norm, rank=goal.lora_rank,
            alpha=goal.lora_alpha, targets=tuple(goal.lora_targets) or TARGETS, precision=goal.precision,
            gradient_checkpointing=goal.gradient_checkpointing, num_workers=goal.num_workers, packing=goal.packing,
            max_seq_len=goal.max_seq_len, patience=goal.early_stopping_patience, notes=goal.notes,
            seed=goal.seed))
    job.check()
    return job


def resumed(job: Job, checkpoint: str, digest: str) -> Job:
    """A job that goes on from a checkpoint; raises TrainingError where it is of another dataset or other settings."""
    job = replace(job, resume=checkpoint)
    job.checkpoint(Path(checkpoint) / 'none', digest)
    return job


def feedback(job_id: int, progress: dict[str, Any]) -> TrainExpert.Feedback:
    """A line of the worker as feedback."""
    message = TrainExpert.Feedback(job_id=job_id, phase=progress['phase'], memory_bytes=progress['memory_bytes'],
                                   loss=math.nan, validation_loss=math.nan, eta_s=-1.0)
    for name in ('step', 'total_steps', 'epoch', 'loss', 'validation_loss', 'learning_rate', 'grad_norm',
                 'tokens_per_second', 'iterations_per_second', 'eta_s'):
        if name in progress:
            setattr(message, name, progress[name])
    return message


def note(job: TrainingJob, progress: dict[str, Any]) -> None:
    """Put a line of the worker into the job's row."""
    for name in ('step', 'total_steps', 'epoch', 'loss', 'validation_loss', 'learning_rate', 'tokens_per_second',
                 'eta_s'):
        if name in progress:
            setattr(job, name, progress[name])
