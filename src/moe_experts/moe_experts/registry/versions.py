"""Versions and aliases: files registered, what is served moved, each in one transaction with its events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, func, select, text, update
from sqlalchemy.orm import Session

from moe_experts.registry.artifacts import keep
from moe_experts.registry.entities import Expert, Version
from moe_experts.registry.errors import CreationFailed, ExpertNotFound, ExpertNotReady, RegistryError, StaleVersion
from moe_experts.registry.experts import ALIASES, BY, LIVING, NAME, by
from moe_experts.registry.notes import hand_on
from moe_experts.registry.tables import NOW, AbTestRow, AliasRow, ExpertRow, VersionRow
from moe_experts.registry.transactions import Transactions, find

SIZES = ('tiny', 'small', 'medium', 'large')
ARTIFACT_LOCK = 0x61727466  # "artf": shared while a file is registered, exclusive while orphans are removed
_COPIED = ('kind', 'backend', 'artifact_path', 'sha256', 'size_bytes', 'quantization', 'base', 'base_path',
           'base_sha256', 'parameter_count', 'lora_scale', 'metrics', 'dataset_digest', 'job_id')
_WIDTH = len(Expert.columns())
_EXPERTS, _VERSION, _ALIAS = ExpertRow.__table__, VersionRow.__table__, AliasRow.__table__
_OWN = _VERSION.c.expert_id == _EXPERTS.c.id
_BOTH = select(*Expert.columns(), ALIASES, *Version.columns()).where(LIVING)


def _joined(*on: Any) -> Select[Any]:
    """Select an expert with those of its versions that fit; without one it comes alone."""
    return _BOTH.select_from(_EXPERTS.outerjoin(_VERSION, and_(_OWN, *on)))


_ALL = {key: _joined().where(same).order_by(_VERSION.c.number.desc()) for key, same in BY.items()}
_NUMBERED = _joined(_VERSION.c.number == bindparam('wanted')).where(BY['name'])
_POINTED = _joined(_VERSION.c.number == select(_ALIAS.c.version).where(
    _ALIAS.c.expert_id == _EXPERTS.c.id, _ALIAS.c.name == bindparam('wanted')).scalar_subquery()).where(BY['name'])


class Versions:
    """Operations on versions and the aliases that point at them.

    Args:
        artifacts: folder that holds every version's file.
    """

    def __init__(self, transactions: Transactions, artifacts: Path) -> None:
        self._begin = transactions.begin
        self._rows = transactions.rows
        self._artifacts = artifacts.resolve()

    def register(self, expert: str, version: Version, alias: str, actor: str, reason: str = '') -> Version:
        """Keep a version's file and record it; with an alias, serve it in the same transaction.

        Raises ExpertNotFound, CreationFailed, DigestMismatch, RegistryError (alias).
        """
        with self._begin(actor, reason) as session:
            return self.register_within(session, expert, version, alias)

    def register_within(self, session: Session, expert: str, version: Version, alias: str) -> Version:
        """Register inside a transaction that has begun."""
        if alias:
            _check_alias(alias)
        find(session, 0, expert)
        session.execute(text('SELECT pg_advisory_xact_lock_shared(:key)'), {'key': ARTIFACT_LOCK})
        found = keep(Path(version.artifact_path), self._artifacts / expert, version.sha256)
        if found.kind == 'adapter' and not version.base_path:
            raise CreationFailed(f'{version.artifact_path} is an adapter; name the base that it is served on.')
        row = find(session, 0, expert, lock=True)
        record = self._add(
            session, row, kind=found.kind, backend=found.backend,
            artifact_path=str(found.path.relative_to(self._artifacts)), sha256=found.sha256,
            size_bytes=found.size_bytes, quantization=found.quantization, base=version.base,
            base_path=version.base_path, base_sha256=version.base_sha256, parameter_count=found.parameter_count,
            lora_scale=version.lora_scale, metrics=version.metrics, parent_version=version.parent_version,
            dataset_digest=version.dataset_digest, job_id=version.job_id)
        if alias:
            _point(session, row, alias, record.number)
        return self._entity(record, expert)

    def resize(self, expert_id: int, name: str, size: str, actor: str, reason: str = '') -> Version:
        """Record a version with the architecture of that size and no weights yet; its base is the size's name.

        It is marked by the metric needs_training and no alias may point at it. Raises ExpertNotFound, RegistryError.
        """
        with self._begin(actor, reason or f'size {size}') as session:
            return self.resize_within(session, find(session, expert_id, name, lock=True), size)

    def resize_within(self, session: Session, row: ExpertRow, size: str) -> Version:
        """Resize a locked expert inside a transaction that has begun."""
        if size not in SIZES:
            raise RegistryError(f'There is no size "{size}"; there are {", ".join(SIZES)}.')
        champion = next((alias.version for alias in row.aliases if alias.name == 'champion'), 0)
        record = self._add(
            session, row, kind='model', backend='transformers', artifact_path='', sha256='', size_bytes=0,
            quantization='', base=size, parameter_count=0, metrics={'needs_training': 1.0}, parent_version=champion)
        return self._entity(record, row.name)

    def all_of(self, expert_id: int = 0, name: str = '') -> tuple[Expert, list[Version]]:
        """Get an expert with its versions, newest first; raises ExpertNotFound."""
        key, values = by(expert_id, name)
        rows = self._rows(_ALL[key], values)
        if not rows:
            raise ExpertNotFound(expert_id, name)
        found = [self._entities(row) for row in rows]
        return found[0][0], [version for _expert, version in found if version is not None]

    def _entities(self, row: Row[Any]) -> tuple[Expert, Version | None]:
        """What Expert.columns(), aliases and Version.columns() selected; an outer join may bring no version."""
        expert = Expert.of_columns(row[:_WIDTH], row[_WIDTH])
        return expert, Version.of_columns(row[_WIDTH + 1:], self._artifacts) if row[-1] is not None else None

    def get(self, expert: str, number: int = 0, alias: str = 'champion') -> tuple[Version, Expert]:
        """Get a version by number or alias; raises ExpertNotFound or ExpertNotReady."""
        rows = self._rows(_NUMBERED if number else _POINTED, {'key': expert, 'wanted': number or alias})
        if not rows:
            raise ExpertNotFound(0, expert)
        entity, version = self._entities(rows[0])
        if version is None:
            what = f'version {number}' if number else f'{alias}; train it'
            raise ExpertNotReady(f'Expert {expert} has no {what}.')
        return version, entity

    def set_alias(self, expert: str, alias: str, number: int, expected: int = -1, actor: str = 'unknown',
                  reason: str = '') -> tuple[Expert, int]:
        """Move or (number 0) remove an alias; returns the expert and the number it pointed at before.

        Raises ExpertNotFound, ExpertNotReady (no such version) or StaleVersion.
        """
        _check_alias(alias)
        with self._begin(actor, reason) as session:
            row = find(session, 0, expert, lock=True)
            current = next((other for other in row.aliases if other.name == alias), None)
            before = current.version if current else 0
            if expected not in (-1, before):
                raise StaleVersion(f'{alias} of {expert} points at version {before}, not {expected}; read it again.')
            if number:
                _point(session, row, alias, number)
            elif alias == 'champion':
                raise RegistryError('champion cannot be removed; point it at another version.')
            elif current is not None:
                row.aliases.remove(current)
            session.flush()
            session.refresh(row)
            return Expert.of(row), before

    def rollback(self, expert: str, actor: str, reason: str = '') -> tuple[Expert, int, int]:
        """Point champion back at what it was before; returns the expert, the new and the former number."""
        with self._begin(actor, reason or 'rollback') as session:
            row = find(session, 0, expert, lock=True)
            champion = next((other for other in row.aliases if other.name == 'champion'), None)
            if champion is None or not champion.previous_version:
                raise ExpertNotReady(f'Expert {expert} has no former champion to go back to.')
            target = champion.previous_version
            before = _point(session, row, 'champion', target)
            session.refresh(row)
            return Expert.of(row), target, before

    def promote(self, expert: str, actor: str, reason: str = '') -> tuple[Expert, int, int]:
        """Serve a candidate's champion under its base expert, or an expert's challenger as its champion.

        A candidate is disabled afterwards, its base reads its notes as well, and its running A/B test ends as promoted.
        Returns the expert that is served, the number that is and the one that was. Raises ExpertNotFound,
        ExpertNotReady.
        """
        with self._begin(actor, reason) as session:
            return self.promote_within(session, expert)

    @staticmethod
    def promote_within(session: Session, expert: str) -> tuple[Expert, int, int]:
        """Promote inside a transaction that has begun."""
        base_name = find(session, 0, expert).base_expert
        target = find(session, 0, base_name or expert, lock=True)  # the base first: always the same order
        if not base_name:
            number = next((alias.version for alias in target.aliases if alias.name == 'challenger'), 0)
            if not number:
                raise ExpertNotReady(f'Expert {expert} is no candidate and has no challenger to promote.')
            before = _point(session, target, 'champion', number)
            target.aliases.remove(next(alias for alias in target.aliases if alias.name == 'challenger'))
        else:
            candidate = find(session, 0, expert, lock=True)
            served = session.scalar(select(VersionRow).join(AliasRow, (AliasRow.expert_id == VersionRow.expert_id) & (
                AliasRow.version == VersionRow.number)).where(
                VersionRow.expert_id == candidate.id, AliasRow.name == 'champion'))
            if served is None:
                raise ExpertNotReady(f'Candidate {expert} has no champion; train it.')
            if candidate.status == 'disabled':
                raise ExpertNotReady(f'Candidate {expert} is disabled; enable it before it is promoted.')
            before = next((alias.version for alias in target.aliases if alias.name == 'champion'), 0)
            number = Versions._add(session, target, parent_version=before,
                                   **{name: getattr(served, name) for name in _COPIED}).number
            _point(session, target, 'champion', number)
            hand_on(session, candidate.id, target.id)
            candidate.status = 'disabled'
            session.execute(update(AbTestRow).where(
                AbTestRow.treatment == expert, AbTestRow.status == 'running').values(
                status='promoted', finished_at=NOW))
        session.flush()
        session.refresh(target)
        return Expert.of(target), number, before

    @staticmethod
    def _add(session: Session, row: ExpertRow, **values: object) -> VersionRow:
        """Add the next version of a locked expert."""
        last = session.scalar(select(func.max(VersionRow.number)).where(VersionRow.expert_id == row.id)) or 0
        record = VersionRow(expert_id=row.id, number=last + 1, **values)
        session.add(record)
        session.flush()
        session.refresh(record)
        return record

    def _entity(self, record: VersionRow, expert: str) -> Version:
        return Version.of(record, expert, self._artifacts)


def _check_alias(alias: str) -> None:
    if not NAME.fullmatch(alias):
        raise RegistryError(f'"{alias}" is no name for an alias: use a-z, 0-9, _ and -, a letter first.')


def _point(session: Session, row: ExpertRow, alias: str, number: int) -> int:
    """Move an alias of a locked expert; returns where it pointed. Raises ExpertNotReady."""
    found = session.scalar(select(VersionRow).where(VersionRow.expert_id == row.id, VersionRow.number == number))
    if found is None:
        raise ExpertNotReady(f'Expert {row.name} has no version {number}.')
    if not found.sha256:
        raise ExpertNotReady(f'Version {number} of expert {row.name} has no weights yet; train it.')
    current = next((other for other in row.aliases if other.name == alias), None)
    before = current.version if current else 0
    if current is None:
        row.aliases.append(AliasRow(name=alias, version=number))
    elif before != number:
        current.previous_version, current.version = before, number
    if alias == 'champion' and row.status in ('creating', 'training', 'failed'):
        row.status = 'ready'
    row.updated_at = NOW
    session.flush()
    return before
