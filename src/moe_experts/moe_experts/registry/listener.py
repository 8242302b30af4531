"""The listener: hears of every commit by Postgres LISTEN and hands the transitions on, in order and without gaps."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any

import psycopg2

from moe_experts.registry.database import Database
from moe_experts.registry.entities import Event
from moe_experts.registry.errors import DatabaseUnavailable
from moe_experts.registry.events import CHANNEL, Events

_PAGE = 1000


class Listener:
    """Follows the log; what was missed while the connection was away is read from the table.

    Args:
        hand_on: receives every transition, in the thread of run().
        latched: how many of the past transitions are handed on at first.
    """

    def __init__(self, database: Database, events: Events, hand_on: Callable[[Event], None],
                 latched: int = _PAGE) -> None:
        self._database = database
        self._events = events
        self._hand_on = hand_on
        _events, newest = events.after(limit=1)
        self._last = max(0, newest - latched)
        self._wake, self._woken = os.pipe()

    def run(self, idle: Callable[[], None], every_s: float, stopped: Callable[[], bool]) -> None:
        """Listen until stopped; raises DatabaseUnavailable when the connection is lost, and may be run again.

        Args:
            idle: called about every every_s, in this thread.
        """
        try:
            raw: Any = self._database.engine.raw_connection()
        except Exception as error:
            raise DatabaseUnavailable(f'Postgres at {self._database.where} does not answer: '
                                      f'{str(error).strip().splitlines()[0]}') from error
        connection = raw.driver_connection
        raw.detach()
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'LISTEN {CHANNEL}')
            while not stopped():
                self._catch_up()
                idle()
                select.select([connection, self._wake], [], [], every_s)
                connection.poll()
                connection.notifies.clear()
        except psycopg2.Error as error:
            raise DatabaseUnavailable(f'Postgres at {self._database.where} went away: '
                                      f'{(str(error).strip().splitlines() or ["no reason given"])[0]}') from error
        finally:
            connection.close()

    def wake(self) -> None:
        """Make run() look at once whether it is stopped."""
        os.write(self._woken, b'x')

    def _catch_up(self) -> None:
        while True:
            events, _newest = self._events.after(self._last, limit=_PAGE)
            for event in events:
                self._hand_on(event)
                self._last = event.sequence
            if len(events) < _PAGE:
                return
