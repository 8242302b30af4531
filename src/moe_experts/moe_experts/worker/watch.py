"""When a worker must be ended: it gets nowhere, or its memory grows without end."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_PAGE_BYTES = os.sysconf('SC_PAGE_SIZE')


@dataclass(frozen=True)
class Limits:
    """What a worker may do.

    Attributes:
        stall_timeout_s: longest time without a sign of life while something is asked of it; 0 = no limit.
        max_growth_mb: private memory [MB] beyond what it had when its model was loaded; 0 = no limit.
    """

    stall_timeout_s: float = 30.0
    max_growth_mb: int = 1024


class Watch:
    """Judges one worker process.

    Args:
        pid: of the process; it has loaded its model.
    """

    def __init__(self, pid: int, limits: Limits) -> None:
        self._pid, self._limits = pid, limits
        self._first_bytes = private_bytes(pid)
        self._oom_kills = oom_kills()
        self._heard = time.monotonic()

    def heard(self) -> None:
        """Note a sign of life, or that there was nothing to do until now."""
        self._heard = time.monotonic()

    def verdict(self, busy: bool) -> str:
        """Why it must be ended; '' = it need not."""
        silent = time.monotonic() - self._heard
        if busy and 0 < self._limits.stall_timeout_s < silent:
            return f'no step for {silent:.0f} s (stall_timeout_s {self._limits.stall_timeout_s:g})'
        grown = (private_bytes(self._pid) - self._first_bytes) // 1_000_000
        if 0 < self._limits.max_growth_mb < grown:
            return f'its memory grew by {grown} MB (max_growth_mb {self._limits.max_growth_mb})'
        return ''

    def killer(self) -> str:
        """Who sent a SIGKILL that we did not send."""
        return 'by the kernel for lack of memory' if oom_kills() > self._oom_kills else 'from outside'


def resident_bytes(pid: int) -> int:
    """Memory of a process, mapped files included; 0 where it is gone."""
    return _statm(pid)[1]


def private_bytes(pid: int) -> int:
    """Memory of a process without what is shared with files or others; 0 where it is gone."""
    _size, resident, shared = _statm(pid)[:3]
    return resident - shared


def oom_kills() -> int:
    """Processes that the kernel has killed for lack of memory since it started; 0 where it does not count them."""
    for line in Path('/proc/vmstat').read_text().splitlines():
        if line.startswith('oom_kill '):
            return int(line.split()[1])
    return 0


def _statm(pid: int) -> list[int]:
    try:
        return [int(word) * _PAGE_BYTES for word in Path(f'/proc/{pid}/statm').read_text().split()]
    except (OSError, ValueError):
        return [0, 0, 0]
