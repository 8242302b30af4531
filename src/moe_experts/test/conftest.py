"""Environment of this package's tests: a ROS graph of their own, one Postgres for all, a database for each module."""

import itertools
import os
import tempfile
from pathlib import Path

import psycopg2
import pytest
from engines_under_test import adapter, engine, kind, models, plain, shared  # noqa: F401  # fixtures

from moe_experts.registry.database import Database, Settings
from moe_experts.registry.embedded import EmbeddedServer
from moe_experts.registry.registry import Registry

os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 49))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
os.environ.setdefault('ROS_PYTHON_CHECK_FIELDS', '1')

_numbers = itertools.count()


@pytest.fixture(scope='session')
def server():
    """A Postgres that runs until the last test is done; not below pytest's folder, which root alone may enter."""
    with tempfile.TemporaryDirectory(prefix='moe_test_') as folder:
        server = EmbeddedServer(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope='session')
def make_database(server):
    """Make an empty database; returns its URL."""
    def make():
        name = f'test_{next(_numbers)}'
        connection = psycopg2.connect(server.url.replace('moe_user:', 'postgres:'))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE {name} OWNER moe_user')
        connection.close()
        return server.url.rsplit('/', 1)[0] + '/' + name
    return make


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    return tmp_path_factory.mktemp('moe')


@pytest.fixture(scope='module')
def database(make_database, home):
    database = Database(home, Settings(make_database()))
    yield database
    database.close()


@pytest.fixture(scope='module')
def registry(database, home):
    return Registry(database, home)
