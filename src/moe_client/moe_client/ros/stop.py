"""A stop that signal handlers may ask for."""

from __future__ import annotations

import contextlib
import queue
import signal


class Stop:
    """Set once, by a signal handler too.

    threading.Event is none for that: the handler interrupts the main thread wherever it is, at times where it holds the
    event's lock, and waits for it for ever. SimpleQueue.put() is reentrant.
    """

    def __init__(self) -> None:
        self._set = False
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        """Ask for the stop."""
        self._set = True
        self._woken.put(None)

    def is_set(self) -> bool:
        """Whether it was asked for."""
        return self._set

    def wait(self, timeout_s: float) -> bool:
        """Wait for it; returns whether it was asked for. For one thread."""
        with contextlib.suppress(queue.Empty):
            if not self._set:
                self._woken.get(timeout=timeout_s)
        return self._set


def stop_at_signals() -> Stop:
    """A stop that SIGINT and SIGTERM ask for from now on."""
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop
