"""A training job from its settings to a checked adapter; run in the worker process, free of ROS."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from moe_training.adapter_file import write_adapter
from moe_training.atomic_files import atomic_path, sha256_of
from moe_training.chat import tokenize
from moe_training.dataset import Example, read_dataset, split
from moe_training.errors import DatasetError, RequestError
from moe_training.lora import Progress, Settings, fit
from moe_training.parity import check_parity
from moe_training.paths import BASE_NAME, served_base
from moe_training.prepare_base import prepare_base
from moe_training.quantization import FILE_TYPES
from moe_training.serving_score import ServedModel, score
from moe_training.trainable_base import prepare_trainable_base

PARITY_ROWS = 16
MAX_HOLDOUT = 0.5


@dataclass(frozen=True)
class Job:
    """What a job depends on.

    Attributes:
        heldout: JSONL file with the held-out part; '' = `holdout` of the dataset, chosen by hash.
        quantization: llama.cpp's name of the number format of the base that will serve the adapter.
        max_seq_len: longest row [tokens].
    """

    expert: str
    dataset: str
    system_prompt: str = ''
    heldout: str = ''
    holdout: float = 0.05
    quantization: str = 'Q8_0'
    max_seq_len: int = 256
    settings: Settings = field(default_factory=Settings)

    def check(self) -> None:
        """Raise RequestError for settings that can never work."""
        self.settings.check()
        if self.quantization not in FILE_TYPES:
            raise RequestError(f'quantization {self.quantization} is unknown; llama.cpp has '
                               f'{", ".join(sorted(FILE_TYPES))}.')
        if not 0.0 <= self.holdout <= MAX_HOLDOUT:
            raise RequestError(f'holdout is {self.holdout}; it must be 0..{MAX_HOLDOUT}.')
        if not 16 <= self.max_seq_len <= 8192:
            raise RequestError(f'max_seq_len is {self.max_seq_len}; it must be 16..8192 tokens.')

    def save(self, folder: Path) -> None:
        """Write job.json into the job's folder."""
        with atomic_path(folder / 'job.json') as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2))

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Read job.json."""
        content = json.loads((folder / 'job.json').read_text())
        settings = {**content.pop('settings')}
        settings['targets'] = tuple(settings['targets'])
        return cls(**content, settings=Settings(**settings))


@dataclass(frozen=True)
class Outcome:
    """What a job made: the adapter, the base it is served on, digests (SHA-256) and metrics."""

    artifact_path: str
    sha256: str
    base: str
    base_path: str
    base_sha256: str
    dataset_digest: str
    metrics: dict[str, float]


def read_parts(job: Job) -> tuple[list[Example], list[Example], str]:
    """Training rows, held-out rows and the dataset's digest; raises DatasetError."""
    dataset = read_dataset(Path(job.dataset)).require_valid()
    if job.heldout:
        return dataset.examples, read_dataset(Path(job.heldout)).require_valid().examples, dataset.digest
    train, heldout = split(dataset.examples, job.holdout)
    if not train:
        raise DatasetError(f'{job.dataset} leaves no row to train on; lower holdout or add rows.')
    return train, heldout, dataset.digest


def run(job: Job, folder: Path, tell: Callable[[str, Progress | None], None],
        cancelled: Callable[[], bool] = lambda: False) -> Outcome:
    """Train, convert, compare and score.

    Args:
        folder: of the job; the adapter is written there.
        tell: receives the phase ("load", "train", "convert", "parity", "evaluate") and, in training, every step.

    Raises TrainingError and its kinds.
    """
    from transformers import AutoTokenizer

    tell('load', None)
    train, heldout, digest = read_parts(job)
    base = prepare_trainable_base()
    served = prepare_base(served_base(job.quantization), job.quantization)
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    rows = tokenize(train, tokenizer, job.system_prompt, job.max_seq_len)
    held_rows = tokenize(heldout, tokenizer, job.system_prompt, job.max_seq_len)
    last: list[Progress] = []

    def told(progress: Progress) -> None:
        last[:] = [progress]
        tell('train', progress)

    model = fit(base, rows, job.settings, told, cancelled)
    tell('convert', None)
    path = write_adapter(model, folder / f'{job.expert}.gguf', f'{job.expert} on {BASE_NAME}')
    serving = ServedModel(served, path, os.cpu_count() or 1)
    try:
        tell('parity', None)
        metrics = check_parity(model, tokenizer, serving, (held_rows or rows)[:PARITY_ROWS])
        del model  # its 600 MB are not needed for scoring
        metrics['train_loss'] = last[0].loss
        metrics['train_tokens_per_second'] = last[0].tokens_per_second
        if heldout:
            tell('evaluate', None)
            found = score(serving, held_rows, [example.completion for example in heldout],
                          [example.prompt for example in heldout])
            metrics.update(heldout_exact=found.exact, heldout_f1=found.f1, heldout_rows=float(found.rows))
    finally:
        serving.close()
    return Outcome(str(path), sha256_of(path), BASE_NAME, str(served), sha256_of(served), digest, metrics)
