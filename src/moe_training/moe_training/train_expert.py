"""The worker process of one job: `python -m moe_training.train_expert ID FOLDER`.

Reads FOLDER/job.json and prints one JSON object a line: progress, at the end "done" or "error". SIGTERM ends it at
the next step; so does the end of standard input, which is how it learns that its node is gone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from moe_training.errors import CancelledError, TrainingError
from moe_training.job import Job, run
from moe_training.lora import Progress

NICENESS = 5  # answers and motion come before training


def resident_bytes() -> int:
    """Resident memory of this process [bytes]."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE')


def main(arguments: list[str] | None = None) -> int:
    """Run the job; 0 done, 1 failed (an "error" line says why)."""
    job_id, folder = arguments or sys.argv[1:]
    # torch and llama.cpp print; the protocol keeps a descriptor of its own
    wire = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)

    def send(**message: Any) -> None:
        wire.write(json.dumps(message) + '\n')

    os.nice(NICENESS)
    cancelled = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the node's to decide on
    signal.signal(signal.SIGTERM, lambda _number, _frame: cancelled.set())

    def watch() -> None:
        sys.stdin.buffer.read()
        cancelled.set()

    threading.Thread(target=watch, daemon=True).start()

    def tell(phase: str, progress: Progress | None) -> None:
        if cancelled.is_set():
            raise CancelledError(f'Training job {job_id} was cancelled.')
        send(phase=phase, memory_bytes=resident_bytes(), **(dataclasses.asdict(progress) if progress else {}))

    try:
        outcome = run(Job.load(Path(folder)), Path(folder), tell, cancelled.is_set)
    except TrainingError as error:
        send(error=str(error), code=error.code)
        return 1
    except MemoryError:
        send(error='Memory ran out; lower batch_size or max_seq_len.', code=TrainingError.code)
        return 1
    send(done=dataclasses.asdict(outcome))
    return 0


if __name__ == '__main__':
    sys.exit(main())
