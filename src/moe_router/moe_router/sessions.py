"""What sticks to a conversation: its side of a trial, its node, its expert."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass

REMEMBERED = 10_000  # sessions; the one that was silent longest is forgotten


@dataclass(frozen=True)
class Trial:
    """A running A/B test: `share` (0..1) of the sessions of `control` get `treatment`."""

    id: int
    control: str
    treatment: str
    share: float


def side(trial: Trial, key: str) -> str:
    """The expert of a session key in a trial: always the same, whoever asks, on any machine."""
    digest = hashlib.sha256(f'{trial.id}:{key}'.encode('utf-8', 'surrogatepass')).digest()
    return trial.treatment if int.from_bytes(digest[:8], 'big') < trial.share * 2**64 else trial.control


@dataclass(frozen=True)
class Session:
    """Who answered last in a conversation, and on which node."""

    expert: str = ''
    node: str = ''


class Sessions:
    """The last sessions; safe to use from several threads."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most, self._lock = most, threading.Lock()
        self._known: OrderedDict[str, Session] = OrderedDict()

    def find(self, key: str) -> Session:
        """What is known of a session; nothing for ''."""
        with self._lock:
            return self._known.get(key, Session()) if key else Session()

    def remember(self, key: str, session: Session) -> None:
        """Keep what a session's last answer came from."""
        if not key:
            return
        with self._lock:
            self._known[key] = session
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
