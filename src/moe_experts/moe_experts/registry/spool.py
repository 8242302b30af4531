"""Writes that must not be lost: sent at once, or by way of the outbox while the database is away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from moe_experts.registry.entities import Job, Outcome, Route
from moe_experts.registry.outbox import Outbox
from moe_experts.registry.registry import Registry


class Spool:
    """Outcomes, decisions, feedback and the progress of jobs; each can be written twice and counts once.

    Args:
        registry: returns the registry, or raises DatabaseUnavailable while there is none yet.
    """

    def __init__(self, registry: Callable[[], Registry], outbox: Outbox) -> None:
        self._registry = registry
        self._outbox = outbox
        self._senders: dict[str, Callable[[Any], Any]] = {
            'outcomes': lambda rows: self._registry().outcomes.record([Outcome(**_dated(row)) for row in rows]),
            'routes': lambda rows: self._registry().routes.record([Route(**_dated(row)) for row in rows], 'router'),
            'feedback': lambda values: self._registry().outcomes.rate(*values),
            'job': lambda values: self._registry().jobs.update(*values)}

    @property
    def waiting_bytes(self) -> int:
        """What waits in the outbox [bytes]."""
        return len(self._outbox)

    def record_outcomes(self, outcomes: Sequence[Outcome]) -> int:
        """Write outcomes; returns how many were new, or all where they are kept for later."""
        return self._rows('outcomes', outcomes)

    def record_routes(self, routes: Sequence[Route]) -> int:
        """Write decisions; returns how many were new, or all where they are kept for later."""
        return self._rows('routes', routes)

    def rate(self, request_id: str, score: float, comment: str) -> None:
        """Write feedback."""
        self._write('feedback', [request_id, score, comment])

    def update_job(self, job_id: int, status: str, detail: dict[str, Any]) -> Job | None:
        """Write a job's progress; returns it as stored, None where it is kept for later."""
        job: Job | None = self._write('job', [job_id, status, detail])
        return job

    def _rows(self, kind: str, entities: Sequence[Outcome | Route]) -> int:
        now = datetime.now(UTC)
        rows = []
        for entity in entities:
            row = asdict(entity)
            row['stamp'] = (entity.stamp or now).isoformat()
            rows.append(row)
        written: int | None = self._write(kind, rows)
        return len(rows) if written is None else written

    def _write(self, kind: str, content: Any) -> Any:
        return self._outbox.write(kind, content, lambda: self._senders[kind](content))

    def drain(self, tell: Callable[[str], None]) -> int:
        """Send what waits; returns how much went. Raises DatabaseUnavailable."""
        return self._outbox.drain(self._senders, tell) if self.waiting_bytes else 0


def _dated(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, 'stamp': datetime.fromisoformat(row['stamp'])}
