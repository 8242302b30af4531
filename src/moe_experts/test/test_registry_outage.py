"""Bad days: no database at the start, a database that goes away under load, processes killed at any point."""

import json
import math
import multiprocessing
import os
import random
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from graph import Graph, NodeProcess, wait_for
from model_files import write_model
from registry_work import work

from moe_experts.registry.database import Database, Settings
from moe_experts.registry.embedded import EmbeddedServer
from moe_experts.registry.entities import Version
from moe_experts.registry.errors import DatabaseUnavailable, RegistryError
from moe_experts.registry.outbox import Outbox
from moe_experts.registry.registry import Registry
from moe_interfaces.msg import Expert, Outcome, TrainingJob
from moe_interfaces.srv import CreateExpert, CreateTrainingJob, ListExperts, RecordOutcomes, UpdateTrainingJob

ROUNDS = 100


def outcome(name):
    return Outcome(request_id=name, expert='any', success=True, first_token_s=math.nan)


def test_a_node_without_a_database_stays_up_and_says_why(tmp_path):
    environment = {**os.environ, 'MOE_HOME': str(tmp_path), 'MOE_DATABASE_URL': 'postgresql://moe@127.0.0.1:1/moe'}
    with Graph() as graph, NodeProcess(tmp_path, 'registry_node', environment) as node:
        status = graph.message(DiagnosticArray, '/diagnostics', lambda one: '127.0.0.1:1' in one.status[0].message)
        assert status.status[0].level == DiagnosticStatus.ERROR
        refused = graph.call(ListExperts, 'registry/list_experts', limit=1)
        assert refused.error_code == 5000
        assert '127.0.0.1:1' in refused.error_msg
        assert 'refused' in refused.error_msg
        assert graph.call(RecordOutcomes, 'registry/record_outcomes', outcomes=[outcome('kept')]).error_code == 0
        assert '"kept"' in (tmp_path / 'outbox' / 'registry.jsonl').read_text()
        assert node.end() == 0


def test_what_was_written_while_the_database_was_away_arrives_once_and_in_order():
    with tempfile.TemporaryDirectory(prefix='moe_test_') as folder:
        home = Path(folder)
        server = EmbeddedServer(home / 'elsewhere')
        server.start()
        (home / 'url').write_text(server.url)
        environment = {**os.environ, 'MOE_HOME': folder, 'MOE_DATABASE_URL': str(home / 'url')}
        with Graph() as graph, NodeProcess(home, 'registry_node', environment):
            def call(interface, name, **fields):
                return graph.call(interface, f'registry/{name}', **fields)
            wait_for(lambda: call(ListExperts, 'list_experts', limit=1).error_code == 0, 60.0, 'registry')
            call(CreateExpert, 'create_expert', expert=Expert(name='learner', domain='test'))
            job = call(CreateTrainingJob, 'create_training_job', job=TrainingJob(expert='learner')).job
            server.stop()
            assert call(ListExperts, 'list_experts', limit=1).error_code == 5000
            for step in range(1, 21):
                job.status, job.step = 'running' if step < 20 else 'succeeded', step
                assert call(UpdateTrainingJob, 'update_training_job', job=job).error_code == 0
                batch = [outcome(f'r{step}'), outcome('every time')]
                assert call(RecordOutcomes, 'record_outcomes', outcomes=batch).error_code == 0
            server.start()
            wait_for(lambda: call(ListExperts, 'list_experts', limit=1).error_code == 0, 60.0, 'registry')
            wait_for(lambda: not (home / 'outbox' / 'registry.jsonl').exists(), 60.0, 'an empty outbox')
        database = Database(home, Settings(server.url))
        registry = Registry(database, home)
        assert registry.jobs.page('learner')[0][0].status == 'succeeded'
        with database.engine.connect() as connection:
            steps = connection.exec_driver_sql('SELECT step FROM job_metrics ORDER BY stamp, step').scalars().all()
            names = connection.exec_driver_sql('SELECT request_id FROM outcomes').scalars().all()
        assert steps == list(range(1, 21))
        assert sorted(names) == sorted(['every time', *(f'r{step}' for step in range(1, 21))])
        database.close()
        server.stop()


def server_pid(home):
    """Process of the embedded server by its own account; 0 = it left none."""
    try:
        return int((home / 'postgres' / 'postmaster.pid').read_text().split()[0])
    except (OSError, IndexError):
        return 0


def test_a_node_starts_its_killed_server_again():
    with tempfile.TemporaryDirectory(prefix='moe_test_') as folder:
        home = Path(folder)
        environment = {name: value for name, value in os.environ.items() if name != 'MOE_DATABASE_URL'}
        with Graph() as graph, NodeProcess(home, 'registry_node', {**environment, 'MOE_HOME': folder}) as node:
            def listed():
                response = graph.call(ListExperts, 'registry/list_experts', limit=10)
                return not response.error_code and [row.name for row in response.experts]
            wait_for(lambda: listed() == [], 60.0, 'registry')
            assert graph.call(CreateExpert, 'registry/create_expert',
                              expert=Expert(name='kept', domain='test')).error_code == 0
            killed = server_pid(home)
            os.kill(killed, signal.SIGKILL)
            # its sessions outlive it for a moment and may answer: what counts is the next server
            wait_for(lambda: server_pid(home) not in (0, killed), 60.0, 'the next server')
            wait_for(lambda: listed() == ['kept'], 60.0, 'registry')
            assert node.end() == 0
        assert not (home / 'postgres' / 'postmaster.pid').exists()


def test_the_outbox_is_bounded_and_survives_its_process(tmp_path):
    path = tmp_path / 'outbox.jsonl'

    def away():
        raise DatabaseUnavailable('away')
    box = Outbox(path, 100)
    for number in range(4):
        assert box.write('number', number, away) is None
    with pytest.raises(DatabaseUnavailable, match='full'):
        box.write('number', 'x' * 100, away)
    with path.open('ab') as file:
        file.write(b'["number", 4')  # a crash in the middle of a line
    got, told = [], []

    def send(number):
        if number == 2 and not told:
            told.append('away')
            away()
        got.append(number)
    again = Outbox(path, 100)
    with pytest.raises(DatabaseUnavailable):
        again.drain({'number': send}, told.append)
    assert json.loads(path.read_text().splitlines()[0]) == ['number', 2]
    again.drain({'number': send}, told.append)
    assert got == [0, 1, 2, 3]
    assert len(told) == 2
    assert not path.exists()
    assert again.write('number', 5, lambda: 'sent') == 'sent'


def test_killed_at_any_point_it_leaves_no_half_row(make_database, tmp_path):
    url = make_database()
    # not forked from this process: libraries that other tests left in it would go along, without their threads
    clean = multiprocessing.get_context('forkserver')
    clean.set_forkserver_preload(['pytest', 'moe_experts.registry.registry'])
    chance = random.Random(5)
    begin = time.monotonic()
    work(url, tmp_path, ROUNDS, clean.Event(), 1)
    longest_s = 1.2 * (time.monotonic() - begin)
    for round_ in range(ROUNDS):
        begun = clean.Event()
        process = clean.Process(target=work, args=(url, tmp_path, round_, begun))
        process.start()
        assert begun.wait(60.0)
        time.sleep(chance.uniform(0.0, longest_s))  # the random point, not a condition
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    database = Database(tmp_path, Settings(url))
    registry = Registry(database, tmp_path)
    findings = {row[0] for row in registry.maintenance.run('verify').rows}
    assert findings <= {'orphaned'}
    registry.maintenance.run('gc')
    assert registry.maintenance.run('verify').ok
    with database.engine.connect() as connection:
        experts, half = connection.exec_driver_sql(
            "SELECT count(*), count(*) FILTER (WHERE base_expert = '' AND status <> 'ready') FROM experts").one()
        nowhere = connection.exec_driver_sql(
            'SELECT count(*) FROM aliases a LEFT JOIN versions v ON v.expert_id = a.expert_id '
            'AND v.number = a.version WHERE v.id IS NULL').scalar()
        gaps = connection.exec_driver_sql('SELECT max(sequence) - count(*) FROM events').scalar()
        tallied = connection.exec_driver_sql('SELECT sum(n) FROM expert_tallies').scalar()
    assert experts > 2
    assert (half, nowhere, gaps, tallied) == (0, 0, 0, experts)
    database.close()


def test_two_nodes_lose_no_update(make_database, tmp_path):
    """Two registries on one database move one alias with a check of what they read: every success is in the log."""
    url = make_database()
    databases = [Database(tmp_path, Settings(url)) for _ in range(2)]
    registries = [Registry(database, tmp_path) for database in databases]
    registries[0].create({'name': 'shared', 'domain': 'test'}, '', Version(str(write_model(tmp_path / 'm.gguf'))), 'me')
    second = write_model(tmp_path / 'm2.gguf', 2)
    registries[1].versions.register('shared', Version(str(second)), '', 'me')
    with ThreadPoolExecutor(8) as pool:
        def flip(number):
            registry = registries[number % 2]
            now = registry.experts.get(name='shared').aliases['champion']
            try:
                registry.versions.set_alias('shared', 'champion', 3 - now, now, 'me')
            except RegistryError:
                return 0
            return 1
        done = sum(pool.map(flip, range(60)))
    moves = [event.version for event in registries[0].events.after(0, 'shared')[0] if event.kind == 'alias_set'][1:]
    assert len(moves) == done > 0
    assert moves == [2 if index % 2 == 0 else 1 for index in range(done)]
    for database in databases:
        database.close()
