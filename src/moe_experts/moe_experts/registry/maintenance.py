"""What whoever looks after the registry needs: files against rows, orphans, slow statements, locks, sessions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, text
from sqlalchemy.exc import InterfaceError, OperationalError

from moe_experts.registry.artifacts import sha256_of
from moe_experts.registry.database import APPLICATION, Database
from moe_experts.registry.errors import DatabaseUnavailable, RegistryError
from moe_experts.registry.tables import ExpertRow, VersionRow
from moe_experts.registry.versions import ARTIFACT_LOCK

_SLOW = 20  # statements that are shown
_LOCKS = """
SELECT waiting.pid, waiting.usename, waiting.application_name, holding.pid, holding.usename,
       holding.application_name, round(extract(epoch FROM now() - waiting.query_start)::numeric, 3), waiting.query
FROM pg_stat_activity waiting CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocker (pid)
JOIN pg_stat_activity holding ON holding.pid = blocker.pid ORDER BY 7 DESC"""
_SERVER_TIMINGS = """
SELECT query, calls, round(total_exec_time::numeric, 3), round(mean_exec_time::numeric, 3)
FROM pg_stat_statements ORDER BY mean_exec_time DESC LIMIT :most"""
_OTHERS = """
SELECT pid, usename, application_name, state, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> :own
AND pid <> pg_backend_pid() AND (pg_has_role(usename, 'USAGE') OR usename = current_user)"""


@dataclass(frozen=True)
class Report:
    """A table for people and programs; `ok` is whether nothing needs to be done."""

    columns: tuple[str, ...]
    rows: list[list[Any]]
    ok: bool = True

    @property
    def content(self) -> dict[str, Any]:
        """As JSON has it."""
        return {'columns': list(self.columns), 'rows': self.rows, 'ok': self.ok}


class Maintenance:
    """Operations on the database and the artifacts as a whole.

    Args:
        artifacts: folder that holds every version's file.
    """

    def __init__(self, database: Database, artifacts: Path) -> None:
        self._database = database
        self._artifacts = artifacts.resolve()
        self.operations: dict[str, Callable[[], Report]] = {
            'verify': self.verify, 'gc': self.gc, 'slow_queries': self.slow_queries, 'vacuum': self.vacuum,
            'locks': self.locks, 'disconnect': self.disconnect}

    def run(self, operation: str) -> Report:
        """Carry out an operation by name; raises RegistryError, DatabaseUnavailable."""
        if operation not in self.operations:
            raise RegistryError(f'There is no operation "{operation}"; there are {", ".join(self.operations)}.')
        try:
            return self.operations[operation]()
        except (OperationalError, InterfaceError) as error:
            cause = (str(error.orig).strip().splitlines() or ['no reason given'])[0]
            raise DatabaseUnavailable(f'{operation} could not be done: {cause}') from error

    def verify(self) -> Report:
        """Compare files with rows: missing, changed, outside of the artifact folder, or orphaned."""
        with self._database.engine.begin() as connection:
            connection.execute(text('SELECT pg_advisory_xact_lock_shared(:key)'), {'key': ARTIFACT_LOCK})
            return self._compare(connection)

    def _compare(self, connection: Connection) -> Report:
        found: list[list[Any]] = []
        known: set[Path] = set()
        digests: dict[Path, str] = {}
        for path_text, sha256, expert, number in connection.execute(select(
                VersionRow.artifact_path, VersionRow.sha256, ExpertRow.name, VersionRow.number).join(
                ExpertRow, ExpertRow.id == VersionRow.expert_id).where(VersionRow.sha256 != '').order_by(
                ExpertRow.name, VersionRow.number)):
            path = self._artifacts / path_text
            known.add(path)
            if not path.resolve().is_relative_to(self._artifacts):
                found.append(['outside', f'{expert}@{number}', str(path)])
            elif not path.exists():
                found.append(['missing', f'{expert}@{number}', str(path)])
            elif digests.setdefault(path, sha256_of(path)) != sha256:
                found.append(['changed', f'{expert}@{number}', str(path)])
        found += [['orphaned', '', str(path)] for path in self._orphans(known)]
        return Report(('finding', 'version', 'path'), found, not found)

    def _orphans(self, known: set[Path]) -> list[Path]:
        """Files and model folders (EXPERT/DIGEST/NAME) to which no row points."""
        if not self._artifacts.is_dir():
            return []
        return sorted(path for path in self._artifacts.glob('*/*/*') if path not in known)

    def gc(self) -> Report:
        """Remove orphans; nobody registers a file meanwhile."""
        with self._database.engine.begin() as connection:
            connection.execute(text('SELECT pg_advisory_xact_lock(:key)'), {'key': ARTIFACT_LOCK})
            report = self._compare(connection)
            for finding, _version, name in report.rows:
                if finding == 'orphaned':
                    path = Path(name)
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
            for folder in (*self._artifacts.glob('*/*'), *self._artifacts.glob('*')):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        rows = [['removed' if row[0] == 'orphaned' else row[0], *row[1:]] for row in report.rows]
        return Report(report.columns, rows, all(row[0] == 'removed' for row in rows))

    def slow_queries(self) -> Report:
        """Statements by mean time: pg_stat_statements where the server has it, else as measured here."""
        columns = ('query', 'calls', 'total_ms', 'mean_ms')
        with self._database.engine.connect() as connection:
            installed = connection.scalar(text("SELECT to_regclass('pg_stat_statements') IS NOT NULL"))
            if installed:
                return Report(columns, [_plain(row) for row in connection.execute(text(_SERVER_TIMINGS),
                                                                                  {'most': _SLOW})])
        measured = sorted(list(self._database.timings.items()), key=lambda item: -item[1].total_s / item[1].calls)
        return Report(columns, [[' '.join(query.split()), timing.calls, round(1000 * timing.total_s, 3),
                                 round(1000 * timing.total_s / timing.calls, 3)]
                                for query, timing in measured[:_SLOW]])

    def vacuum(self) -> Report:
        """VACUUM (ANALYZE) of every table of the registry."""
        with self._database.engine.connect().execution_options(isolation_level='AUTOCOMMIT') as connection:
            connection.execute(text('SET statement_timeout = 0'))
            try:
                names = connection.scalars(text("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = "
                                                "current_schema() AND tableowner = current_user ORDER BY 1")).all()
                for name in names:
                    connection.execute(text(f'VACUUM (ANALYZE) {name}'))
                rows = connection.execute(text(
                    'SELECT relname, n_live_tup, n_dead_tup, pg_total_relation_size(relid) FROM pg_stat_user_tables '
                    'ORDER BY 4 DESC'))
                return Report(('table', 'rows', 'dead_rows', 'bytes'), [_plain(row) for row in rows])
            finally:
                connection.execute(text('RESET statement_timeout'))

    def locks(self) -> Report:
        """Who waits for whom, the longest first."""
        with self._database.engine.connect() as connection:
            rows = [_plain(row) for row in connection.execute(text(_LOCKS))]
        return Report(('waiting_pid', 'waiting_user', 'waiting_application', 'holding_pid', 'holding_user',
                       'holding_application', 'seconds', 'query'), rows, not rows)

    def disconnect(self) -> Report:
        """End the sessions of other clients of this database; registry nodes stay connected."""
        with self._database.engine.begin() as connection:
            rows = [_plain(row) for row in connection.execute(text(_OTHERS), {'own': APPLICATION})]
        return Report(('pid', 'user', 'application', 'state', 'ended'), rows)


def _plain(row: Sequence[Any]) -> list[Any]:
    """Values as JSON has them."""
    return [value if isinstance(value, str | int | float | bool | None) else value.isoformat()
            if isinstance(value, datetime) else float(value) for value in row]
