"""Experts: created, listed, changed with a check of what was read, deleted."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, delete, exists, func, or_, select
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from moe_experts.registry.entities import Expert
from moe_experts.registry.errors import (
    CreationFailed,
    ExpertNotFound,
    NameTaken,
    RegistryError,
    StaleVersion,
)
from moe_experts.registry.tables import (
    NOW,
    AbTestRow,
    AliasRow,
    ExpertRow,
    ExpertTallyRow,
    NoteRow,
    OutcomeRow,
    TrainingJobRow,
    VersionRow,
)
from moe_experts.registry.transactions import Transactions, check_page, constraint, find

NAME = re.compile(r'[a-z][a-z0-9_-]{0,62}')
STATUSES = ('creating', 'ready', 'training', 'disabled', 'failed')
_SORTS = ('name', 'id', 'domain', 'status', 'updated_at')
_DEFINITION = ('name', 'domain', 'category', 'description', 'fallback', 'routable', 'base_expert', 'system_prompt',
               'output_schema', 'sampling', 'max_tokens', 'max_seq_len', 'priority')
_RANGES = {'max_tokens': (1, 1_000_000), 'max_seq_len': (16, 1_000_000), 'priority': (0, 100)}
_LONGEST = {'domain': 63, 'category': 63}
# Statements that only read are made once and find no objects of the mapper: both cost as much as the rest of an answer.
_EXPERT = ExpertRow.__table__
_TALLY = ExpertTallyRow.__table__
_ALIAS = AliasRow.__table__
ALIASES = select(func.json_object_agg(_ALIAS.c.name, _ALIAS.c.version)).where(
    _ALIAS.c.expert_id == _EXPERT.c.id).scalar_subquery()
LIVING = _EXPERT.c.deleted_at.is_(None)
BY = {'id': _EXPERT.c.id == bindparam('key'), 'name': _EXPERT.c.name == bindparam('key')}
_FIND = {key: select(*Expert.columns(), ALIASES).where(LIVING, same) for key, same in BY.items()}


def by(expert_id: int, name: str) -> tuple[str, dict[str, Any]]:
    """Which of BY names an expert, by id or (id 0) name, and its parameter."""
    return ('id', {'key': expert_id}) if expert_id else ('name', {'key': name})


@cache
def _count_statement(filters: tuple[str, ...]) -> Select[Any]:
    """Select how many experts fit; filters are equal to parameters of their name."""
    return select(func.coalesce(func.sum(_TALLY.c.n), 0)).where(*(
        _TALLY.c[name] == bindparam(name) for name in filters))


@cache
def _page_statement(sort: str, filters: tuple[str, ...]) -> Select[Any]:
    """Select Expert.columns(), aliases and the count of all that fit."""
    column, reverse = sort.removeprefix('-'), sort.startswith('-')
    order = [_EXPERT.c[column]] + ([_EXPERT.c.name] if column in ('domain', 'status') else [])
    total = _count_statement(filters).scalar_subquery().label('total')
    return select(*Expert.columns(), ALIASES, total).where(
        LIVING, *(_EXPERT.c[name] == bindparam(name) for name in filters)).order_by(
        *(each.desc() for each in order) if reverse else order).offset(bindparam('skip')).limit(bindparam('most'))


class Experts:
    """Operations on experts."""

    def __init__(self, transactions: Transactions) -> None:
        self._begin = transactions.begin
        self._read, self._rows = transactions.read, transactions.rows

    def create(self, definition: dict[str, Any], actor: str, reason: str = '') -> Expert:
        """Create an expert from the fields of moe_interfaces/Expert.

        One with a base_expert is a candidate: it takes over what it does not define and is never routed to.

        Raises NameTaken, CreationFailed, ExpertNotFound (base_expert).
        """
        with self._begin(actor, reason) as session:
            return Expert.of(self.create_within(session, definition))

    @classmethod
    def create_within(cls, session: Session, definition: dict[str, Any]) -> ExpertRow:
        """Create an expert inside a transaction that has begun."""
        fields = {key: value for key, value in definition.items() if key in _DEFINITION}
        name = fields.get('name', '')
        if not NAME.fullmatch(name):
            raise CreationFailed(f'"{name}" is no name for an expert: use a-z, 0-9, _ and -, a letter first.')
        if fields.get('base_expert'):
            cls._inherit(session, fields)
        _check(name, fields)
        row = ExpertRow(status='creating', aliases=[], **fields)
        try:
            session.add(row)
            session.flush()
        except IntegrityError as error:
            raise _refused(error, name) from None
        session.refresh(row)
        return row

    @staticmethod
    def _inherit(session: Session, fields: dict[str, Any]) -> None:
        base = find(session, 0, fields['base_expert'])
        if base.base_expert:
            raise CreationFailed(f'{base.name} is itself a candidate of {base.base_expert}; name that one as base.')
        for key in ('domain', 'category', 'description', 'system_prompt', 'output_schema', 'sampling'):
            fields[key] = fields.get(key) or getattr(base, key)
        fields['routable'] = fields['fallback'] = False

    def get(self, expert_id: int = 0, name: str = '') -> Expert:
        """Get an expert; raises ExpertNotFound."""
        key, values = by(expert_id, name)
        rows = self._rows(_FIND[key], values)
        if not rows:
            raise ExpertNotFound(expert_id, name)
        return Expert.of_columns(rows[0][:-1], rows[0][-1])

    def page(self, domain: str = '', category: str = '', status: str = '', sort: str = 'name', offset: int = 0,
             limit: int = 100) -> tuple[list[Expert], int]:
        """List experts; returns one page and the count without paging."""
        if sort.removeprefix('-') not in _SORTS:
            raise RegistryError(f'Cannot sort by "{sort.removeprefix("-")}"; there are {", ".join(_SORTS)}.')
        if status and status not in STATUSES:
            raise RegistryError(f'There is no status "{status}"; there are {", ".join(STATUSES)}.')
        check_page(offset, limit)
        asked = {'domain': domain, 'category': category, 'status': status}
        wanted = {name: value for name, value in asked.items() if value}
        rows = self._rows(_page_statement(sort, tuple(wanted)), {**wanted, 'skip': offset, 'most': limit})
        total = rows[0].total if rows else self._rows(_count_statement(tuple(wanted)), wanted)[0][0]
        return [Expert.of_columns(row[:-2], row[-2]) for row in rows], int(total)

    def update(self, expert_id: int, name: str, row_version: int, fields: dict[str, Any], actor: str,
               reason: str = '') -> Expert:
        """Write fields of an expert as long as nobody changed it since row_version was read (0 = do not check).

        Raises ExpertNotFound, StaleVersion, RegistryError (a field or value that cannot be), NameTaken (fallback).
        """
        unknown = set(fields) - {*_DEFINITION, 'status'} | set(fields) & {'name', 'base_expert'}
        if unknown:
            raise RegistryError(f'{", ".join(sorted(unknown))} of an expert cannot be changed.')
        if not fields:
            raise RegistryError('Nothing is to be changed; name the fields.')
        try:
            with self._begin(actor, reason) as session:
                row = find(session, expert_id, name, lock=True)
                if row_version not in (0, row.row_version):
                    raise StaleVersion(f'Expert {row.name} changed since it was read (row version {row.row_version}, '
                                       f'not {row_version}); read it again.')
                _check(row.name, {'domain': row.domain, **fields})
                if fields.get('status') == 'ready' and 'champion' not in {alias.name for alias in row.aliases}:
                    raise RegistryError(f'Expert {row.name} has no champion and cannot be ready; train it.')
                if row.base_expert and fields.get('routable'):
                    raise RegistryError(f'{row.name} is a candidate of {row.base_expert} and is never routed to; '
                                        'promote it.')
                for key, value in fields.items():
                    setattr(row, key, value)
                session.flush()
                session.refresh(row)
                return Expert.of(row)
        except IntegrityError as error:
            raise _refused(error, name) from None
        except StatementError as error:
            raise RegistryError(f'A field of the expert has a value of the wrong kind: {error.orig}') from None

    def delete(self, expert_id: int, name: str, hard: bool, actor: str, reason: str = '') -> None:
        """Hide an expert, or remove its rows for good where nothing else refers to them; id and log stay.

        Raises ExpertNotFound, RegistryError (the fallback; something refers to it).
        """
        with self._begin(actor, reason) as session:
            row = self._deletable(session, expert_id, name) if hard else find(session, expert_id, name, lock=True)
            if row.fallback and row.deleted_at is None:
                raise RegistryError(f'{row.name} is the fallback expert; make another one the fallback first.')
            running = session.scalar(select(AbTestRow.id).where(
                AbTestRow.status == 'running', or_(AbTestRow.control == row.name, AbTestRow.treatment == row.name)))
            if running and row.deleted_at is None:
                raise RegistryError(f'{row.name} takes part in A/B test {running}; stop that first.')
            if not hard:
                row.deleted_at = NOW
                row.status = 'disabled'
                return
            session.delete(row)  # takes the aliases along
            session.flush()

    @staticmethod
    def _deletable(session: Session, expert_id: int, name: str) -> ExpertRow:
        """The row, also of a softly deleted expert, its versions already gone; raises where something refers to it."""
        wanted = ExpertRow.id == expert_id if expert_id else ExpertRow.name == name
        row = session.scalar(select(ExpertRow).where(wanted).order_by(ExpertRow.deleted_at.desc().nulls_first())
                             .limit(1).with_for_update())
        if row is None:
            raise ExpertNotFound(expert_id, name)
        users = {'training jobs': exists().where(TrainingJobRow.expert_id == row.id),
                 'notes': exists().where(NoteRow.expert_id == row.id),
                 'A/B tests': exists().where(or_(AbTestRow.control == row.name, AbTestRow.treatment == row.name)),
                 'candidates': exists().where(ExpertRow.base_expert == row.name, ExpertRow.id != row.id),
                 'outcomes': exists().where(OutcomeRow.expert == row.name)}
        found = [what for what, condition in users.items() if session.scalar(select(condition))]
        if found:
            raise RegistryError(f'{", ".join(found)} refer to expert {row.name}; delete it without --hard.')
        row.aliases.clear()
        session.flush()
        session.execute(delete(VersionRow).where(VersionRow.expert_id == row.id))
        return row


def _check(name: str, fields: dict[str, Any]) -> None:
    """Raise CreationFailed for a definition that can never work."""
    if not str(fields.get('domain', '')).strip():
        raise CreationFailed(f'Expert {name} has no domain; name what it is good in.')
    if fields.get('status') is not None and fields['status'] not in STATUSES:
        raise CreationFailed(f'There is no status "{fields["status"]}"; there are {", ".join(STATUSES)}.')
    for key, most in _LONGEST.items():
        if len(fields.get(key, '')) > most:
            raise CreationFailed(f'{key} of expert {name} is longer than {most} characters.')
    for key, (least, most) in _RANGES.items():
        if not least <= fields.get(key, least) <= most:
            raise CreationFailed(f'{key} of expert {name} must be {least}..{most}, not {fields[key]}.')
    if any('\0' in value for value in fields.values() if isinstance(value, str)):
        raise CreationFailed(f'A text of expert {name} contains a NUL character.')
    if schema := fields.get('output_schema'):
        try:
            if not isinstance(json.loads(schema), dict | bool):
                raise ValueError('it is no object')
        except ValueError as error:
            raise CreationFailed(f'output_schema of expert {name} is no JSON Schema: {error}.') from None


def _refused(error: IntegrityError, name: str) -> RegistryError:
    if constraint(error) == 'idx_experts_fallback':
        return NameTaken('Another expert is the fallback already; take that from it first.')
    return NameTaken(f'An expert named {name} exists already; choose another name.')
