"""A/B tests: a candidate tried on a share of its base expert's sessions, judged, and promoted or rolled back."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import case, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from moe_experts.registry.entities import AbTest
from moe_experts.registry.errors import ExpertNotReady, RegistryError
from moe_experts.registry.sequential import Arm, Verdict, judge
from moe_experts.registry.tables import NOW, AbTestRow, AbUnitRow
from moe_experts.registry.transactions import Transactions, find, sign
from moe_experts.registry.versions import Versions

ACTOR = 'ab-test'
MISSING_AFTER = timedelta(minutes=10)


class AbTests:
    """Operations on A/B tests."""

    def __init__(self, transactions: Transactions) -> None:
        self._begin = transactions.begin
        self._read = transactions.read

    def start(self, control: str, treatment: str, share: float, auto_decide: bool, actor: str) -> AbTest:
        """Start a test of a candidate against its base expert.

        Raises ExpertNotFound, ExpertNotReady, RegistryError (share, not its candidate, one of them is in a test).
        """
        if not 0.0 < share < 1.0:
            raise RegistryError(f'share {share:g} must be above 0 and below 1.')
        try:
            with self._begin(actor) as session:
                rows = [find(session, 0, name, lock=True) for name in (control, treatment)]
                if rows[1].base_expert != control:
                    raise RegistryError(f'{treatment} is no candidate of {control}; create it with --base {control}.')
                for row in rows:
                    if row.status == 'disabled' or 'champion' not in {alias.name for alias in row.aliases}:
                        raise ExpertNotReady(f'Expert {row.name} is disabled or has no champion; train it.')
                test = AbTestRow(control=control, treatment=treatment, share=share, auto_decide=auto_decide)
                session.add(test)
                session.flush()
                session.refresh(test)
                return AbTest.of(test, 0, 0, None)
        except IntegrityError:
            raise RegistryError(f'{control} or {treatment} is in a running A/B test; stop that first.') from None

    def get(self, test_id: int = 0, control: str = '') -> AbTest:
        """A test by id, or the running one of a control, judged now; raises RegistryError."""
        with self._begin(ACTOR) as session:
            row = self._find(session, test_id, control)
            return self._judge(session, row)

    def stop(self, test_id: int, actor: str, reason: str = '') -> AbTest:
        """End a running test without a decision; raises RegistryError."""
        with self._begin(actor, reason) as session:
            row = self._find(session, test_id, '')
            if row.status != 'running':
                raise RegistryError(f'A/B test {test_id} is not running; it was {row.status}.')
            judged = self._judge(session, row, decide=False)
            row.status, row.finished_at = 'stopped', NOW
            session.flush()
            session.refresh(row)
            return AbTest.of(row, judged.control_outcomes, judged.treatment_outcomes, judged.p_value)

    def decide(self) -> list[AbTest]:
        """Judge every running test and carry out what the automatic ones decide; returns those that ended."""
        with self._read() as session:
            running = session.scalars(select(AbTestRow.id).where(AbTestRow.status == 'running')).all()
        judged = [self.get(test_id) for test_id in running]
        return [test for test in judged if test.status != 'running']

    @staticmethod
    def _find(session: Session, test_id: int, control: str) -> AbTestRow:
        """The row, locked while the test runs: its experts first, as everywhere, so that nobody waits in a circle."""
        wanted = AbTestRow.id == test_id if test_id else (AbTestRow.control == control) & (
            AbTestRow.status == 'running')
        row = session.scalar(select(AbTestRow).where(wanted))
        if row is None:
            raise RegistryError(f'A/B test with id={test_id} not found' if test_id
                                else f'Expert {control} has no running A/B test.')
        if row.status == 'running':
            for name in (row.control, row.treatment):
                find(session, 0, name, lock=True)
            session.refresh(row, with_for_update=True)
        return row

    def _judge(self, session: Session, row: AbTestRow, *, decide: bool = True) -> AbTest:
        """Bring the verdict of a locked test up to date."""
        if row.status == 'running':
            session.execute(update(AbUnitRow).where(
                AbUnitRow.ab_test_id == row.id, AbUnitRow.success.is_(None),
                AbUnitRow.assigned_at < NOW - MISSING_AFTER).values(success=False))
        control, treatment = self._arms(session, row.id)
        verdict = judge(control, treatment, row.share, row.evidence)
        if row.status == 'running':
            row.evidence, row.verdict = verdict.evidence, verdict.sentence
            if decide and row.auto_decide and verdict.decision:
                self._carry_out(session, row, verdict)
            session.flush()
            session.refresh(row)
        return AbTest.of(row, control.outcomes, treatment.outcomes, verdict.p_value)

    @staticmethod
    def _arms(session: Session, test_id: int) -> tuple[Arm, Arm]:
        unit = AbUnitRow
        rows = session.execute(select(
            unit.treated, func.count(), func.count(unit.success),
            func.count(case((unit.success.is_(True), 1))),
            func.count(unit.liked), func.count(case((unit.liked.is_(True), 1))),
            func.avg(func.ln(func.nullif(unit.latency_s, 0.0)))).where(unit.ab_test_id == test_id).group_by(
            unit.treated))
        arms = {treated: Arm(*counts) for treated, *counts in rows}
        return arms.get(False, Arm()), arms.get(True, Arm())

    @staticmethod
    def _carry_out(session: Session, row: AbTestRow, verdict: Verdict) -> None:
        """Promote or disable the treatment, and end the test, in this transaction."""
        sign(session, ACTOR, verdict.sentence)
        if verdict.decision == 'promote':
            Versions.promote_within(session, row.treatment)
        else:
            find(session, 0, row.treatment, lock=True).status = 'disabled'
            row.status, row.finished_at = 'rolled_back', NOW
