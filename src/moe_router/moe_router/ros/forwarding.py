"""A goal passed on to another action server: feedback relayed, cancel and result brought back."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

from moe_router.ros.action_client import MeetingActionClient, SentGoal

POLL_S = 0.02
CANCEL_S = 5.0  # how long a server may take to end what was cancelled


class ServerAway(Exception):
    """The action server is not there, refused the goal or vanished."""


def forward(client: MeetingActionClient, goal: Any, relay: Callable[[Any], None], cancelled: Callable[[], bool],
            ready_timeout_s: float, alive: Callable[[], bool] = lambda: True) -> Any:
    """Send a goal and block until its result; raises ServerAway.

    Args:
        relay: receives every feedback, at once, in this thread.
        cancelled: asked while waiting; True cancels the goal once.
        alive: asked while nothing arrives; False ends the wait with ServerAway, as does the end of the server.
    """
    give_up = time.monotonic() + ready_timeout_s
    while not client.server_is_ready(look=True):
        if time.monotonic() > give_up or cancelled():
            raise ServerAway('it is not running; look at `moe status`')
        time.sleep(POLL_S)
    arrivals: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    sent, asked_at = SentGoal(client, goal, arrivals.put), 0.0
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
        if kind == 'feedback':
            relay(message)
        elif kind == 'refused':
            raise ServerAway('it refused the goal')
        else:
            return message.result
