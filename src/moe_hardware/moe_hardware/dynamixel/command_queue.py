"""Commands of many threads, carried out by the one that owns a device."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from moe_hardware.dynamixel.port import PortGone

_LOOK_S = 0.2  # how often a waiting caller looks whether the owner still works

T = TypeVar('T')


class CommandQueue:
    """Functions to be called by the owner, whose results go back to the callers."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._wake = threading.Event()

    def wake(self) -> None:
        """End the owner's wait."""
        self._wake.set()

    def call(self, function: Callable[[], T], timeout: float, working: Callable[[], bool]) -> T:
        """Have the owner call a function; returns or raises what it does.

        Raises TimeoutError when the owner has not begun within timeout [s] or has stopped working(); the function is
        not called any more then.
        """
        future: Future[T] = Future()
        self._waiting.put((function, future))
        self._wake.set()
        give_up = time.monotonic() + timeout
        while True:
            try:
                return future.result(_LOOK_S)
            except TimeoutError:
                if future.done():
                    return future.result()
                if (time.monotonic() > give_up or not working()) and future.cancel():
                    raise

    def run(self, timeout: float) -> bool:
        """Wait for commands [s] and carry them out, in the owner's thread; returns whether there were any.

        Raises PortGone when one has found the device gone; its caller learns it too.
        """
        self._wake.wait(timeout)
        self._wake.clear()
        ran = False
        while not self._waiting.empty():
            function, future = self._waiting.get()
            if not future.set_running_or_notify_cancel():
                continue
            ran = True
            try:
                future.set_result(function())
            except PortGone as error:
                future.set_exception(error)
                raise
            except Exception as error:
                future.set_exception(error)
        return ran
