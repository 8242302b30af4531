"""The worker process of one job: `python -m moe_training.train_expert ID FOLDER`.

Reads FOLDER/job.json and writes FOLDER/events.jsonl: progress, warnings, at the end "done" or "error". What it prints
is the job's log. SIGTERM ends it at the next step, after a checkpoint. It does not need the node that started it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from setproctitle import setproctitle

from moe_training.errors import CancelledError, TrainingError
from moe_training.events import EventWriter, hold_life
from moe_training.fitting import out_of_memory
from moe_training.job import Job, Outcome, run
from moe_training.settings import Progress

NICENESS = 5  # answers and motion come before training
_PR_SET_PDEATHSIG = 1


def resident_bytes() -> int:
    """Resident memory of this process [bytes]."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE')


class Voice:
    """What the worker says: events for the node, lines for the log, scalars for TensorBoard."""

    def __init__(self, job_id: str, folder: Path, cancelled: Callable[[], bool]) -> None:
        from tensorboardX import SummaryWriter

        self._id, self._cancelled = job_id, cancelled
        self._events = EventWriter(folder)
        self._board = SummaryWriter(str(folder / 'tensorboard'))

    def tell(self, phase: str, progress: Progress | None) -> None:
        """Say where the job stands; raises CancelledError between phases when asked to end."""
        values = dataclasses.asdict(progress) if progress else {}
        memory = resident_bytes()
        self._events.send(phase=phase, memory_bytes=memory, **values)
        if progress is None:
            print(phase, flush=True)
            if self._cancelled():
                raise CancelledError(f'Training job {self._id} was cancelled.')
            return
        validation = f' Validation={progress.validation_loss:.3f}' if math.isfinite(progress.validation_loss) else ''
        print(f'Epoch {math.ceil(progress.epoch)}, Step {progress.step}: Loss={progress.loss:.3f}{validation} '
              f'Rate={progress.learning_rate:.3g} Norm={progress.grad_norm:.3g}', flush=True)
        for name in ('loss', 'learning_rate', 'grad_norm', 'tokens_per_second', 'validation_loss'):
            if math.isfinite(values[name]):
                self._board.add_scalar(f'train/{name}', values[name], progress.step)
        self._board.add_scalar('train/memory_bytes', memory, progress.step)

    def warn(self, text: str) -> None:
        """Say what a person should hear."""
        print(f'Warning: {text}', flush=True)
        self._events.send(warning=text)

    def fail(self, error: TrainingError) -> None:
        """Say why the job ends without a version."""
        print(f'Error: {error}', flush=True)
        self._events.send(error=str(error), code=error.code)

    def done(self, outcome: Outcome) -> None:
        """Say what was made."""
        print('Done: ' + ', '.join(f'{key}={value:.4g}' for key, value in outcome.metrics.items()), flush=True)
        self._events.send(done=dataclasses.asdict(outcome))

    def close(self) -> None:
        """Write what is buffered."""
        self._board.close()


class Silence(Voice):
    """The voice of all processes of a job but the first."""

    def __init__(self, cancelled: Callable[[], bool]) -> None:
        self._cancelled = cancelled

    def tell(self, phase: str, progress: Progress | None) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing."""

    def fail(self, error: TrainingError) -> None:
        """Leave it to the log."""
        print(f'Error in a process that shares the steps: {error}', file=sys.stderr, flush=True)

    def close(self) -> None:
        """Have nothing to write."""


def join_group() -> int:
    """Join the processes that torchrun started; returns this one's rank, 0 where it is alone."""
    if 'WORLD_SIZE' not in os.environ:
        return 0
    import torch
    import torch.distributed as distributed

    # torchrun puts every process into a session of its own; none may outlive it
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    distributed.init_process_group('nccl' if torch.cuda.is_available() else 'gloo')
    return distributed.get_rank()


def main(arguments: list[str] | None = None) -> int:
    """Run the job; 0 done, 1 failed (an "error" event says why)."""
    job_id, name = arguments or sys.argv[1:]
    folder = Path(name)
    setproctitle(f'moe train_expert {job_id}')
    os.nice(NICENESS)
    came: list[int] = []  # an event would not do: its lock may be held by whom the handler interrupts
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the node's to decide on
    signal.signal(signal.SIGTERM, lambda number, _frame: came.append(number))
    rank = join_group()
    if rank == 0 and hold_life(folder) is None:
        print(f'Another worker has job {job_id}.', file=sys.stderr)
        return 1

    def cancelled() -> bool:
        return bool(came)

    voice = Voice(job_id, folder, cancelled) if rank == 0 else Silence(cancelled)
    try:
        job = Job.load(folder)
        if job.memory_bytes:
            resource.setrlimit(resource.RLIMIT_DATA, (job.memory_bytes, job.memory_bytes))
        outcome = run(job, folder, voice.tell, cancelled, voice.warn, first=rank == 0)
    except TrainingError as error:
        voice.fail(error)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        voice.fail(TrainingError('Memory ran out; lower batch_size or max_seq_len, or use a smaller base.'))
        return 1
    except OSError as error:
        voice.fail(TrainingError(f'{error.filename or folder} cannot be written ({error.strerror or error}); is the '
                                 'disk full?'))
        return 1
    finally:
        voice.close()
    if outcome is not None:
        voice.done(outcome)
    return 0


if __name__ == '__main__':
    sys.exit(main())
