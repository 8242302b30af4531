"""Routing without an answer, and what the router learns from."""

from __future__ import annotations

import json
from collections.abc import Iterator

from moe_client.experts import ACTOR, DAY_S
from moe_client.transport import Event, Transport, Values
from moe_client.types import Route, RouterStats


class Router:
    """The router's decisions."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def route(self, prompt: str) -> Route:
        """Ask which expert should answer."""
        return Route.of(self._transport.call('router.route', {'prompt': prompt})['decision'])

    def explain(self, prompt: str) -> tuple[Route, Values]:
        """Why the router decides as it does: the decision, and scores, nearest samples, thresholds."""
        values = self._transport.call('router.explain', {'prompt': prompt})
        return Route.of(values['decision']), json.loads(values['explanation'] or '{}')

    def stats(self) -> RouterStats:
        """What was chosen so far."""
        return RouterStats.of(self._transport.call('router.stats', {}))

    def routes(self, expert: str = '', request_id: str = '', limit: int = 100) -> list[Values]:
        """Decisions that were kept, newest first: RouteRecords."""
        records: list[Values] = self._transport.call('router.routes', {
            'expert': expert, 'request_id': request_id, 'limit': limit})['records']
        return records

    def correct(self, request_id: str, expert: str) -> None:
        """Say which expert should have answered."""
        self._transport.call('router.correct', {'request_id': request_id, 'expert': expert, 'actor': ACTOR})

    def retrain(self, force: bool = False, timeout: float = DAY_S) -> Iterator[Event]:
        """Fit the router anew; yields progress and the result."""
        return self._transport.stream('router.retrain', {'force': force}, timeout)
