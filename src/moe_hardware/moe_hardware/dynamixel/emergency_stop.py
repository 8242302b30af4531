"""The e-stop: once tripped it stays so, with its first reason, until it is reset."""

from __future__ import annotations

import threading

from moe_hardware.errors import SafetyViolation


class EmergencyStop:
    """A latch that any thread may trip."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason = ''

    @property
    def reason(self) -> str:
        """Why it is tripped, '' = it is not."""
        return self._reason

    def trip(self, reason: str) -> bool:
        """Latch; returns False when it was tripped already, whose reason then stays."""
        with self._lock:
            if self._reason:
                return False
            self._reason = reason or 'no reason given'
            return True

    def reset(self) -> None:
        """Allow motion again."""
        with self._lock:
            self._reason = ''

    def check(self) -> None:
        """Raise SafetyViolation while it is tripped."""
        if self._reason:
            raise SafetyViolation(f'The e-stop is on ({self._reason}); call reset_estop (`moe reset-estop`) once the '
                                  'cause is gone.')
