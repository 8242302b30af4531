"""The wire from a simulated device to the host, which damages replies with a given probability."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from enum import Enum

LATE_S = 0.15  # a late reply comes after the driver has given up on it
SPLIT_S = 0.01


class Damage(Enum):
    """What can happen to a reply."""

    LOSE = 'nothing comes'
    CUT = 'only its beginning comes'
    SPLIT = 'it comes in two pieces'
    LATE = 'it comes after the host has given up'
    NOISE = 'bytes that nobody sent come before it'
    SPOIL = 'a byte of it is another'
    COLLIDE = 'another device speaks at the same time, as one with the same id does'


class Line:
    """A wire.

    Args:
        write: takes the bytes that arrive at the host.
        rate: share of replies damaged, 0..1; may be changed.
        seed: of what is damaged, and how.
        damages: to draw from; bytes come instead of the reply.
        late_s: how late a late reply is [s].
    """

    def __init__(self, write: Callable[[bytes], None], rate: float, seed: int, damages: Sequence[Damage | bytes],
                 late_s: float = LATE_S) -> None:
        self.rate = rate
        self._write, self._late_s = write, late_s
        self._random = random.Random(seed)
        self._damages = tuple(damages)

    def send(self, reply: bytes) -> None:
        """Send a reply, whole or damaged."""
        if not reply:
            return
        damage: Damage | bytes | None = None
        if self.rate and self._random.random() < self.rate:
            damage = self._random.choice(self._damages)
        if damage is Damage.LOSE:
            return
        if isinstance(damage, bytes):
            reply = damage
        elif damage is Damage.CUT:
            reply = reply[:self._random.randrange(1, len(reply))]
        elif damage is Damage.SPLIT:
            at = self._random.randrange(1, len(reply))
            self._write(reply[:at])
            time.sleep(SPLIT_S)
            reply = reply[at:]
        elif damage is Damage.LATE:
            time.sleep(self._late_s)
        elif damage is Damage.NOISE:
            reply = self._random.randbytes(self._random.randrange(1, 8)) + reply
        elif damage is Damage.SPOIL:
            at = self._random.randrange(len(reply))
            reply = reply[:at] + bytes((reply[at] ^ self._random.randrange(1, 256),)) + reply[at + 1:]
        elif damage is Damage.COLLIDE:  # low wins on the wire
            reply = bytes(one & other for one, other in zip(reply, self._random.randbytes(len(reply))))
        self._write(reply)
