"""A thread that owns a device: opens it, runs it, and opens it again after it was lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from moe_hardware.errors import HardwareFault

FIRST_DELAY_S = 0.25
JOIN_TIMEOUT_S = 6.0


class Device(Protocol):
    """What the thread runs; every method may raise HardwareFault with a sentence for the user."""

    def open(self) -> None:
        """Find the device anew (symlinks included) and make it ready."""

    def step(self, stop: threading.Event) -> None:
        """Do one turn of the device's work; blocks for a second or two at most."""

    def close(self) -> None:
        """Let go of the device; called after every failed open() and step() too, and must not raise."""


class DeviceThread:
    """Runs a device from start() to stop(), whatever happens to it.

    Args:
        device: to run.
        name: of the thread.
        longest_delay_s: between two attempts to open it [s]; the first comes after 0.25 s, each later one after twice
            the time of the one before.
        inform: called when the device works, after its first step.
        warn: called with a sentence when it cannot be used; once per cause, not per attempt.
    """

    def __init__(self, device: Device, name: str, longest_delay_s: float,
                 inform: Callable[[], None], warn: Callable[[str], None]) -> None:
        self._device = device
        self._longest_delay_s = longest_delay_s
        self._inform, self._warn = inform, warn
        self._stop = threading.Event()
        self._running = False
        self._fault = ''
        self._starts = 0
        self._name = name
        self._thread: threading.Thread | None = None

    @property
    def started(self) -> bool:
        """Whether it is between start() and stop()."""
        return self._thread is not None

    @property
    def running(self) -> bool:
        """Whether the device works."""
        return self._running

    @property
    def fault(self) -> str:
        """Why the device does not work, one sentence; '' while it does."""
        return self._fault

    @property
    def restarts(self) -> int:
        """How often the device came back after it had worked."""
        return max(0, self._starts - 1)

    def start(self) -> None:
        """Begin; again after stop(), too."""
        self._stop.clear()
        self._fault = ''
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the device is closed when this returns."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            thread.join(JOIN_TIMEOUT_S)

    def _run(self) -> None:
        delay, told = FIRST_DELAY_S, ''
        while not self._stop.is_set():
            try:
                self._device.open()
                while not self._stop.is_set():
                    self._device.step(self._stop)
                    if not self._running:
                        # Only now: a device that opens and then fails each time is one fault, not a series of starts.
                        self._running, self._fault, told, delay = True, '', '', FIRST_DELAY_S
                        self._starts += 1
                        self._inform()
            except HardwareFault as fault:
                self._fault = str(fault)
            except Exception as error:  # a defect must not end the thread unseen
                self._fault = f'{type(error).__name__}: {error}'
            finally:
                self._running = False
                self._device.close()
            if self._fault and self._fault != told:
                told = self._fault
                self._warn(told)
            self._stop.wait(delay)
            delay = min(2 * delay, self._longest_delay_s)
