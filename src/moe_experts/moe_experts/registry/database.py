"""The connection to Postgres, its schema brought up to date, and how long statements take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import (
    ArgumentError,
    InterfaceError,
    InvalidatePoolError,
    OperationalError,
    ProgrammingError,
)

from moe_experts.registry.embedded import EmbeddedServer
from moe_experts.registry.errors import DatabaseUnavailable, RegistryError

APPLICATION = 'moe_registry'
_MIGRATION_LOCK = 0x6D6F65  # "moe": key of the advisory lock while the schema is brought up to date
_STATEMENTS = 500  # different ones that are timed
_TRUSTED_S = 1.0  # a connection used so recently is not asked first whether the server is still there


@dataclass
class Timing:
    """How often a statement ran, and how long [s]."""

    calls: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0


@dataclass(frozen=True)
class Settings:
    """How to reach Postgres.

    Args:
        url: SQLAlchemy or libpq URL; '' = embedded.
        timeout_s: of connects and statements [s].
        pool_size: connections kept open, and as many for what only reads.
    """

    url: str = ''
    timeout_s: float = 30.0
    pool_size: int = 5


class Database:
    """A connection pool on an up-to-date schema and, where no URL is given, the embedded server behind it.

    Args:
        home: MOE_HOME; the embedded server's data is home/postgres.

    Attributes:
        engine: for transactions.
        reading: for single statements that only read. Every statement sees what is committed when it begins, in a
            transaction or not; without one two trips to the server less.

    Raises DatabaseUnavailable with host, port and cause.
    """

    def __init__(self, home: Path, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        self.timings: dict[str, Timing] = {}
        self._embedded = None if settings.url else EmbeddedServer(home)
        if self._embedded:
            self._embedded.start()
        url = self._embedded.url if self._embedded else settings.url
        self.engine = self._make_engine(url, settings, pool_pre_ping=True)
        self.reading = self._make_engine(url, settings, isolation_level='AUTOCOMMIT', pool_reset_on_return=None)
        _ping_what_rested(self.reading)
        self.where = f'{self.engine.url.host or "socket"}:{self.engine.url.port or 5432}'
        try:
            migrate(self.engine)
        except (OperationalError, InterfaceError) as error:
            self.close()
            cause = str(error.orig).strip().splitlines()[0]
            raise DatabaseUnavailable(f'Postgres at {self.where} does not answer: {cause}') from error
        except (ProgrammingError, CommandError) as error:
            self.close()
            cause = str(getattr(error, 'orig', error)).strip().splitlines()[0]
            raise DatabaseUnavailable(f'The schema at {self.where} cannot be brought up to date: {cause}') from error

    def _make_engine(self, url: str, settings: Settings, **options: Any) -> Engine:
        try:
            parsed = make_url(url).set(drivername='postgresql+psycopg2')
        except ArgumentError as error:
            raise RegistryError(f'MOE_DATABASE_URL is no URL of a database: {error}') from error
        milliseconds = round(1000 * settings.timeout_s)
        engine = create_engine(
            parsed, pool_size=settings.pool_size, pool_timeout=settings.timeout_s,
            connect_args={'connect_timeout': max(1, round(settings.timeout_s)), 'application_name': APPLICATION,
                          'tcp_user_timeout': milliseconds, 'keepalives_idle': 10,
                          'options': f'-c statement_timeout={milliseconds}'}, **options)
        event.listen(engine, 'before_cursor_execute', self._begin)
        event.listen(engine, 'after_cursor_execute', self._end)
        return engine

    @staticmethod
    def _begin(connection: Connection, *_arguments: Any) -> None:
        connection.info['began'] = time.monotonic()

    def _end(self, connection: Connection, _cursor: Any, statement: str, *_arguments: Any) -> None:
        seconds = time.monotonic() - connection.info['began']
        if statement not in self.timings and len(self.timings) >= _STATEMENTS:
            return
        timing = self.timings.setdefault(statement, Timing())
        timing.calls += 1
        timing.total_s += seconds
        timing.longest_s = max(timing.longest_s, seconds)

    def revive(self) -> None:
        """Start an embedded server again that was killed; raises DatabaseUnavailable."""
        if self._embedded:
            self._embedded.start()

    def close(self) -> None:
        """Close the pool and let go of the embedded server."""
        self.engine.dispose()
        self.reading.dispose()
        if self._embedded is not None:
            self._embedded.stop()


def _ping_what_rested(engine: Engine) -> None:
    """Replace connections whose server went away while they lay in the pool; pool_pre_ping without its every trip."""
    def used(_connection: Any, record: Any, *_more: Any) -> None:
        record.info['used'] = time.monotonic()

    def check(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info['used'] < _TRUSTED_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except psycopg2.Error as error:
            raise InvalidatePoolError from error

    event.listen(engine, 'connect', used)
    event.listen(engine, 'checkin', used)
    event.listen(engine, 'checkout', check)


def migrate(engine: Engine, revision: str = 'head') -> None:
    """Bring the schema forward to a revision, in one transaction, one process at a time.

    Tables that were made before there were revisions are taken for the first one.
    """
    config = Config()
    config.set_main_option('script_location', str(Path(__file__).parent / 'migrations'))
    config.set_main_option('path_separator', 'os')
    with engine.begin() as connection:
        connection.execute(text('SELECT pg_advisory_xact_lock(:key)'), {'key': _MIGRATION_LOCK})
        connection.execute(text('SET LOCAL statement_timeout = 0'))
        known, used = connection.execute(text(
            "SELECT to_regclass('alembic_version') IS NOT NULL, to_regclass('experts') IS NOT NULL")).one()
        config.attributes['connection'] = connection
        if used and not known:
            command.stamp(config, '0001')
        command.upgrade(config, revision)
