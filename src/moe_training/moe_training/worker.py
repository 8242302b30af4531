"""The node's side of a job's worker process: start it or find it again, hear it, end it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from moe_training.errors import CancelledError, TrainingError, error_of
from moe_training.events import EventReader, living
from moe_training.job import Job, Outcome

POLL_S = 0.2
GRACE_S = 30.0  # between SIGTERM and SIGKILL: a step takes a few seconds at most
_KERNEL_EVENTS = Path('/sys/fs/cgroup/memory.events')


class WorkerLost(TrainingError):
    """The worker ended without a word; `for_memory` where the kernel killed it for lack of memory."""

    def __init__(self, message: str, for_memory: bool) -> None:
        super().__init__(message)
        self.for_memory = for_memory


class StuckError(TrainingError):
    """The worker gave no sign of life and was killed."""


def kernel_kills() -> int:
    """Processes of this control group that the kernel killed for lack of memory so far."""
    try:
        rows = dict(line.split() for line in _KERNEL_EVENTS.read_text().splitlines())
        return int(rows.get('oom_kill', 0))
    except (OSError, ValueError):
        return 0


class TrainingWorker:
    """One running job. Use start() or adopt().

    Attributes:
        pid: of the worker.
    """

    def __init__(self, job_id: int, folder: Path, log: Path, process: subprocess.Popen[bytes] | None,
                 events: EventReader, life: tuple[int, int]) -> None:
        self._id, self._folder, self._log_path = job_id, folder, log
        self._process, self._events = process, events
        self.pid, self._group = life
        self._kills = kernel_kills()

    @classmethod
    def start(cls, job_id: int, job: Job, folder: Path, log: Path) -> TrainingWorker:
        """Start the worker of a job in its folder; what it prints goes to the log. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        job.save(folder)
        events = EventReader(folder, skip=True)
        # waiting threads sleep: spinning ones would take the cores from the robot's other processes
        environment = dict(os.environ, OMP_WAIT_POLICY='PASSIVE', TOKENIZERS_PARALLELISM='false', TQDM_DISABLE='1',
                           PYTHONWARNINGS='ignore::FutureWarning')  # of libraries among themselves
        several = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(job.processes)]
        launcher = several if job.processes > 1 else []
        with log.open('ab') as output:
            process = subprocess.Popen(
                [sys.executable, *launcher, '-m', 'moe_training.train_expert', str(job_id), str(folder)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True)
        return cls(job_id, folder, log, process, events, (process.pid, process.pid))

    @classmethod
    def adopt(cls, job_id: int, folder: Path, log: Path) -> TrainingWorker | None:
        """The worker that a former life of this node started and that still runs; None where there is none.

        Everything it said is read again, so an outcome that nobody heard is not lost.
        """
        life = living(folder)
        return cls(job_id, folder, log, None, EventReader(folder), life) if life else None

    def _alive(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return living(self._folder) is not None

    def _messages(self, cancelled: Callable[[], bool], stuck_timeout_s: float,
                  left: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """Messages until the worker is gone, with what it was told on the way."""
        asked_at, heard = 0.0, time.monotonic()
        while True:
            alive = self._alive()  # before reading: the last words of one that just ended are read below
            news = self._events.new()
            now = time.monotonic()
            heard = now if news else heard
            yield from news
            if left() or (not alive and not news):
                return
            if cancelled() and not asked_at:
                asked_at = now
                self._terminate()
            if asked_at and now - asked_at > GRACE_S:
                self.kill()
            elif now - heard > stuck_timeout_s and alive:
                self.kill()
                raise StuckError(f'Training job {self._id} is stuck: no sign of life for {stuck_timeout_s:.0f} s, so '
                                 f'its processes were killed; see {self._log_path}. Its last checkpoint is kept: '
                                 'resume latest.')
            if not news:
                time.sleep(POLL_S)

    def progress(self, cancelled: Callable[[], bool], stuck_timeout_s: float = 600.0,
                 left: Callable[[], bool] = lambda: False) -> Generator[dict[str, Any], None, Outcome]:
        """Yield progress (the keys of settings.Progress, phase, memory_bytes) and {"warning"} until the job is done.

        Returns the Outcome as the generator's value. Raises TrainingError and its kinds; a cancel is passed on and
        ends in CancelledError. When `left` says so, nobody waits any longer for the end that was asked for.
        """
        outcome: Outcome | None = None
        error: TrainingError | None = None
        for message in self._messages(cancelled, stuck_timeout_s, left):
            if 'done' in message:
                outcome = Outcome(**message['done'])
            elif 'error' in message:
                error = error_of(message['code'], message['error'])
            else:
                outcome = error = None  # of an earlier life of the job
                yield message
        if outcome is not None:
            return outcome
        raise error or self._ended(cancelled())

    def _ended(self, asked: bool) -> TrainingError:
        if asked:
            return CancelledError(f'Training job {self._id} was cancelled.')
        code = self._process.wait() if self._process is not None else -signal.SIGKILL
        for_memory = kernel_kills() > self._kills
        cause = signal.Signals(-code).name if code < 0 else f'exit code {code}'
        hint = ('; the kernel killed it for lack of memory (lower batch_size or max_seq_len)' if for_memory
                else '; it was killed by hand or for lack of memory (lower batch_size)' if code == -signal.SIGKILL
                else '')
        return WorkerLost(f'The worker of training job {self._id} ended with {cause}{hint}; see {self._log_path}.',
                          for_memory)

    def _terminate(self) -> None:
        """Ask for the end at the next step; where several processes share the steps, the first tells the others."""
        life = living(self._folder)
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.kill(life[0] if life else self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the worker and all it started, now."""
        if not self._alive():
            return
        life = living(self._folder)
        for group in {self._group, life[1] if life else self._group}:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self._process is not None:
            self._process.wait()

    def wait(self, seconds: float = GRACE_S) -> None:
        """Wait for its end, which it was asked for; one that takes longer is killed."""
        give_up = time.monotonic() + seconds
        while self._alive() and time.monotonic() < give_up:
            time.sleep(POLL_S)
        self.kill()

    def close(self) -> None:
        """End it where it still runs."""
        self.kill()


def finished(folder: Path) -> Outcome | None:
    """What a job made whose worker ended while no node looked; None where it made nothing."""
    messages = EventReader(folder).new()
    return Outcome(**messages[-1]['done']) if messages and 'done' in messages[-1] else None
