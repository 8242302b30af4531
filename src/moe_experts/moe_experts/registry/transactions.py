"""Transactions: what everything that is done to the registry runs in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, Select, select, text
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from moe_experts.registry.errors import DatabaseUnavailable, ExpertNotFound, RegistryError
from moe_experts.registry.tables import ExpertRow

_REFUSALS = ('57014', '55P03')  # query_canceled (statement_timeout), lock_not_available


class Transactions:
    """Begins transactions and turns what the driver raises into errors of the registry."""

    def __init__(self, engine: Engine, reading: Engine) -> None:
        self._engine, self._reading = engine, reading

    @contextmanager
    def begin(self, actor: str, reason: str = '') -> Iterator[Session]:
        """A transaction that writes; triggers log actor and reason with every transition.

        Raises DatabaseUnavailable when the server is away or too slow. IntegrityError is the caller's to name.
        """
        with self._session(self._engine) as session, session.begin():
            sign(session, actor, reason)
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads; raises DatabaseUnavailable."""
        with self._session(self._reading) as session:
            yield session

    def rows(self, statement: Select[Any], values: Mapping[str, Any]) -> Sequence[Any]:
        """What a statement finds that was made once and only reads; raises DatabaseUnavailable.

        Half the time of a session: nothing is mapped, and the statement is not put together anew.
        """
        with self._errors(), self._reading.connect() as connection:
            return connection.execute(statement, values).all()

    @classmethod
    @contextmanager
    def _session(cls, engine: Engine) -> Iterator[Session]:
        with cls._errors(), Session(engine, expire_on_commit=False) as session:
            yield session

    @staticmethod
    @contextmanager
    def _errors() -> Iterator[None]:
        """What the driver raises becomes DatabaseUnavailable."""
        try:
            yield
        except (OperationalError, InterfaceError) as error:
            cause = (str(error.orig).strip().splitlines() or ['no reason given'])[0]
            if getattr(error.orig, 'pgcode', None) in _REFUSALS:
                raise DatabaseUnavailable(f'The database took too long: {cause}; raise database.timeout.') from error
            raise DatabaseUnavailable(f'The database does not answer: {cause}') from error
        except PoolTimeout as error:
            raise DatabaseUnavailable('Every connection is in use; raise pool_size or ask again.') from error


def sign(session: Session, actor: str, reason: str) -> None:
    """Say who does what follows in this transaction, and why; the triggers write it into the log."""
    session.execute(text("SELECT set_config('moe.actor', :actor, true), set_config('moe.reason', :reason, true)"),
                    {'actor': actor.replace('\0', ''), 'reason': reason.replace('\0', '')})


def find(session: Session, expert_id: int, name: str, *, lock: bool = False) -> ExpertRow:
    """The row of an expert that is not deleted, by id or (id 0) name; raises ExpertNotFound."""
    query = select(ExpertRow).where(ExpertRow.deleted_at.is_(None),
                                    ExpertRow.id == expert_id if expert_id else ExpertRow.name == name)
    row = session.scalar(query.with_for_update().execution_options(populate_existing=True) if lock else query)
    if row is None:
        raise ExpertNotFound(expert_id, name)
    return row


def check_page(offset: int, limit: int, most: int = 1000) -> None:
    """Raise RegistryError for a page that cannot be."""
    if not 1 <= limit <= most or offset < 0:
        raise RegistryError(f'limit {limit} must be 1..{most} and offset {offset} not negative.')


def constraint(error: IntegrityError) -> str:
    """Name of the constraint or index that was broken."""
    return str(getattr(getattr(error.orig, 'diag', None), 'constraint_name', '') or '')
