"""A training job from its settings to checked files; run in the worker process, free of ROS."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from moe_training.atomic_files import atomic_path
from moe_training.checkpoints import Checkpoint, CheckpointStore
from moe_training.dataset import Example, read_dataset, split
from moe_training.errors import DatasetError, RequestError, TrainingError
from moe_training.foundation import check_base
from moe_training.paths import BASE_NAME
from moe_training.quantization import BEST, file_type
from moe_training.settings import Settings, Upkeep

MAX_HOLDOUT = 0.5


@dataclass(frozen=True)
class Champion:
    """The version that a gate compares with: its artifact and, for an adapter, its base; '' = none."""

    artifact_path: str = ''
    base_path: str = ''


@dataclass(frozen=True)
class Job:
    """What a job depends on.

    Attributes:
        base: '' or name of the shared base, a size, a Hugging Face folder or a GGUF file.
        heldout: file with the held-out part; '' = `holdout` of the dataset, chosen by hash.
        quantization: llama.cpp's name of the number format of what is served, or "best".
        resume: folder of the checkpoint to go on from; '' = the start.
        force: resume although dataset or settings differ.
        processes: that share the steps, started by torchrun.
        memory_bytes: limit of the worker's memory; 0 = none.
    """

    expert: str
    dataset: str
    system_prompt: str = ''
    base: str = ''
    heldout: str = ''
    holdout: float = 0.05
    quantization: str = 'Q8_0'
    resume: str = ''
    force: bool = False
    processes: int = 1
    memory_bytes: int = 0
    champion: Champion = field(default_factory=Champion)
    settings: Settings = field(default_factory=Settings)
    upkeep: Upkeep = field(default_factory=Upkeep)

    def check(self) -> None:
        """Raise RequestError or TrainingError for what can never work."""
        self.settings.check()
        if self.quantization != BEST:
            file_type(self.quantization)
        if not 0.0 <= self.holdout <= MAX_HOLDOUT:
            raise RequestError(f'holdout is {self.holdout}; it must be 0..{MAX_HOLDOUT}.')
        check_base(self.base, self.settings.method)

    def save(self, folder: Path) -> None:
        """Write job.json into the job's folder."""
        with atomic_path(folder / 'job.json') as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2))

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Read job.json; raises TrainingError where it cannot be read."""
        try:
            return cls.parse((folder / 'job.json').read_text())
        except OSError as error:
            raise TrainingError(f'Job {folder} has no settings ({error.strerror}); start it anew.') from error

    @classmethod
    def parse(cls, text: str) -> Job:
        """A job from its JSON; raises TrainingError where the text is none."""
        try:
            content = json.loads(text)
            settings = {**content.pop('settings')}
            settings['targets'] = tuple(settings['targets'])
            return cls(**{**content, 'settings': Settings(**settings), 'upkeep': Upkeep(**content['upkeep']),
                          'champion': Champion(**content['champion'])})
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f'The settings of a job cannot be read ({error}); start it anew.') from error

    def identity(self, digest: str) -> dict[str, str]:
        """What a checkpoint must have in common with a job that goes on from it."""
        rest = [self.system_prompt, self.base or BASE_NAME, self.heldout, self.holdout]
        return {'dataset': digest,
                'settings': hashlib.sha256(json.dumps([self.settings.digest(), *rest]).encode()).hexdigest()}

    def checkpoint(self, folder: Path, digest: str) -> Checkpoint | None:
        """Where to go on: the job's own latest checkpoint, else the one it names; None = the start.

        Raises TrainingError where dataset or settings are not those of the checkpoint, unless forced.
        """
        own = CheckpointStore(folder / 'checkpoints').latest()
        if own is not None or not self.resume:
            return own
        found = CheckpointStore(Path(self.resume).parent).named(Path(self.resume).name)
        theirs, ours = found.detail['identity'], self.identity(digest)
        differing = [name for name, value in ours.items() if theirs.get(name) != value]
        if differing and not self.force:
            raise TrainingError(f'Checkpoint {self.resume} is of another {" and other ".join(differing)}; resume with '
                                'the same ones, or force it.')
        return found


@dataclass(frozen=True)
class Outcome:
    """What a job made: the artifact, the base it is served on ('' for a whole model), SHA-256 digests and metrics."""

    artifact_path: str
    sha256: str
    base: str
    base_path: str
    base_sha256: str
    dataset_digest: str
    quantization: str
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


Tell = Callable[[str, Any], None]


@contextmanager
def _before_others(first: bool) -> Iterator[None]:
    """Let the first of several processes through alone: transformers writes a model's files in that one only."""
    import torch.distributed as distributed

    shared = distributed.is_available() and distributed.is_initialized()
    if shared and not first:
        distributed.barrier()
    yield
    if shared and first:
        distributed.barrier()


def run(job: Job, folder: Path, tell: Tell, cancelled: Callable[[], bool] = lambda: False,
        warn: Callable[[str], None] = lambda _text: None, *, first: bool = True) -> Outcome | None:
    """Train, convert, compare and score.

    Args:
        folder: of the job; checkpoints and files are written there.
        tell: receives the phase ("load", "train", "convert", "parity", "evaluate") and, in training, every step.
        warn: receives sentences for people.
        first: whether this is the process that writes; the others that share its steps return None after training.

    Raises TrainingError and its kinds.
    """
    from transformers import AutoTokenizer

    from moe_training.chat import tokenize
    from moe_training.delivery import Delivery
    from moe_training.fitting import Fit
    from moe_training.foundation import open_foundation
    from moe_training.notes import NotedExamples, write_facts
    from moe_training.trainable_model import load_model

    tell('load', None)
    train, heldout, digest = read_parts(job)
    checkpoint = job.checkpoint(folder, digest)
    with _before_others(first):
        foundation = open_foundation(job.base, folder, train, job.system_prompt, job.settings.seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(foundation.folder, trust_remote_code=False)
    if any(example.messages for example in train) and not tokenizer.chat_template:
        raise RequestError(f'The base {job.base} has no chat template; train it on rows of "text", or add a template.')
    with atomic_path(folder / 'samples.jsonl') as temporary:
        temporary.write_text(''.join(json.dumps({'text': example.prompt, 'intent': example.intent}) + '\n'
                                     for example in train if example.messages))
    if job.settings.notes:
        noted = NotedExamples(train, job.settings.notes, job.settings.seed)
        write_facts(noted.facts, folder / 'notes.jsonl')
        train, heldout = noted.drawn(train), noted.asked(heldout)
    rows = tokenize(train, tokenizer, job.system_prompt, job.settings.max_seq_len)
    held_rows = tokenize(heldout, tokenizer, job.system_prompt, job.settings.max_seq_len)
    last: dict[str, float] = {'loss': math.nan, 'tokens_per_second': math.nan}

    def told(progress: Any) -> None:
        last.update(loss=progress.loss, tokens_per_second=progress.tokens_per_second)
        tell('train', progress)

    model = load_model(foundation.folder, job.settings)
    store = CheckpointStore(folder / 'checkpoints', job.upkeep.keep_last)
    Fit(model, rows, job.settings, told, cancelled, warn=warn, heldout=held_rows, store=store, upkeep=job.upkeep,
        identity=job.identity(digest)).run(checkpoint)
    if not first:
        return None
    delivery = Delivery(job, folder, foundation, tokenizer, tell)
    metrics = {f'train_{name}': value for name, value in last.items() if not math.isnan(value)}
    return delivery.deliver(model, heldout, rows, held_rows, digest, metrics)
