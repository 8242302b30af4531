"""The registry's rules on a real Postgres: experts, versions, aliases, samples, jobs."""

from pathlib import Path

import pytest
from model_files import write_model
from sqlalchemy import text

from moe_experts.registry.entities import Sample, Version
from moe_experts.registry.errors import (
    CreationFailed,
    DigestMismatch,
    ExpertNotFound,
    NameTaken,
    RegistryError,
    StaleVersion,
)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp('models') / 'model.gguf')


@pytest.fixture
def expert(registry, request):
    return registry.experts.create({'name': request.node.name[:60].split('[')[0], 'domain': 'test'}, 'tester')


def test_create_get_list(registry, expert):
    assert registry.experts.get(expert.id) == registry.experts.get(name=expert.name) == expert
    page, total = registry.experts.page(domain='test', sort='-id', limit=1)
    assert page[0] == expert
    assert total >= 1


def test_unknown_experts_are_named_as_people_know_it(registry):
    with pytest.raises(ExpertNotFound, match=r'^Expert with id=999 not found$'):
        registry.experts.get(999)
    with pytest.raises(ExpertNotFound, match=r'^Expert with name=nobody not found$'):
        registry.experts.get(name='nobody')


def test_names_are_unique_and_valid(registry, expert):
    with pytest.raises(NameTaken):
        registry.experts.create({'name': expert.name, 'domain': 'test'}, 'tester')
    for bad in ('', 'Big', '1st', '../up', 'a' * 64, "x'; DROP TABLE experts"):
        with pytest.raises(CreationFailed):
            registry.experts.create({'name': bad, 'domain': 'test'}, 'tester')


def test_a_version_is_kept_checked_and_served(registry, home, expert, model):
    version = registry.versions.register(expert.name, Version(str(model)), 'champion', 'tester')
    assert (version.number, version.kind, version.backend) == (1, 'model', 'llama_cpp')
    assert version.quantization == 'F16'
    assert Path(version.artifact_path).is_relative_to(home / 'artifacts')
    assert registry.experts.get(expert.id).status == 'ready'
    assert registry.versions.get(expert.name)[0] == version


def test_files_that_are_none_are_refused_and_leave_nothing(registry, home, expert, tmp_path, model):
    broken = tmp_path / 'broken.gguf'
    broken.write_bytes(b'not a model')
    truncated = tmp_path / 'truncated.gguf'
    truncated.write_bytes(model.read_bytes()[:100])
    for path in (broken, truncated, tmp_path / 'absent.gguf'):
        with pytest.raises(CreationFailed):
            registry.versions.register(expert.name, Version(str(path)), 'champion', 'tester')
    with pytest.raises(DigestMismatch):
        registry.versions.register(expert.name, Version(str(model), sha256='0' * 64), 'champion', 'tester')
    assert registry.versions.all_of(expert.id)[1] == []
    assert not list((home / 'artifacts' / expert.name).rglob('*.part'))


def test_aliases_move_with_a_check_and_roll_back(registry, expert, model):
    for _ in range(2):
        registry.versions.register(expert.name, Version(str(model)), 'champion', 'tester')
    with pytest.raises(StaleVersion):
        registry.versions.set_alias(expert.name, 'champion', 1, expected=1)
    assert registry.versions.set_alias(expert.name, 'challenger', 1)[0].aliases == {'champion': 2, 'challenger': 1}
    assert registry.versions.rollback(expert.name, 'tester')[1:] == (1, 2)
    assert registry.versions.set_alias(expert.name, 'challenger', 0)[0].aliases == {'champion': 1}
    with pytest.raises(RegistryError):
        registry.versions.set_alias(expert.name, 'champion', 0)


def test_every_transition_is_in_the_log_in_order(registry, expert, model):
    registry.versions.register(expert.name, Version(str(model)), 'champion', 'tester', 'why not')
    events, last = registry.events.after(0, expert.name)
    assert [event.kind for event in events] == ['expert_created', 'version_registered', 'expert_updated', 'alias_set']
    assert events[2].reason == 'why not'
    everything = [event.sequence for event in registry.events.after(0)[0]]
    assert everything == list(range(1, len(everything) + 1))
    assert events[-1].sequence <= last
    assert (events[1].actor, events[1].reason) == ('tester', 'why not')


def test_samples_are_written_once(registry):
    samples = [Sample('python', 'list', f'sample {index}') for index in range(2500)]
    assert registry.routes.add_samples(samples, 'tester') == 2500
    digest = registry.routes.samples()[2]
    assert registry.routes.add_samples(samples, 'tester') == 0
    page, total, again = registry.routes.samples(expert='python', offset=2490)
    assert (len(page), total, again) == (10, 2500, digest)


def test_a_job_that_a_person_failed_stays_failed(registry, database, expert):
    job = registry.jobs.create(expert.name, {'method': 'lora'})
    assert registry.jobs.update(job.id, 'running', {'step': 3}).status == 'running'
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE training_jobs SET status = 'failed' WHERE id = :id"), {'id': job.id})
    assert registry.jobs.update(job.id, 'running', {'step': 4}).status == 'failed'
    assert registry.jobs.page(job_id=job.id)[0][0].detail['step'] == 3
