"""Outcomes of requests and what callers said of them; written in batches, each request once."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from moe_experts.registry.entities import Outcome
from moe_experts.registry.errors import RegistryError
from moe_experts.registry.tables import AbTestRow, AbUnitRow, OutcomeRow
from moe_experts.registry.transactions import Transactions

ACTOR = 'outcomes'
_COLUMNS = {'request_id': 'text', 'session': 'text', 'expert': 'text', 'version': 'integer', 'ab_test_id': 'integer',
            'success': 'boolean', 'error_code': 'integer', 'finish_reason': 'text', 'latency_s': 'double precision',
            'first_token_s': 'double precision', 'completion_tokens': 'integer', 'stamp': 'timestamptz'}
# arrays instead of a row of parameters each: parsed once, whatever the size of the batch
_INSERT = text(
    f'INSERT INTO outcomes ({", ".join(_COLUMNS)}) SELECT '
    + ', '.join('coalesce(stamp, now())' if name == 'stamp' else name for name in _COLUMNS) + ' FROM unnest('
    + ', '.join(f'CAST(:{name} AS {kind}[])' for name, kind in _COLUMNS.items())
    + f') AS t ({", ".join(_COLUMNS)}) ON CONFLICT DO NOTHING RETURNING request_id')


class Outcomes:
    """Operations on outcomes."""

    def __init__(self, transactions: Transactions) -> None:
        self._begin = transactions.begin

    def record(self, outcomes: Sequence[Outcome]) -> int:
        """Write outcomes; a request_id that is known is not written again. Returns how many were new."""
        if not outcomes:
            return 0
        if any(not outcome.request_id or '\0' in outcome.request_id + outcome.session for outcome in outcomes):
            raise RegistryError('An outcome has no request_id, or one with a NUL character.')
        with self._begin(ACTOR) as session:
            new = set(session.scalars(_INSERT, {
                name: [getattr(outcome, name) for outcome in outcomes] for name in _COLUMNS}))
            self._count(session, [outcome for outcome in outcomes if outcome.ab_test_id and outcome.request_id in new])
            return len(new)

    @staticmethod
    def _count(session: Session, outcomes: Sequence[Outcome]) -> None:
        """A unit's first outcome is what counts in its test."""
        if not outcomes:
            return
        treatments = {row.id: row.treatment for row in session.scalars(select(AbTestRow).where(
            AbTestRow.id.in_({outcome.ab_test_id for outcome in outcomes}), AbTestRow.status == 'running'))}
        first = {(outcome.ab_test_id, outcome.session or outcome.request_id): outcome
                 for outcome in reversed(outcomes) if outcome.ab_test_id in treatments}
        if not first:
            return
        statement = insert(AbUnitRow).values([
            {'ab_test_id': test, 'unit': unit, 'treated': outcome.expert == treatments[test],
             'success': outcome.success, 'latency_s': outcome.latency_s}
            for (test, unit), outcome in sorted(first.items(), key=lambda item: item[0])])
        session.execute(statement.on_conflict_do_update(
            index_elements=['ab_test_id', 'unit'], where=AbUnitRow.success.is_(None),
            set_={'success': statement.excluded.success, 'latency_s': statement.excluded.latency_s}))

    def rate(self, request_id: str, score: float, comment: str) -> None:
        """Note what a caller thought of an answer, -1..1; the last word stands, in an A/B test the first.

        Raises RegistryError (score, unknown request).
        """
        if not -1.0 <= score <= 1.0:
            raise RegistryError(f'score {score:g} must be -1..1.')
        with self._begin(ACTOR) as session:
            row = session.scalar(select(OutcomeRow).where(OutcomeRow.request_id == request_id).with_for_update())
            if row is None:
                raise RegistryError(f'No outcome of request {request_id} is recorded; ask again in a moment or look '
                                    'at its id.')
            row.score, row.comment = score, comment.replace('\0', '')
            if row.ab_test_id:
                session.execute(update(AbUnitRow).where(
                    AbUnitRow.ab_test_id == row.ab_test_id, AbUnitRow.unit == (row.session or request_id),
                    AbUnitRow.liked.is_(None)).values(liked=score > 0.0))
