"""What the router learns from and what it decided: samples, fits, decisions, corrections."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from moe_experts.registry.entities import Route, RouterVersion, Sample
from moe_experts.registry.errors import ExpertNotFound, RegistryError
from moe_experts.registry.tables import (
    AbTestRow,
    AbUnitRow,
    ExpertRow,
    RouteRow,
    RouterVersionRow,
    RouteSampleRow,
    RouteTallyRow,
    SampleTallyRow,
)
from moe_experts.registry.transactions import Transactions, check_page

_ADD_SAMPLES = text("""
INSERT INTO route_samples (expert, intent, text, source)
SELECT * FROM unnest(CAST(:experts AS varchar[]), CAST(:intents AS text[]), CAST(:texts AS text[]),
                     CAST(:sources AS varchar[]))
ON CONFLICT DO NOTHING RETURNING id""")


class Routes:
    """Operations for the router."""

    def __init__(self, transactions: Transactions) -> None:
        self._begin = transactions.begin
        self._read = transactions.read

    def add_samples(self, samples: Iterable[Sample], actor: str) -> int:
        """Add samples; what is there already stays. Returns how many were new."""
        rows = [sample for sample in samples if sample.text.strip() and '\0' not in sample.text]
        with self._begin(actor) as session:
            return _add_samples(session, rows)

    def samples(self, expert: str = '', offset: int = 0, limit: int = 10000) -> tuple[list[Sample], int, str]:
        """One page of samples in a fixed order, the count, and a digest that stays while the set of all does."""
        check_page(offset, limit, 10000)
        query = select(RouteSampleRow).order_by(RouteSampleRow.id)
        count = select(func.sum(SampleTallyRow.n))
        if expert:
            query = query.where(RouteSampleRow.expert == expert)
            count = count.where(SampleTallyRow.expert == expert)
        with self._read() as session:
            everything = session.execute(select(func.sum(SampleTallyRow.n), func.sum(SampleTallyRow.hashes))).one()
            digest = hashlib.sha256(f'{everything[0] or 0} {everything[1] or 0}'.encode()).hexdigest()
            page = session.scalars(query.offset(offset).limit(limit))
            return ([Sample(row.expert, row.intent, row.text, row.source) for row in page],
                    int(session.scalar(count) or 0), digest)

    def register_version(self, version: RouterVersion, actor: str) -> RouterVersion:
        """Record a fit and make it the active one; with the number of an earlier fit make that active again.

        Raises RegistryError for a number that is not there.
        """
        with self._begin(actor) as session:
            session.execute(text('LOCK TABLE router_versions IN SHARE ROW EXCLUSIVE MODE'))
            session.execute(update(RouterVersionRow).where(RouterVersionRow.active).values(active=False))
            if version.number:
                row = session.get(RouterVersionRow, version.number)
                if row is None:
                    raise RegistryError(f'There is no router version {version.number}.')
                row.active = True
            else:
                last = session.scalar(select(func.max(RouterVersionRow.number))) or 0
                values = asdict(version)
                values.update(number=last + 1, active=True)
                del values['created_at']
                row = RouterVersionRow(**values)
                session.add(row)
            session.flush()
            session.refresh(row)
            return RouterVersion.of(row)

    def version(self, number: int = 0) -> RouterVersion:
        """A fit by number; 0 = the active one. Raises RegistryError."""
        wanted = RouterVersionRow.number == number if number else RouterVersionRow.active
        with self._read() as session:
            row = session.scalar(select(RouterVersionRow).where(wanted))
            if row is None:
                raise RegistryError(f'There is no router version {number}.' if number
                                    else 'The router was not fitted yet.')
            return RouterVersion.of(row)

    def record(self, routes: Sequence[Route], actor: str) -> int:
        """Keep decisions; a request_id that is known is not written again. Returns how many were new.

        The sessions of running A/B tests among them are noted as assigned.
        """
        if not routes:
            return 0
        if any(not route.request_id for route in routes):
            raise RegistryError('A route has no request_id.')
        rows = [_row(route) for route in routes]
        with self._begin(actor) as session:
            new = set(session.scalars(insert(RouteRow).values(rows).on_conflict_do_nothing().returning(
                RouteRow.request_id)))
            self._assign(session, [row for row in rows if row['request_id'] in new and row['stage'] != 'named'])
            return len(new)

    @staticmethod
    def _assign(session: Session, rows: list[dict[str, Any]]) -> None:
        tests = session.scalars(select(AbTestRow).where(AbTestRow.status == 'running')).all()
        arms = {name: (test.id, name == test.treatment) for test in tests for name in (test.control, test.treatment)}
        units = {(arms[row['choice']][0], row['session'] or row['request_id']): arms[row['choice']][1]
                 for row in reversed(rows) if row['choice'] in arms}
        if units:
            session.execute(insert(AbUnitRow).values(
                [{'ab_test_id': test, 'unit': unit, 'treated': treated} for (test, unit), treated in sorted(
                    units.items())]).on_conflict_do_nothing())

    def page(self, expert: str = '', request_id: str = '', corrected_only: bool = False, offset: int = 0,
             limit: int = 100) -> tuple[list[Route], int]:
        """Decisions, newest first, and their count."""
        check_page(offset, limit, 10000)
        query = select(RouteRow)
        count = select(func.sum(RouteTallyRow.n))
        if expert:
            query = query.where(RouteRow.choice == expert)
            count = count.where(RouteTallyRow.choice == expert)
        if corrected_only:
            query = query.where(RouteRow.corrected != '')
            count = count.where(RouteTallyRow.corrected)
        if request_id:
            query = query.where(RouteRow.request_id == request_id)
        with self._read() as session:
            page = [Route.of(row) for row in session.scalars(
                query.order_by(RouteRow.id.desc()).offset(offset).limit(limit))]
            return page, len(page) if request_id else int(session.scalar(count) or 0)

    def correct(self, request_id: str, expert: str, actor: str) -> None:
        """Note which expert should have answered; where the prompt was kept, it becomes a sample of that expert.

        Raises RegistryError (no such decision), ExpertNotFound.
        """
        with self._begin(actor, f'correction of {request_id}') as session:
            row = session.scalar(select(RouteRow).where(RouteRow.request_id == request_id).with_for_update())
            if row is None:
                raise RegistryError(f'No decision of request {request_id} is recorded; look at the list of routes.')
            if session.scalar(select(ExpertRow.id).where(
                    ExpertRow.name == expert, ExpertRow.deleted_at.is_(None))) is None:
                raise ExpertNotFound(0, expert)
            row.corrected = expert
            session.flush()
            if row.prompt.strip():
                # a text that teaches two experts at once would teach nothing
                session.execute(delete(RouteSampleRow).where(
                    func.md5(RouteSampleRow.text) == func.md5(row.prompt), RouteSampleRow.text == row.prompt,
                    RouteSampleRow.expert != expert, RouteSampleRow.expert.in_([row.choice, *row.ranked])))
                _add_samples(session, [Sample(expert, '', row.prompt, 'correction')])


def _add_samples(session: Session, rows: Sequence[Sample]) -> int:
    if not rows:
        return 0
    done = session.execute(_ADD_SAMPLES, {
        'experts': [row.expert for row in rows], 'intents': [row.intent for row in rows],
        'texts': [row.text for row in rows], 'sources': [row.source for row in rows]})
    return len(done.all())


def _row(route: Route) -> dict[str, Any]:
    row = {name: value.replace('\0', '') if isinstance(value, str) else value for name, value in asdict(route).items()}
    if route.stamp is None:
        del row['stamp']
    return row
