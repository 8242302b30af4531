"""The embedded server: started, shared, killed, taken over from before; a server that is not there."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg2
import pytest
from graph import wait_for
from sqlalchemy import create_engine, make_url, text

from moe_experts.registry.database import Database, Settings, migrate
from moe_experts.registry.embedded import EmbeddedServer, binaries
from moe_experts.registry.errors import DatabaseUnavailable
from moe_experts.registry.registry import Registry


@pytest.fixture
def robot():
    """A MOE_HOME that any account may enter."""
    with tempfile.TemporaryDirectory(prefix='moe_test_') as folder:
        yield Path(folder)


def names(database, home):
    return [row.name for row in Registry(database, home).experts.page()[0]]


def pid_of(home):
    return int((home / 'postgres' / 'postmaster.pid').read_text().split()[0])


def test_it_starts_again_on_its_data_and_people_reach_it_with_psql(robot):
    for expected in ([], ['first']):
        database = Database(robot)
        assert names(database, robot) == expected
        if not expected:
            Registry(database, robot).experts.create({'name': 'first', 'domain': 'test'}, 'tester')
        password_file = robot / 'postgres.pass'
        assert password_file.stat().st_mode & 0o777 == 0o600
        host, port = password_file.read_text().split(':')[:2]
        said = subprocess.run(
            [binaries() / 'psql', '-h', host, '-p', port, '-U', 'moe_user', '-d', 'moe_db', '-At', '-c',
             'SELECT id, name, status FROM experts'], env={**os.environ, 'PGPASSFILE': str(password_file)},
            capture_output=True, text=True, check=True).stdout
        assert said == '1|first|creating\n'
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(host=host, port=port, user='moe_user', dbname='moe_db', password='wrong')
        database.close()
        assert not (robot / 'postgres' / 'postmaster.pid').exists()


def test_two_share_it_and_the_last_one_stops_it(robot):
    first, second = Database(robot), Database(robot)
    assert first.where == second.where
    first.close()
    assert names(second, robot) == []
    second.close()
    assert not (robot / 'postgres' / 'postmaster.pid').exists()


def test_what_was_committed_outlives_a_killed_server(robot):
    database = Database(robot)
    registry = Registry(database, robot)
    for number in range(3):
        registry.experts.create({'name': f'number{number}', 'domain': 'test'}, 'tester')
        os.kill(pid_of(robot), signal.SIGKILL)
        wait_for(lambda: _fails(registry), what='outage')
        wait_for(lambda: _revived(database), what='new server')
    assert names(database, robot) == ['number0', 'number1', 'number2']
    database.close()


def _fails(registry):
    try:
        registry.experts.page()
    except DatabaseUnavailable:
        return True
    return False


def _revived(database):
    try:
        database.revive()
    except DatabaseUnavailable:  # the last processes of the dead server are ending
        return False
    return True


def test_a_cluster_of_before_is_taken_over(robot):
    server = EmbeddedServer(robot)
    server.start()
    postgres = server.url.replace('moe_user:', 'postgres:').replace('/moe_db', '/')
    # as the first release left it: everything in the database postgres, of the role postgres, anyone let in
    engine = create_engine(make_url(postgres + 'postgres').set(drivername='postgresql+psycopg2'))
    migrate(engine, '0001')
    with engine.begin() as connection:
        connection.execute(text('DROP TABLE alembic_version'))
        connection.execute(text("INSERT INTO experts VALUES (1, 'old', 'ready', 'test', '', '', false, true, '', '', "
                                "'', '{}', 256, 2048, 10, 1)"))
    engine.dispose()
    administrator = psycopg2.connect(postgres + 'template1')
    administrator.autocommit = True
    with administrator.cursor() as cursor:
        for statement in ('DROP DATABASE moe_db', 'DROP ROLE moe_user', 'ALTER ROLE postgres PASSWORD NULL'):
            cursor.execute(statement)
    administrator.close()
    server.stop()
    (robot / 'postgres' / 'pg_hba.conf').write_text('local all all trust\nhost all all 127.0.0.1/32 trust\n')
    (robot / 'postgres.pass').unlink()
    database = Database(robot)
    assert names(database, robot) == ['old']
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(database.engine.url.set(drivername='postgresql', username='postgres', password='wrong',
                                                 database='postgres').render_as_string(hide_password=False))
    database.close()


def test_a_taken_port_is_passed_by(robot, server):
    other = EmbeddedServer(robot)
    other.start()
    assert other.url.split('@')[1] != server.url.split('@')[1]
    other.stop()


def test_a_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatabaseUnavailable, match=r'127\.0\.0\.1:1 .*refused'):
        Database(tmp_path, Settings('postgresql://moe@127.0.0.1:1/moe', timeout_s=2.0))


def test_a_cluster_that_cannot_start_says_why(robot):
    server = EmbeddedServer(robot)
    server.start()
    server.stop()
    with (robot / 'postgres' / 'postgresql.conf').open('a') as file:
        file.write('\nnonsense = 1\n')
    with pytest.raises(DatabaseUnavailable, match='does not start'):
        EmbeddedServer(robot).start()
