"""A goal passed on to another action server: feedback relayed, cancel and result brought back."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from moe_router.ros.action_client import MeetingActionClient, SentGoal

POLL_S = 0.02
CANCEL_S = 5.0  # how long a server may take to end what was cancelled
Arrivals = queue.SimpleQueue[tuple[str, Any]]


class ServerAway(Exception):
    """The action server is not there, refused the goal or vanished."""


class _Relay:
    """Hands feedback on in the thread that it comes in, all else to the one that waits for the result.

    That one would have to wait until the other has looked for what else has come: half a millisecond a token.
    """

    def __init__(self, relay: Callable[[Any], None], arrivals: Arrivals) -> None:
        self._relay, self._arrivals = relay, arrivals
        self._lock, self._open = threading.Lock(), True

    def put(self, arrival: tuple[str, Any]) -> None:
        """Take what has come for the goal."""
        if arrival[0] != 'feedback':
            self._arrivals.put(arrival)
            return
        with self._lock:
            if not self._open:
                return
            try:
                self._relay(arrival[1])
            except Exception as error:  # the waiting thread's goal fails of it, not the one that serves all goals
                self._open = False
                self._arrivals.put(('broken', error))

    def close(self) -> None:
        """Hand on nothing from now on: somebody else may be asked the same."""
        with self._lock:
            self._open = False


def forward(client: MeetingActionClient, goal: Any, relay: Callable[[Any], None], cancelled: Callable[[], bool],
            ready_timeout_s: float, alive: Callable[[], bool] = lambda: True) -> Any:
    """Send a goal and block until its result; raises ServerAway.

    Args:
        relay: receives every feedback, at once, in the thread that spins the client; none after the return.
        cancelled: asked while waiting; True cancels the goal once.
        alive: asked while nothing arrives; False ends the wait with ServerAway, as does the end of the server.
    """
    give_up = time.monotonic() + ready_timeout_s
    while not client.server_is_ready(look=True):
        if time.monotonic() > give_up or cancelled():
            raise ServerAway('it is not running; look at `moe status`')
        time.sleep(POLL_S)
    arrivals: Arrivals = queue.SimpleQueue()
    relaying = _Relay(relay, arrivals)
    try:
        return _result(SentGoal(client, goal, relaying.put), arrivals, cancelled, alive)
    finally:
        relaying.close()


def _result(sent: SentGoal, arrivals: Arrivals, cancelled: Callable[[], bool], alive: Callable[[], bool]) -> Any:
    """Block until the goal's result; raises ServerAway, and what the relay raised."""
    asked_at = 0.0
    while True:
        if not asked_at and cancelled():
            asked_at = time.monotonic()
            sent.cancel()
        try:
            kind, message = arrivals.get(timeout=POLL_S)
        except queue.Empty:
            if reason := sent.lost():
                raise ServerAway(f'it {reason}') from None
            if not alive():
                raise ServerAway('it fell silent while it worked on the goal') from None
            if asked_at and time.monotonic() - asked_at > CANCEL_S:
                raise ServerAway(f'it did not end the cancelled goal within {CANCEL_S:.0f} s') from None
            continue
        if kind == 'broken':
            raise message
        if kind == 'refused':
            raise ServerAway('it refused the goal')
        return message.result
