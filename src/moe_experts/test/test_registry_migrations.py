"""The schema's history: from nothing, from every revision, from before there were revisions, and by two at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine as make_engine
from sqlalchemy import make_url, text

from moe_experts.registry import database as database_module
from moe_experts.registry.database import Database, Settings, migrate
from moe_experts.registry.errors import DatabaseUnavailable
from moe_experts.registry.registry import Registry
from moe_experts.registry.tables import Table

SCRIPTS = ScriptDirectory(str(database_module.Path(database_module.__file__).parent / 'migrations'))
REVISIONS = [script.revision for script in reversed(list(SCRIPTS.walk_revisions()))]
# what the first release wrote: an expert with a version, an alias, a job, a sample, its log
ROWS = """
INSERT INTO experts VALUES (1, 'old', 'ready', 'test', '', '', false, true, '', '', '', '{}', 256, 2048, 10, 1);
INSERT INTO experts VALUES (2, 'older', 'creating', 'test', '', '', true, true, '', '', '', '{}', 256, 2048, 10, 1);
INSERT INTO versions VALUES (1, 1, 1, 'model', 'llama_cpp', '/a/file.gguf', 'abc', 5, 'F16', '', '', '', 7, 1, '{}', 0,
                             '', 0);
INSERT INTO aliases VALUES (1, 'champion', 1, 0);
INSERT INTO training_jobs VALUES (1, 1, 'running', '{"step": 3}');
INSERT INTO route_samples VALUES (1, 'old', '', 'a prompt', 'dataset');
INSERT INTO events VALUES (7, now(), 'expert_created', 1, 'old', 0, '', 0, 'me', '');
SELECT setval('experts_id_seq', 2), setval('versions_id_seq', 1), setval('training_jobs_id_seq', 1),
       setval('route_samples_id_seq', 1);
"""


def create_engine(url):
    return make_engine(make_url(url).set(drivername='postgresql+psycopg2'))


def filled(url, revision):
    """A database at a revision, with the rows of the first."""
    engine = create_engine(url)
    migrate(engine, REVISIONS[0])
    with engine.begin() as connection:
        connection.exec_driver_sql(ROWS)
    migrate(engine, revision)
    return engine


def check(url, home):
    """What was there is there, and the registry works on it."""
    database = Database(home, Settings(url))
    registry = Registry(database, home)
    expert, versions = registry.versions.all_of(name='old')
    assert (expert.status, expert.aliases, versions[0].artifact_path) == ('ready', {'champion': 1}, '/a/file.gguf')
    assert registry.jobs.page('old')[0][0].detail == {'step': 3}
    assert registry.routes.samples()[1] == 1
    assert registry.experts.page(domain='test')[1] == 2
    made = registry.experts.create({'name': 'new', 'domain': 'test'}, 'tester')
    assert made.id == 3
    assert [event.sequence for event in registry.events.after(0)[0]] == [7, 8]
    database.close()


@pytest.mark.parametrize('revision', REVISIONS)
def test_every_revision_is_brought_forward_with_its_rows(make_database, tmp_path, revision):
    url = make_database()
    filled(url, revision).dispose()
    check(url, tmp_path)


def test_tables_of_before_there_were_revisions_are_taken_over(make_database, tmp_path):
    url = make_database()
    engine = filled(url, REVISIONS[0])
    with engine.begin() as connection:
        connection.execute(text('DROP TABLE alembic_version'))
    engine.dispose()
    check(url, tmp_path)


def test_the_schema_is_what_the_tables_say(database):
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={
            'include_object': lambda _object, name, kind, *_rest: (kind, name) != ('table', 'alembic_version'),
            'compare_type': True})
        assert compare_metadata(context, Table.metadata) == []


def test_processes_that_start_together_migrate_once(make_database):
    url = make_database()
    engines = [create_engine(url) for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(migrate, engines))
    with engines[0].connect() as connection:
        assert connection.scalar(text('SELECT version_num FROM alembic_version')) == REVISIONS[-1]
    for engine in engines:
        engine.dispose()


def test_a_schema_of_a_later_release_is_refused(make_database, tmp_path):
    url = make_database()
    engine = create_engine(url)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(DatabaseUnavailable, match='brought up to date'):
        Database(tmp_path, Settings(url))


def test_revisions_are_in_one_line():
    assert len(SCRIPTS.get_heads()) == 1
