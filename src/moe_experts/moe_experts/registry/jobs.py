"""Training jobs: their progress, their step metrics, and how they end."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from moe_experts.registry.entities import Job
from moe_experts.registry.errors import RegistryError
from moe_experts.registry.tables import ExpertRow, JobMetricRow, TrainingJobRow
from moe_experts.registry.transactions import Transactions, check_page, find

STATUSES = ('queued', 'running', 'succeeded', 'failed', 'cancelled')
_METRICS = ('epoch', 'loss', 'validation_loss', 'learning_rate', 'tokens_per_second')


class Jobs:
    """Operations on training jobs."""

    def __init__(self, transactions: Transactions) -> None:
        self._begin = transactions.begin
        self._read = transactions.read

    def create(self, expert: str, detail: dict[str, Any], actor: str = 'training') -> Job:
        """Record a queued training job; raises ExpertNotFound."""
        with self._begin(actor) as session:
            row = find(session, 0, expert)
            job = TrainingJobRow(expert_id=row.id, status='queued', detail=detail)
            session.add(job)
            session.flush()
            session.refresh(job)
            return Job.of(job, expert)

    def update(self, job_id: int, status: str, detail: dict[str, Any], actor: str = 'training') -> Job:
        """Write a job's progress and its step's metrics; a status that ended the job is never overwritten.

        Raises RegistryError for an unknown job or status.
        """
        if status and status not in STATUSES:
            raise RegistryError(f'There is no status "{status}"; there are {", ".join(STATUSES)}.')
        with self._begin(actor) as session:
            found = session.execute(select(TrainingJobRow, ExpertRow.name).join(ExpertRow).where(
                TrainingJobRow.id == job_id).with_for_update(of=TrainingJobRow)).first()
            if found is None:
                raise RegistryError(f'Training job with id={job_id} not found')
            job, expert = found
            job.heartbeat_at = func.now()
            if job.status in ('queued', 'running'):
                if status not in ('', job.status):
                    self._show(session, job.expert_id, status)
                job.status = status or job.status
                job.detail = {**job.detail, **detail}
                if detail.get('step'):
                    values = {name: detail.get(name) for name in _METRICS}
                    session.execute(insert(JobMetricRow).values(
                        job_id=job_id, step=detail['step'], **values).on_conflict_do_update(
                        index_elements=['job_id', 'step'], set_=values))
            session.flush()
            session.refresh(job)
            return Job.of(job, expert)

    @staticmethod
    def _show(session: Session, expert_id: int, status: str) -> None:
        """Let an expert that has nothing to serve show how its training goes."""
        row = session.scalar(select(ExpertRow).where(ExpertRow.id == expert_id).with_for_update())
        if row is None or row.status not in ('creating', 'training', 'failed'):
            return
        row.status = {'running': 'training', 'queued': row.status, 'failed': 'failed'}.get(status, 'creating')

    def page(self, expert: str = '', status: str = '', job_id: int = 0, offset: int = 0,
             limit: int = 100) -> tuple[list[Job], int]:
        """Training jobs, newest first, and their count."""
        check_page(offset, limit)
        conditions = [condition for value, condition in (
            (status, TrainingJobRow.status == status), (job_id, TrainingJobRow.id == job_id)) if value]
        with self._read() as session:
            if expert:
                conditions.append(TrainingJobRow.expert_id.in_(select(ExpertRow.id).where(ExpertRow.name == expert)))
            total = session.scalar(select(func.count(TrainingJobRow.id)).where(*conditions)) or 0
            page = session.execute(select(TrainingJobRow, ExpertRow.name).join(ExpertRow).where(*conditions).order_by(
                TrainingJobRow.id.desc()).offset(offset).limit(limit))
            return [Job.of(row, name) for row, name in page], total
