"""One commanded movement, from its begin on the bus to its end, whatever ends it."""

from __future__ import annotations

import math
import threading
import time

from moe_hardware.dynamixel.trajectory import Trajectory
from moe_hardware.errors import MotionError


class Movement:
    """A trajectory under way; the bus thread runs and ends it, others watch and wait.

    Args:
        trajectory: of it.
        lifetime: ends where it is after so long [s], unless it has arrived; for a stream whose sender may have died.
    """

    def __init__(self, trajectory: Trajectory, lifetime: float = math.inf) -> None:
        self.trajectory = trajectory
        self.lifetime = lifetime
        self._begin = time.monotonic()
        self._done = threading.Event()
        self.error: MotionError | None = None

    @property
    def elapsed(self) -> float:
        """Time since the begin [s]."""
        return time.monotonic() - self._begin

    @property
    def progress(self) -> float:
        """Share of the time that has passed, 0..1."""
        duration = self.trajectory.duration
        return min(1.0, self.elapsed / duration) if duration > 0.0 else 1.0

    @property
    def done(self) -> bool:
        """Whether it has ended; `error` says how, None = at its goal."""
        return self._done.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait for the end [s]; returns whether it has come."""
        return self._done.wait(timeout)

    def finish(self, error: MotionError | None = None) -> None:
        """End it; only the first call counts."""
        if not self._done.is_set():
            self.error = error
            self._done.set()
