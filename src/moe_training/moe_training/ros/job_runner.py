"""One job from its turn to its registered version: the worker started or found again, relayed, delivered."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from moe_interfaces.msg import ExpertVersion, TrainingJob
from moe_training.checkpoints import CheckpointStore
from moe_training.errors import CancelledError, TrainingError
from moe_training.events import living
from moe_training.job import Outcome
from moe_training.paths import job_folder, job_log
from moe_training.ros import goals
from moe_training.ros.job_queue import Entry
from moe_training.ros.registry import Registry, metrics_of
from moe_training.worker import TrainingWorker, WorkerLost, finished

PARKED = 'parked'  # a file in the job's folder: the node was stopped in order, the next one goes on
LIVES = 'lives'
MOST_LIVES = 5  # starts of a worker that no one asked for: a job that brings the machine down is not started for ever
CLOSING_S = 6.0  # the supervisor kills a node that takes longer than 8 s to stop


class JobRunner:
    """Runs entries of the queue.

    Args:
        heartbeat_s: between two writes of a job's progress to the registry [s].
        stuck_timeout_s: without a word of the worker after which it is killed [s].
        resume_lost: start a worker that was killed again, from its last checkpoint.
        say: writes to the node's log: (is it a warning, text).
    """

    def __init__(self, registry: Registry, heartbeat_s: Callable[[], float], stuck_timeout_s: Callable[[], float],
                 resume_lost: Callable[[], bool], say: Callable[[bool, str], None]) -> None:
        self._registry, self._heartbeat_s, self._stuck_timeout_s = registry, heartbeat_s, stuck_timeout_s
        self._resume_lost, self._say = resume_lost, say
        self.closing = threading.Event()

    def run(self, entry: Entry) -> None:
        """Work on an entry until it has ended; what went wrong stands in its result and in the registry."""
        row = entry.row
        entry.result.job_id = row.id
        try:
            outcome = self._outcome(entry)
            self._register(entry, outcome)
        except TrainingError as error:
            if self.closing.is_set() and isinstance(error, CancelledError) and not entry.cancelled():
                self._park(entry)
                return
            self._end(entry, error)
            return
        except OSError as error:
            self._end(entry, TrainingError(f'Training job {row.id} cannot write its files: {error}.'))
            return
        row.status, row.version_id, row.pid = TrainingJob.SUCCEEDED, entry.result.version_id, 0
        self._write(row)
        entry.ended.set()

    def drop(self, entry: Entry) -> None:
        """End an entry that was cancelled before its turn."""
        entry.result.job_id = entry.row.id
        self._end(entry, CancelledError(f'Training job {entry.row.id} was cancelled before its turn.'))

    def _end(self, entry: Entry, error: TrainingError) -> None:
        row = entry.row
        row.status = TrainingJob.CANCELLED if isinstance(error, CancelledError) else TrainingJob.FAILED
        row.error_msg, row.pid = str(error), 0
        self._say(True, f'Training job {row.id} of {row.expert}: {error}')
        self._write(row)
        entry.fail(error)

    def _park(self, entry: Entry) -> None:
        """Leave the job to the next life of the node."""
        row = entry.row
        (job_folder(row.id) / PARKED).touch()
        row.pid = 0
        self._write(row)
        entry.fail(CancelledError(f'The training node was stopped; job {row.id} goes on from its checkpoint when it '
                                  'is started again.'))

    def _write(self, row: TrainingJob) -> bool:
        """Write a row; returns whether the job may go on. A registry that is away stops no training."""
        try:
            return self._registry.update_job(row).status in (TrainingJob.RUNNING, TrainingJob.QUEUED)
        except TrainingError as error:
            self._say(True, f'Training job {row.id}: its progress was not written. {error}')
            return True

    def may_go_on(self, row: TrainingJob) -> bool:
        """Whether a job that an earlier life of the node left may be taken up; counts how often it was."""
        folder = job_folder(row.id)
        if living(folder) or finished(folder) or (folder / PARKED).exists() or row.status == TrainingJob.QUEUED:
            return True
        if _lives(folder) >= MOST_LIVES or CheckpointStore(folder / 'checkpoints').latest() is None:
            return False
        _count_life(folder)
        return True

    def _outcome(self, entry: Entry) -> Outcome:
        row, folder = entry.row, job_folder(entry.row.id)
        if (outcome := finished(folder)) is not None and not living(folder):
            return outcome
        worker = TrainingWorker.adopt(row.id, folder, job_log(row.id))
        if (folder / PARKED).exists():
            if worker is not None:  # it is still saving what the last node asked it to
                worker.wait()
                worker = None
            (folder / PARKED).unlink()
        elif worker is not None:
            self._say(False, f'Training job {row.id} is adopted, process {worker.pid}.')
        while True:
            worker = worker or TrainingWorker.start(row.id, entry.job, folder, job_log(row.id))
            try:
                return self._relay(entry, worker)
            except WorkerLost as error:
                if not self._start_again(entry, error):
                    raise
            finally:
                if not self.closing.is_set():
                    worker.close()
            worker = None

    def _start_again(self, entry: Entry, error: WorkerLost) -> bool:
        """Whether a worker that was killed is started again; one that the kernel killed for memory once, with less."""
        folder, settings = job_folder(entry.row.id), entry.job.settings
        if _lives(folder) >= MOST_LIVES or self.closing.is_set():
            return False
        smaller = folder / 'smaller'
        if error.for_memory and not smaller.exists() and settings.batch_size > 1:
            half = settings.batch_size // 2
            entry.job = replace(entry.job, settings=replace(
                settings, batch_size=half, gradient_accumulation=-(-settings.step_rows // half)))
            smaller.touch()
        elif not self._resume_lost():
            return False
        _count_life(folder)
        self._say(True, f'{error} It is started again with batch_size {entry.job.settings.batch_size}.')
        return True

    def _relay(self, entry: Entry, worker: TrainingWorker) -> Outcome:
        row = entry.row
        row.pid, row.status = worker.pid, TrainingJob.RUNNING
        if not self._write(row):
            entry.stopped.set()
        written = time.monotonic()
        closing_at: list[float] = []

        def cancelled() -> bool:
            if self.closing.is_set():
                closing_at[:] = closing_at or [time.monotonic()]
            return self.closing.is_set() or entry.cancelled()

        lines = worker.progress(cancelled, self._stuck_timeout_s(), lambda: bool(
            closing_at and time.monotonic() - closing_at[0] > CLOSING_S))
        while True:
            try:
                progress = next(lines)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            self._hear(entry, progress)
            if time.monotonic() - written >= self._heartbeat_s():
                written = time.monotonic()
                if not self._write(row):
                    entry.stopped.set()  # a person marked the job as ended

    def _hear(self, entry: Entry, progress: dict[str, Any]) -> None:
        if 'warning' in progress:
            self._say(True, f'Training job {entry.row.id}: {progress["warning"]}')
            return
        goals.note(entry.row, progress)
        if entry.handle is not None:
            entry.handle.publish_feedback(goals.feedback(entry.row.id, progress))

    def _register(self, entry: Entry, outcome: Outcome) -> None:
        row, result = entry.row, entry.result
        self._hear(entry, {'phase': 'register', 'memory_bytes': 0})
        expert = self._registry.expert(row.expert)
        version = self._registry.register(row.expert, ExpertVersion(
            artifact_path=outcome.artifact_path,
            kind=ExpertVersion.ADAPTER if outcome.base_path else ExpertVersion.MODEL, base=outcome.base,
            base_path=outcome.base_path, base_sha256=outcome.base_sha256, sha256=outcome.sha256, job_id=row.id,
            dataset_digest=outcome.dataset_digest, parent_version=expert.champion_version,
            metrics=metrics_of(outcome.metrics)), entry.promote, f'training job {row.id}')
        result.version_id, result.version = version.id, version.number
        result.artifact_path, result.sha256 = version.artifact_path, version.sha256
        result.metrics = metrics_of(outcome.metrics)
        samples = job_folder(row.id) / 'samples.jsonl'
        if samples.is_file():
            self._registry.add_samples(row.expert, samples)
        notes = job_folder(row.id) / 'notes.jsonl'
        if notes.is_file():
            self._registry.replace_notes(row.expert, Path(row.dataset).name, notes)
        self._say(False, f'{row.expert}@{version.number} is registered (training job {row.id}).')


def _lives(folder: Path) -> int:
    path = folder / LIVES
    return int(json.loads(path.read_text())) if path.is_file() else 0


def _count_life(folder: Path) -> None:
    (folder / LIVES).write_text(json.dumps(_lives(folder) + 1))
