"""Ctrl-C that is not lost: Python drops a KeyboardInterrupt that falls into a destructor or a callback of C code."""

from __future__ import annotations

import signal
import threading
from types import FrameType

_seen = threading.Event()


def watch() -> None:
    """Remember SIGINT besides raising KeyboardInterrupt, as long as nobody ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _seen.set()
    raise KeyboardInterrupt


def check() -> None:
    """Raise KeyboardInterrupt where one was lost; called between the steps of long verbs."""
    if _seen.is_set():
        raise KeyboardInterrupt
