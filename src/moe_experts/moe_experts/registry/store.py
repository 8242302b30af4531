"""The registry's rules: what may become of experts, versions and aliases, each in one transaction with its event."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from moe_experts.registry.artifacts import inspect, keep
from moe_experts.registry.database import Database
from moe_experts.registry.entities import Event, Expert, Job, Sample, Version
from moe_experts.registry.errors import (
    CreationFailed,
    DatabaseUnavailable,
    ExpertNotFound,
    ExpertNotReady,
    NameTaken,
    RegistryError,
    StaleVersion,
)
from moe_experts.registry.tables import AliasRow, EventRow, ExpertRow, RouteSampleRow, TrainingJobRow, VersionRow

NAME = re.compile(r'[a-z][a-z0-9_-]{0,62}')
CHANNEL = 'moe_events'
_SORTS = ('name', 'id', 'domain', 'status', 'updated_at')
_DEFINITION = ('name', 'domain', 'category', 'description', 'fallback', 'routable', 'base_expert', 'system_prompt',
               'output_schema', 'sampling', 'max_tokens', 'max_seq_len', 'priority')
_EVENT_LOCK = 0x65766E74  # "evnt": commits of events are in the order of their sequence
_SAMPLE_ROWS = 2000  # per INSERT; Postgres takes 65,535 parameters


class Store:
    """All operations on the registry.

    Args:
        database: an open database.
        artifacts: folder that holds every version's file.
    """

    def __init__(self, database: Database, artifacts: Path) -> None:
        self._database = database
        self._artifacts = artifacts

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        try:
            with Session(self._database.engine, expire_on_commit=False) as session, session.begin():
                yield session
        except (OperationalError, InterfaceError) as error:
            cause = str(error.orig).strip().splitlines()
            raise DatabaseUnavailable(f'The database does not answer: {(cause or ["no reason given"])[0]}') from error

    @staticmethod
    def _log(session: Session, kind: str, expert: ExpertRow | None = None, **detail: Any) -> None:
        session.execute(text('SELECT pg_advisory_xact_lock(:key)'), {'key': _EVENT_LOCK})
        row = EventRow(kind=kind, expert_id=expert.id if expert else 0, expert=expert.name if expert else '', **detail)
        session.add(row)
        session.flush()
        session.execute(text('SELECT pg_notify(:channel, :sequence)'),
                        {'channel': CHANNEL, 'sequence': str(row.sequence)})

    @staticmethod
    def _find(session: Session, expert_id: int, name: str, *, lock: bool = False) -> ExpertRow:
        query = select(ExpertRow).where(ExpertRow.id == expert_id if expert_id else ExpertRow.name == name)
        row = session.scalar(query.with_for_update() if lock else query)
        if row is None:
            raise ExpertNotFound(expert_id, name)
        return row

    def create(self, definition: dict[str, Any], actor: str, reason: str = '') -> Expert:
        """Create an expert from the fields of moe_interfaces/Expert; raises NameTaken or CreationFailed."""
        fields = {key: value for key, value in definition.items() if key in _DEFINITION}
        name, domain = fields.get('name', ''), fields.get('domain', '')
        if not NAME.fullmatch(name):
            raise CreationFailed(f'"{name}" is no name for an expert: use a-z, 0-9, _ and -, a letter first.')
        if not domain:
            raise CreationFailed(f'Expert {name} has no domain; name what it is good in.')
        try:
            with self._transaction() as session:
                row = ExpertRow(status='creating', **fields)
                session.add(row)
                session.flush()
                self._log(session, 'expert_created', row, actor=actor, reason=reason)
                session.refresh(row)
                return Expert.of(row)
        except IntegrityError:
            raise NameTaken(f'An expert named {name} exists already; choose another name.') from None

    def get(self, expert_id: int = 0, name: str = '') -> tuple[Expert, list[Version]]:
        """Get an expert with its versions, newest first; raises ExpertNotFound."""
        with self._transaction() as session:
            row = self._find(session, expert_id, name)
            return Expert.of(row), [Version.of(version, row.name) for version in reversed(row.versions)]

    def list_experts(self, domain: str = '', category: str = '', status: str = '', sort: str = 'name', offset: int = 0,
             limit: int = 100) -> tuple[list[Expert], int]:
        """List experts; returns one page and the count without paging."""
        column, reverse = sort.lstrip('-'), sort.startswith('-')
        if column not in _SORTS:
            raise RegistryError(f'Cannot sort by "{column}"; there are {", ".join(_SORTS)}.')
        if not 1 <= limit <= 1000 or offset < 0:
            raise RegistryError(f'limit {limit} must be 1..1000 and offset {offset} not negative.')
        query = select(ExpertRow)
        for key, value in (('domain', domain), ('category', category), ('status', status)):
            if value:
                query = query.where(getattr(ExpertRow, key) == value)
        with self._transaction() as session:
            total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
            order = getattr(ExpertRow, column)
            page = session.scalars(query.order_by(order.desc() if reverse else order).offset(offset).limit(limit))
            return [Expert.of(row) for row in page], total

    def register(self, expert: str, version: Version, alias: str, actor: str, reason: str = '') -> Version:
        """Keep a version's file and record it; with an alias, serve it in the same transaction.

        Raises ExpertNotFound, CreationFailed, DigestMismatch.
        """
        self.get(name=expert)
        source = Path(version.artifact_path)
        digest = version.sha256 or inspect(source).sha256
        found = keep(source, self._artifacts / expert / digest[:16], digest)
        with self._transaction() as session:
            row = self._find(session, 0, expert, lock=True)
            number = 1 + max((other.number for other in row.versions), default=0)
            record = VersionRow(
                expert_id=row.id, number=number, kind=found.kind, backend='llama_cpp', artifact_path=str(found.path),
                sha256=found.sha256, size_bytes=found.size_bytes, quantization=found.quantization, base=version.base,
                base_path=version.base_path, base_sha256=version.base_sha256, parameter_count=found.parameter_count,
                lora_scale=version.lora_scale, metrics=version.metrics, parent_version=version.parent_version,
                dataset_digest=version.dataset_digest, job_id=version.job_id)
            session.add(record)
            session.flush()
            self._log(session, 'version_registered', row, version=number, actor=actor, reason=reason)
            if alias:
                self._point(session, row, alias, number, actor, reason)
            session.refresh(record)
            return Version.of(record, expert)

    def version(self, expert: str, number: int = 0, alias: str = 'champion') -> tuple[Version, Expert]:
        """Get a version by number or alias; raises ExpertNotFound or ExpertNotReady."""
        entity, versions = self.get(name=expert)
        wanted = number or entity.aliases.get(alias, 0)
        for version in versions:
            if version.number == wanted:
                return version, entity
        raise ExpertNotReady(f'Expert {expert} has no ' + (f'version {number}.' if number else f'{alias}; train it.'))

    @classmethod
    def _point(cls, session: Session, row: ExpertRow, alias: str, number: int, actor: str, reason: str) -> int:
        """Move an alias of a locked expert; returns where it pointed."""
        current = next((other for other in row.aliases if other.name == alias), None)
        before = current.version if current else 0
        if current is None:
            row.aliases.append(AliasRow(name=alias, version=number))
        else:
            current.previous_version, current.version = before, number
        if alias == 'champion' and row.status in ('creating', 'training', 'failed'):
            row.status = 'ready'
        row.row_version += 1
        session.flush()
        cls._log(session, 'alias_set', row, version=number, alias=alias, actor=actor, reason=reason)
        return before

    def set_alias(self, expert: str, alias: str, number: int, expected: int = -1, actor: str = '',
                  reason: str = '') -> tuple[Expert, int]:
        """Move or (number 0) remove an alias; returns the expert and the number it pointed at before.

        Raises ExpertNotFound, ExpertNotReady (no such version) or StaleVersion.
        """
        if not NAME.fullmatch(alias):
            raise RegistryError(f'"{alias}" is no name for an alias: use a-z, 0-9, _ and -, a letter first.')
        with self._transaction() as session:
            row = self._find(session, 0, expert, lock=True)
            current = next((other for other in row.aliases if other.name == alias), None)
            before = current.version if current else 0
            if expected not in (-1, before):
                raise StaleVersion(f'{alias} of {expert} points at version {before}, not {expected}; read it again.')
            if number == 0:
                if alias == 'champion':
                    raise RegistryError('champion cannot be removed; point it at another version.')
                if current is not None:
                    row.aliases.remove(current)
                    self._log(session, 'alias_set', row, alias=alias, actor=actor, reason=reason)
            elif number not in {version.number for version in row.versions}:
                raise ExpertNotReady(f'Expert {expert} has no version {number}.')
            else:
                self._point(session, row, alias, number, actor, reason)
            session.flush()
            session.refresh(row)
            return Expert.of(row), before

    def rollback(self, expert: str, actor: str, reason: str = '') -> tuple[Expert, int, int]:
        """Point champion back at what it was before; returns the expert, the new and the former number."""
        with self._transaction() as session:
            row = self._find(session, 0, expert, lock=True)
            champion = next((other for other in row.aliases if other.name == 'champion'), None)
            if champion is None or not champion.previous_version:
                raise ExpertNotReady(f'Expert {expert} has no former champion to go back to.')
            target = champion.previous_version
            before = self._point(session, row, 'champion', target, actor, reason or 'rollback')
            session.refresh(row)
            return Expert.of(row), target, before

    def events(self, after: int = 0, expert: str = '', limit: int = 1000) -> tuple[list[Event], int]:
        """Transitions after a sequence number, oldest first, and the newest number there is."""
        query = select(EventRow).where(EventRow.sequence > after).order_by(EventRow.sequence).limit(limit)
        if expert:
            query = query.where(EventRow.expert == expert)
        with self._transaction() as session:
            last = session.scalar(select(func.max(EventRow.sequence))) or 0
            return [Event.of(row) for row in session.scalars(query)], last

    def add_samples(self, samples: Iterable[Sample], actor: str) -> int:
        """Add route samples; what is there already stays. Returns how many were new."""
        rows = [{'expert': sample.expert, 'intent': sample.intent, 'text': sample.text, 'source': sample.source}
                for sample in samples if sample.text.strip()]
        written = 0
        with self._transaction() as session:
            for start in range(0, len(rows), _SAMPLE_ROWS):
                statement = insert(RouteSampleRow).values(rows[start:start + _SAMPLE_ROWS])
                done = session.execute(statement.on_conflict_do_nothing().returning(RouteSampleRow.id))
                written += len(done.all())
            if written:
                self._log(session, 'routes_changed', actor=actor, reason=f'{written} samples')
        return written

    def samples(self, expert: str = '', offset: int = 0, limit: int = 10000) -> tuple[list[Sample], int, str]:
        """One page of samples in a fixed order, the count, and a digest over all."""
        query = select(RouteSampleRow).order_by(RouteSampleRow.id)
        if expert:
            query = query.where(RouteSampleRow.expert == expert)
        everything = select(func.md5(func.string_agg(
            func.concat_ws('|', RouteSampleRow.expert, RouteSampleRow.intent, RouteSampleRow.text), '\n')))
        with self._transaction() as session:
            total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
            digest = session.scalar(everything) or ''
            page = session.scalars(query.offset(offset).limit(limit))
            return [Sample(row.expert, row.intent, row.text, row.source) for row in page], total, digest

    def create_job(self, expert: str, detail: dict[str, Any]) -> Job:
        """Record a queued training job."""
        with self._transaction() as session:
            row = self._find(session, 0, expert)
            job = TrainingJobRow(expert_id=row.id, status='queued', detail=detail)
            session.add(job)
            session.flush()
            self._log(session, 'job_changed', row, job_id=job.id)
            session.refresh(job)
            return Job.of(job, expert)

    def update_job(self, job_id: int, status: str, detail: dict[str, Any]) -> Job:
        """Write a job's progress; a status that ended the job (also by hand) is never overwritten."""
        with self._transaction() as session:
            found = session.execute(select(TrainingJobRow, ExpertRow).join(ExpertRow).where(
                TrainingJobRow.id == job_id).with_for_update(of=TrainingJobRow)).first()
            if found is None:
                raise RegistryError(f'Training job with id={job_id} not found')
            job, expert = found
            job.heartbeat_at = func.now()
            if job.status in ('queued', 'running'):
                if status != job.status:
                    if status == 'running':
                        job.started_at = func.now()
                    else:
                        job.finished_at = func.now()
                    job.status = status
                    self._log(session, 'job_changed', expert, job_id=job.id, reason=status)
                job.detail = {**job.detail, **detail}
            session.flush()
            session.refresh(job)
            return Job.of(job, expert.name)

    def jobs(self, expert: str = '', status: str = '', job_id: int = 0, offset: int = 0,
             limit: int = 100) -> tuple[list[Job], int]:
        """Training jobs, newest first, and their count."""
        query = select(TrainingJobRow, ExpertRow.name).join(ExpertRow)
        for value, column in ((expert, ExpertRow.name), (status, TrainingJobRow.status)):
            if value:
                query = query.where(column == value)
        if job_id:
            query = query.where(TrainingJobRow.id == job_id)
        with self._transaction() as session:
            total = session.scalar(select(func.count()).select_from(
                query.with_only_columns(tuple_(TrainingJobRow.id)).subquery())) or 0
            page = session.execute(query.order_by(TrainingJobRow.id.desc()).offset(offset).limit(limit))
            return [Job.of(row, name) for row, name in page], total
