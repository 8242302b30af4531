"""Decisions and outcomes on their way to the registry: kept in memory, handed on in batches, never waited for."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar('T')
MOST_WAITING = 10_000
BATCH = 500


def digest(prompt: str) -> str:
    """sha256 of a prompt, hex."""
    return hashlib.sha256(prompt.encode('utf-8', 'replace')).hexdigest()


class Outbox(Generic[T]):
    """Things to send; where nobody takes them for long, the oldest go and are counted.

    Args:
        send: hands on a batch; False = not taken, try again later. Called in one thread at a time.
    """

    def __init__(self, send: Callable[[Sequence[T]], bool], most: int = MOST_WAITING) -> None:
        self._send, self._lock = send, threading.Lock()
        self._waiting: deque[T] = deque(maxlen=most)
        self.lost = 0

    def add(self, item: T) -> None:
        """Put one in; returns at once."""
        with self._lock:
            self.lost += len(self._waiting) == self._waiting.maxlen
            self._waiting.append(item)

    def __len__(self) -> int:
        return len(self._waiting)

    def flush(self) -> bool:
        """Send what waits; False where a batch was not taken, it waits on."""
        while True:
            with self._lock:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            if not batch:
                return True
            if not self._send(batch):
                with self._lock:
                    room = (self._waiting.maxlen or len(batch)) - len(self._waiting)
                    self.lost += max(0, len(batch) - room)
                    self._waiting.extendleft(reversed(batch[max(0, len(batch) - room):]))
                return False


class RecentPrompts:
    """Prompts of the last requests, so that a person can correct one whose text is not kept in the registry."""

    def __init__(self, most: int = 2_000, longest: int = 2_000) -> None:
        self._most, self._longest, self._lock = most, longest, threading.Lock()
        self._known: OrderedDict[str, str] = OrderedDict()

    def keep(self, request_id: str, prompt: str) -> None:
        """Remember a prompt; a long one by its beginning."""
        with self._lock:
            self._known[request_id] = prompt[:self._longest]
            while len(self._known) > self._most:
                self._known.popitem(last=False)

    def find(self, request_id: str) -> str:
        """The prompt of a request; '' = forgotten."""
        return self._known.get(request_id, '')
