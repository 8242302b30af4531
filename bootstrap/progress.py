"""What a person sees of a running step: how long it has taken, and how far its build is."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

LINE_S = 30.0  # between two lines where the output is no terminal
_BUILD = re.compile(r'\[(\d+/\d+)\]')  # ninja's counter
_TAIL_BYTES = 4096


class Progress:
    """The line of one step: rewritten on a terminal, now and then a new line in a log."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = self._told = time.monotonic()
        if title:
            print(f'{title} ...', end='', flush=True)

    def tell(self, log: Path) -> None:
        """Show the seconds so far and the build counter at the end of the log."""
        now = time.monotonic()
        if not sys.stdout.isatty() and now - self._told < LINE_S:
            return
        self._told = now
        with log.open('rb') as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            counters = _BUILD.findall(file.read().decode(errors='replace'))
        state = f'{now - self._began:.0f} s' + (f', {counters[-1]} built' if counters else '')
        if sys.stdout.isatty():
            print(f'\r\033[K{self._title} ... {state}', end='', flush=True)
        else:
            print(f' {state} ...', end='', flush=True)

    def done(self) -> float:
        """End the line; returns the seconds the step took."""
        seconds = time.monotonic() - self._began
        begin = f'\r\033[K{self._title} ...' if sys.stdout.isatty() else ''
        print(f'{begin} {seconds:.0f} s', flush=True)
        return seconds
