"""The node's side of a job's worker process: start it, hear it, end it."""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from moe_training.errors import CancelledError, TrainingError, error_of
from moe_training.job import Job, Outcome

POLL_S = 0.2
GRACE_S = 30.0  # between SIGTERM and SIGKILL: a step takes a few seconds at most


class TrainingWorker:
    """One running job.

    Args:
        job_id: number in the registry; names process and log.
        folder: of the job; job.json is written there.
        log: file that receives what the worker prints and one line a step.
    """

    def __init__(self, job_id: int, job: Job, folder: Path, log: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        job.save(folder)
        self._id = job_id
        self._log = log.open('a', encoding='utf-8', buffering=1)
        # waiting threads sleep: spinning ones would take the cores from the robot's other processes
        environment = dict(os.environ, OMP_WAIT_POLICY='PASSIVE', TOKENIZERS_PARALLELISM='false', TQDM_DISABLE='1')
        # the standard input that stays open is the worker's sign that this process lives
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'moe_training.train_expert', str(job_id), str(folder)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment, start_new_session=True)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True, name=f'job {job_id}').start()

    @property
    def pid(self) -> int:
        """Of the worker process."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def progress(self, cancelled: Callable[[], bool]) -> Generator[dict[str, Any], None, Outcome]:
        """Yield progress (the keys of lora.Progress, phase, memory_bytes) until the job is done.

        Returns the Outcome as the generator's value. Raises TrainingError and its kinds; a cancel is passed on and
        ends in CancelledError.
        """
        asked = False
        while True:
            if cancelled() and not asked:
                asked = True
                self._process.send_signal(signal.SIGTERM)
                threading.Timer(GRACE_S, self.kill).start()
            try:
                line = self._lines.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if line is None:
                raise self._ended(asked)
            message = json.loads(line)
            if 'done' in message:
                self._write('done: ' + ', '.join(f'{key}={value:.4g}'
                                                 for key, value in message['done']['metrics'].items()))
                return Outcome(**message['done'])
            if 'error' in message:
                self._write(f'error: {message["error"]}')
                raise error_of(message['code'], message['error'])
            self._note(message)
            yield message

    def _note(self, message: dict[str, Any]) -> None:
        if 'step' in message:
            self._write(f'Epoch {math.ceil(message["epoch"])}, Step {message["step"]}: Loss={message["loss"]:.3f}')
        else:
            self._write(message['phase'])

    def _write(self, line: str) -> None:
        self._log.write(line + '\n')

    def _ended(self, asked: bool) -> TrainingError:
        code = self._process.wait()
        if asked:
            return CancelledError(f'Training job {self._id} was cancelled.')
        cause = signal.Signals(-code).name if code < 0 else f'exit code {code}'
        hint = '; it was killed by hand or for lack of memory (lower batch_size)' if code == -signal.SIGKILL else ''
        return TrainingError(f'The worker of training job {self._id} ended with {cause}{hint}; see {self._log.name}.')

    def kill(self) -> None:
        """End the worker and all it started, now."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Release the process; one that still runs is killed."""
        self.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            assert stream is not None
            stream.close()
