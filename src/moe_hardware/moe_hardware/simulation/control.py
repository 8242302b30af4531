"""Faults on demand: a FIFO that takes a line for each, e.g. `echo 'voltage 1 9.0' > /tmp/servos.control`."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

Action = Callable[[list[str]], object]


class ControlFifo:
    """A FIFO whose lines are carried out, in a thread, while the block of its context manager runs.

    Args:
        path: of the FIFO; None makes none.
        actions: by their first word; they get the others and may raise ValueError, KeyError or IndexError.
    """

    def __init__(self, path: Path | None, actions: Mapping[str, Action]) -> None:
        self._path, self._actions = path, actions
        self._descriptor = -1

    def __enter__(self) -> ControlFifo:
        if self._path is None:
            return self
        if self._path.exists() and not stat.S_ISFIFO(self._path.stat().st_mode):
            raise FileExistsError(f'{self._path} exists and is no FIFO; name another --control or remove it.')
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self._path)
        # For reading and writing: no end of file when a writer leaves.
        self._descriptor = os.open(self._path, os.O_RDWR)
        threading.Thread(target=self._run, name='control', daemon=True).start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None,
                 _trace: TracebackType | None) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        with os.fdopen(self._descriptor, encoding='utf-8', errors='replace') as lines:
            for line in lines:
                words = line.split()
                if not words:
                    continue
                try:
                    self._actions[words[0]](words[1:])
                except (KeyError, ValueError, IndexError):
                    print(f'Not understood: {line.strip()!r}; the first word is one of {", ".join(self._actions)}.',
                          file=sys.stderr, flush=True)
