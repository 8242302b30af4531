"""Routing without an answer, and what the router learns from."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence

from moe_client import suite
from moe_client.errors import InvalidRequest
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

    def fit(self, number: int = 0) -> Values:
        """A fit of the router, a RouterVersion; 0 = the registry's active one. Raises InvalidRequest for no such."""
        version: Values = self._transport.call('router.fit', {'number': number})['version']
        return version

    def replay(self, records: Sequence[Values], fit: int = 0) -> list[Values]:
        """Decide prompts again.

        Args:
            records: RouteRecords, or objects with `prompt` and perhaps `choice`, `request_id` and `corrected`.
            fit: number of the fit to decide by, whose file must be on this machine; 0 = the router that runs.

        Returns:
            By record its request_id, prompt, corrected, `before`, `choice` and confidence.
        """
        log = [{'request_id': row.get('request_id', ''), 'prompt': row['prompt'], 'corrected': row.get('corrected', ''),
                'choice': row.get('choice') or (row.get('decision') or {}).get('choice', '')} for row in records]
        if fit:
            return self._by_fit(log, fit)
        again = []
        for row in log:
            now = self.route(row['prompt'])
            again.append({**row, 'before': row['choice'], 'choice': now.choice, 'confidence': now.confidence})
        return again

    def _by_fit(self, log: list[Values], fit: int) -> list[Values]:
        limits = self.explain(log[0]['prompt'])[1] if log else {}
        line = [suite.program('moe_router', 'replay_routes'), '-', self.fit(fit)['artifact_path']]
        for option, name in (('threshold', 'confidence_threshold'), ('margin', 'margin'),
                             ('fallback', 'fallback_expert')):
            if name in limits:
                line += [f'--{option}', str(limits[name])]
        done = subprocess.run(line, input='\n'.join(map(json.dumps, log)), capture_output=True, text=True)
        if done.returncode:
            raise InvalidRequest(done.stderr.strip().splitlines()[-1])
        return [json.loads(row) for row in done.stdout.splitlines()]

    def correct(self, request_id: str, expert: str) -> None:
        """Say which expert should have answered."""
        self._transport.call('router.correct', {'request_id': request_id, 'expert': expert, 'actor': ACTOR})

    def retrain(self, force: bool = False, timeout: float = DAY_S) -> Iterator[Event]:
        """Fit the router anew; yields progress and the result."""
        return self._transport.stream('router.retrain', {'force': force}, timeout)
