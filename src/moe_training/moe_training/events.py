"""What a worker says, in a file: it outlives the node that started the worker, and the next one reads on."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any, TextIO

EVENTS, LIFE, LOCK = 'events.jsonl', 'worker.json', 'worker.lock'
LOCK_TRIES = 40


class EventWriter:
    """Appends one JSON object a line."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS
        self._file: TextIO = self._path.open('a', encoding='utf-8', buffering=1)
        if self._path.stat().st_size and not self._path.read_bytes().endswith(b'\n'):
            self._file.write('\n')  # a life before this one was killed within its last word

    def send(self, **message: Any) -> None:
        """Write a message; the line is with the kernel when it returns."""
        self._file.write(json.dumps(message) + '\n')


class EventReader:
    """Reads the lines that were added since it last looked; a half one, of a worker that was killed, is none."""

    def __init__(self, folder: Path, *, skip: bool = False) -> None:
        self._path = folder / EVENTS
        self._offset = self._path.stat().st_size if skip and self._path.exists() else 0

    def new(self) -> list[dict[str, Any]]:
        """Whole new lines as messages."""
        if not self._path.exists():
            return []
        with self._path.open('rb') as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[:data.rfind(b'\n') + 1]
        self._offset += len(whole)
        found = []
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found


def hold_life(folder: Path) -> int | None:
    """Lock a job's folder for this process and note its pid; None where another worker holds it.

    The kernel frees the lock with the last process of the worker's family, so it tells a live worker from a pid that
    was given away anew.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    for _ in range(LOCK_TRIES):  # a node that looks whether someone lives holds it for a moment
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(0.05)
    else:
        os.close(descriptor)
        return None
    (folder / LIFE).write_text(json.dumps({'pid': os.getpid(), 'group': os.getpgid(0)}))
    return descriptor


def living(folder: Path) -> tuple[int, int] | None:
    """Process id and group of the worker that works in a folder; None where none does."""
    path = folder / LOCK
    if not path.exists():
        return None
    with path.open('rb') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                content = json.loads((folder / LIFE).read_text())
                return int(content['pid']), int(content['group'])
            except (OSError, ValueError):
                return None  # it is just being written
    return None
