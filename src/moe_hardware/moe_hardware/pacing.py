"""Time of device loops: a fixed rate to keep, and the rate that was reached."""

from __future__ import annotations

import threading
import time
from collections import deque


class Pacer:
    """Keeps a loop at a rate; a loop that falls behind goes on from now instead of catching up in a burst.

    Args:
        rate: [Hz], > 0.
    """

    def __init__(self, rate: float) -> None:
        self._period = 1.0 / rate
        self._due = time.monotonic()

    def wait(self, stop: threading.Event) -> None:
        """Wait for the next turn, or until stop is set."""
        self._due += self._period
        now = time.monotonic()
        if self._due < now - self._period:
            self._due = now
        elif self._due > now:
            stop.wait(self._due - now)


class RateMeter:
    """Measures how often something happens.

    Args:
        window_s: time looked at [s].
    """

    def __init__(self, window_s: float = 3.0) -> None:
        self._window = window_s
        self._times: deque[float] = deque()
        self._lock = threading.Lock()

    def tick(self) -> None:
        """Count one event, now."""
        now = time.monotonic()
        with self._lock:
            self._times.append(now)
            self._forget(now)

    def rate(self) -> float:
        """Return events per second within the window [Hz]; 0.0 before the second event and after silence."""
        now = time.monotonic()
        with self._lock:
            self._forget(now)
            if len(self._times) < 2:
                return 0.0
            return (len(self._times) - 1) / (self._times[-1] - self._times[0])

    def _forget(self, now: float) -> None:
        while self._times and self._times[0] < now - self._window:
            self._times.popleft()
