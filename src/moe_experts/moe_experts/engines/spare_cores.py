"""How many cores nothing else wants: what a step may use."""

from __future__ import annotations

import os
import time

TOLERATED = 0.45  # of a core that others may use without its counting as theirs
WINDOW_S = 0.1  # /proc/stat counts in 10 ms
_TICKS_PER_S = os.sysconf('SC_CLK_TCK')


def spare(cores: int, busy_s: float, own_s: float, elapsed_s: float) -> int:
    """Cores left over when all processes used busy_s, this one own_s of them, within elapsed_s [s]; at least 1.

    A core is left to others from about a half of it on. Measured on two cores, with tasks of milliseconds beside it: a
    step of 11 tokens takes 85 ms with two threads and 130 with one where others use a third of a core, 125 and 115
    where they use half of one. Where they use a whole one, a single token takes 43 ms with two threads and 26 with one.
    """
    others = max(0.0, busy_s - own_s) / elapsed_s
    return max(1, int(cores - others + TOLERATED))


class SpareCores:
    """Measures now and then how many threads find a core of their own.

    Threads of one step wait for each other hundreds of times. With a core each that costs microseconds; where one
    shares its core with another process, a step of 20 ms takes seconds, far longer than with fewer threads.

    Args:
        most: threads at most.
    """

    def __init__(self, most: int) -> None:
        self._most, self._cores = most, os.cpu_count() or 1
        self._stat = os.open('/proc/stat', os.O_RDONLY)
        self._last = self._read()
        self._count = most

    def count(self) -> int:
        """Threads for the next step."""
        elapsed = time.monotonic() - self._last[0]
        if elapsed >= WINDOW_S and self._most > 1:
            (_then, busy, own), self._last = self._last, self._read()
            self._count = min(self._most, spare(self._cores, self._last[1] - busy, self._last[2] - own, elapsed))
        return self._count

    def _read(self) -> tuple[float, float, float]:
        """Time, and seconds that all processes and this one have used."""
        # "cpu", then ticks: user, nice, system, idle, iowait, irq, softirq, steal (proc_stat(5))
        ticks = [int(word) for word in os.pread(self._stat, 256, 0).split(b'\n')[0].split()[1:9]]
        return time.monotonic(), (sum(ticks) - ticks[3] - ticks[4]) / _TICKS_PER_S, time.process_time()

    def close(self) -> None:
        """Close the counter."""
        os.close(self._stat)
