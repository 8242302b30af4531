"""The registry node as a process: its services, its latched events, database outages, two nodes on one database."""

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
from graph import Graph, NodeProcess, wait_for
from model_files import write_folder, write_model
from rclpy.qos import DurabilityPolicy, QoSProfile

from moe_interfaces.msg import (
    Expert,
    Metric,
    Note,
    Outcome,
    RegistryEvent,
    RouteDecision,
    RouteRecord,
    RouterVersion,
    RouteSample,
    TrainingJob,
)
from moe_interfaces.srv import (
    AddNotes,
    AddRouteSamples,
    CorrectRoute,
    CreateApiKey,
    CreateExpert,
    CreateTrainingJob,
    DeleteExpert,
    Feedback,
    GetAbTest,
    GetExpert,
    GetRouterVersion,
    GetTrainingJob,
    GetVersion,
    ListApiKeys,
    ListEvents,
    ListExperts,
    ListNotes,
    ListRoutes,
    ListRouteSamples,
    ListTrainingJobs,
    ListVersions,
    MaintainRegistry,
    Promote,
    RecordOutcomes,
    RecordRoutes,
    RegisterRouterVersion,
    RemoveNotes,
    ResizeExpert,
    RevokeApiKey,
    Rollback,
    SetAlias,
    StartAbTest,
    StopAbTest,
    UpdateExpert,
    UpdateTrainingJob,
)

LATCHED = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Caller:
    """Calls services below registry/ by the interface's name; an error is a failed test unless it is expected."""

    def __init__(self, graph):
        self.graph = graph
        self.events = []
        graph.node.create_subscription(RegistryEvent, 'registry/events', self.events.append, LATCHED)

    def __call__(self, interface, error_code=0, **fields):
        name = ''.join('_' + letter.lower() if letter.isupper() else letter for letter in interface.__name__)
        response = self.graph.call(interface, 'registry/' + name.lstrip('_'), **fields)
        assert response.error_code == error_code, response.error_msg
        assert bool(response.error_msg) == bool(error_code)
        return response

    def ready(self):
        wait_for(lambda: self.graph.call(ListExperts, 'registry/list_experts', limit=1).error_code == 0,
                 what='registry', timeout=60.0)
        return self

    def event(self, kind, accept=lambda _event: True):
        return wait_for(lambda: [one for one in self.events if one.kind == kind and accept(one)],
                        what=f'event {kind}')[-1]

    def candidate(self, base, model, champion=True):
        """An expert with a champion and a candidate of it; returns the candidate's name."""
        self(CreateExpert, expert=Expert(name=base, domain='test'), artifact_path=str(model))
        self(CreateExpert, expert=Expert(name=f'{base}_v2', base_expert=base),
             artifact_path=str(write_model(model.with_name(f'{base}_v2.gguf'), 2)) if champion else '')
        return f'{base}_v2'


@pytest.fixture(scope='module')
def url(make_database):
    return make_database()


@pytest.fixture(scope='module')
def call(home, url):
    environment = {**os.environ, 'MOE_HOME': str(home), 'MOE_DATABASE_URL': url}
    with Graph() as graph, NodeProcess(home, 'registry_node', environment):
        yield Caller(graph).ready()


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp('models') / 'model.gguf')


@pytest.fixture
def sql(url):
    """Run a statement as a person would, with another client."""
    def run(statement, *values):
        connection = psycopg2.connect(url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()
    return run


def test_an_expert_is_created_changed_and_deleted(call, model):
    made = call(CreateExpert, expert=Expert(name='changing', domain='test', category='tests'),
                artifact_path=str(model), actor='me', reason='why').expert
    assert (made.status, made.champion_version) == ('ready', 1)
    new = Expert(id=made.id, row_version=made.row_version, description='another', max_tokens=7)
    changed = call(UpdateExpert, expert=new, fields=['description', 'max_tokens'], actor='me').expert
    assert (changed.description, changed.max_tokens, changed.domain) == ('another', 7, 'test')
    assert changed.row_version > made.row_version
    call(UpdateExpert, 1004, expert=new, fields=['description'])
    call(UpdateExpert, 3004, expert=Expert(id=made.id), fields=['nonsense'])
    assert call(UpdateExpert, expert=Expert(id=made.id, status='disabled'), fields=['status']).expert.status \
        == 'disabled'
    assert call.event('expert_updated', lambda one: one.reason == 'status disabled').expert == 'changing'
    call(DeleteExpert, name='changing', actor='me', reason='no more')
    call(GetExpert, 1000, id=made.id)
    kinds = [event.kind for event in call(ListEvents, expert='changing').events]
    assert kinds[0] == 'expert_created'
    assert kinds[-1] == 'expert_deleted'
    call(DeleteExpert, id=made.id, hard=True)
    call(DeleteExpert, 1000, id=made.id, hard=True)


def test_a_list_is_filtered_sorted_and_paged(call):
    for index in range(5):
        call(CreateExpert, expert=Expert(name=f'listed_{index}', domain='listed', category='even' if index % 2 else
                                         'odd'))
    page = call(ListExperts, domain='listed', sort='-name', offset=1, limit=2)
    assert [row.name for row in page.experts] == ['listed_3', 'listed_2']
    assert page.total == 5
    assert call(ListExperts, domain='listed', category='even', status='creating').total == 2
    for wrong in ({'sort': 'nonsense'}, {'status': 'nonsense'}, {'limit': 0}, {'limit': 1001}, {'offset': -1}):
        call(ListExperts, 3004, **wrong)


def test_an_expert_is_made_from_a_folder_or_in_a_size(call, tmp_path):
    folder = write_folder(tmp_path / 'folder')
    (folder / 'pytorch_model.bin').write_bytes(b'pickle')
    call(CreateExpert, expert=Expert(name='folder', domain='test'), artifact_path=str(folder))
    version = call(GetVersion, expert='folder').version
    assert (version.kind, version.backend, version.quantization, version.parameter_count) == (
        'model', 'transformers', 'F32', 32)
    assert sorted(os.listdir(version.artifact_path)) == ['config.json', 'model.safetensors']
    (folder / 'model.safetensors').unlink()
    call(CreateExpert, 1002, expert=Expert(name='pickled', domain='test'), artifact_path=str(folder))
    call(GetExpert, 1000, name='pickled')
    call(CreateExpert, expert=Expert(name='sized', domain='test'), size='small')
    resized = call(ResizeExpert, name='sized', size='medium').version
    assert (resized.number, resized.base, resized.metrics) == (2, 'medium', [Metric(name='needs_training', value=1.0)])
    call(SetAlias, 1001, expert='sized', alias='champion', version=2)
    call(ResizeExpert, 3004, name='sized', size='gigantic')


def test_a_candidate_is_promoted_and_rolled_back(call, model):
    name = call.candidate('base', model)
    assert not call(GetExpert, name=name).expert.routable
    call(AddNotes, notes=[
        Note(expert='base', text='old', questions=['Who?']), Note(expert='base', text='both'),
        Note(expert=name, text='old'), Note(expert=name, text='both', questions=['Which?']),
        Note(expert=name, text='new')])
    promoted = call(Promote, expert=name, actor='me')
    assert {note.text: list(note.questions) for note in call(ListNotes, expert='base').notes} == {
        'old': ['Who?'], 'both': ['Which?'], 'new': []}
    assert (promoted.expert.name, promoted.version, promoted.previous_version) == ('base', 2, 1)
    version = call(GetVersion, expert='base').version
    assert (version.number, version.parent_version) == (2, 1)
    assert version.sha256 == call(GetVersion, expert=name).version.sha256
    assert call(GetExpert, name=name).expert.status == 'disabled'
    back = call(Rollback, expert='base', actor='me')
    assert (back.version, back.previous_version) == (1, 2)
    call(SetAlias, expert='base', alias='challenger', version=2)
    assert call(Promote, expert='base').expert.champion_version == 2
    call(Promote, 1001, expert='base')


def outcomes(test, expert, results, prefix, latency_s=0.1):
    return [Outcome(request_id=f'{prefix}{index}', session=f's{prefix}{index}', expert=expert, ab_test_id=test,
                    success=good, latency_s=latency_s, first_token_s=math.nan)
            for index, good in enumerate(results)]


def test_an_ab_test_promotes_what_is_better(call, model):
    name = call.candidate('tested', model)
    call(StartAbTest, 3004, control='tested', treatment='tested', share=0.5)
    call(StartAbTest, 3004, control='tested', treatment=name, share=0.0)
    test = call(StartAbTest, control='tested', treatment=name, share=0.5, auto_decide=True).test
    call(StartAbTest, 3004, control='tested', treatment=name, share=0.5)
    assert call.event('ab_test_changed').expert == 'tested'
    assert math.isnan(call(GetAbTest, control='tested').test.p_value)
    call(RecordOutcomes, outcomes=outcomes(test.id, 'tested', [True, False] * 100, 'c'))
    call(RecordOutcomes, outcomes=outcomes(test.id, name, [True] * 200, 't'))
    done = call(GetAbTest, id=test.id).test
    assert (done.status, done.control_outcomes, done.treatment_outcomes) == ('promoted', 200, 200)
    assert done.p_value < 0.05
    assert call(GetExpert, name='tested').expert.champion_version == 2
    call(GetAbTest, 3004, control='tested')


def test_an_ab_test_rolls_back_what_is_worse_and_counts_missing_outcomes(call, model, sql):
    name = call.candidate('kept', model)
    test = call(StartAbTest, control='kept', treatment=name, share=0.5, auto_decide=True).test
    call(RecordOutcomes, outcomes=outcomes(test.id, 'kept', [True] * 200, 'k'))
    call(RecordRoutes, records=[RouteRecord(request_id=f'm{index}', session=f'm{index}', decision=RouteDecision(
        choice=name, stage='learned')) for index in range(200)])
    assert call(GetAbTest, id=test.id).test.treatment_outcomes == 0
    sql("UPDATE ab_units SET assigned_at = now() - interval '1 hour' WHERE ab_test_id = %s", test.id)
    assert call(GetAbTest, id=test.id).test.status == 'rolled_back'
    assert call(GetExpert, name=name).expert.status == 'disabled'
    assert call(GetExpert, name='kept').expert.champion_version == 1


def test_a_wrong_split_blocks_the_verdict_and_a_test_can_be_stopped(call, model):
    name = call.candidate('split', model)
    test = call(StartAbTest, control='split', treatment=name, share=0.5, auto_decide=True).test
    call(RecordOutcomes, outcomes=outcomes(test.id, 'split', [False] * 300, 'x'))
    call(RecordOutcomes, outcomes=outcomes(test.id, name, [True] * 100, 'y'))
    stopped = call(StopAbTest, id=test.id, actor='me', reason='enough').test
    assert stopped.status == 'stopped'
    assert stopped.verdict.startswith('Blocked')
    call(StopAbTest, 3004, id=test.id)


def test_outcomes_and_feedback_are_written_once(call, sql):
    batch = outcomes(0, 'any', [True, False], 'once')
    assert call(RecordOutcomes, outcomes=batch).written == 2
    assert call(RecordOutcomes, outcomes=batch).written == 0
    call(Feedback, request_id='once0', score=1.0, comment='thanks')
    call(Feedback, 3004, request_id='nobody', score=1.0)
    call(Feedback, 3004, request_id='once0', score=2.0)
    assert sql('SELECT score, comment FROM outcomes WHERE request_id = %s', 'once0') == [(1.0, 'thanks')]


def test_routes_are_kept_and_a_correction_teaches(call):
    for name in ('right', 'wrong'):
        call(CreateExpert, expert=Expert(name=name, domain='routes'))
    call(AddRouteSamples, samples=[RouteSample(expert='wrong', text='a prompt', source='routes')])
    before = call(ListRouteSamples)
    decision = RouteDecision(choice='wrong', confidence=0.75, ranked=['wrong', 'right'], probabilities=[0.75, 0.25],
                             stage='learned')
    record = RouteRecord(request_id='r1', prompt='a prompt', prompt_digest='d', decision=decision, router_version=3)
    assert call(RecordRoutes, records=[record, record]).written == 1
    assert call(RecordRoutes, records=[record]).written == 0
    kept = call(ListRoutes, expert='wrong').records[0]
    assert (kept.request_id, kept.decision, kept.router_version) == ('r1', decision, 3)
    call(CorrectRoute, request_id='r1', expert='right', actor='me')
    call(CorrectRoute, 3004, request_id='r2', expert='right')
    call(CorrectRoute, 1000, request_id='r1', expert='nobody')
    corrected = call(ListRoutes, corrected_only=True)
    assert (corrected.total, corrected.records[0].corrected) == (1, 'right')
    after = call(ListRouteSamples)
    assert after.digest != before.digest
    assert [(sample.expert, sample.source) for sample in after.samples if sample.text == 'a prompt'] == [
        ('right', 'correction')]


def test_fits_of_the_router_are_numbered_and_one_is_active(call):
    call(GetRouterVersion, 3004)
    for samples in (10, 20):
        call(RegisterRouterVersion, version=RouterVersion(artifact_path='/f', samples=samples, threshold=0.5,
                                                          metrics=[Metric(name='accuracy', value=0.9)]))
    assert (call(GetRouterVersion).version.number, call(GetRouterVersion, number=1).version.active) == (2, False)
    assert call(RegisterRouterVersion, version=RouterVersion(number=1, active=True)).version.samples == 10
    assert call(GetRouterVersion).version.number == 1


def test_notes_are_added_listed_and_removed(call):
    call(CreateExpert, expert=Expert(name='reader', domain='notes'))
    notes = [Note(expert='reader', source=f'{index % 2}.md', text=f'note {index}') for index in range(4)]
    assert call(AddNotes, notes=notes).added == 4
    assert call.event('expert_updated', lambda one: one.expert == 'reader').reason == 'notes: 4 added'
    assert call(AddNotes, notes=notes).added == 0
    replaced = call(AddNotes, notes=[Note(expert='reader', source='0.md', text='note 0'),
                                     Note(expert='reader', source='0.md', text='new')], replace=True)
    assert (replaced.added, replaced.removed) == (1, 1)
    page = call(ListNotes, expert='reader', limit=2)
    assert (page.total, [note.text for note in page.notes]) == (4, ['note 0', 'note 1'])
    assert call(ListNotes, expert='reader', after_id=page.notes[-1].id).notes[-1].text == 'new'
    assert call(RemoveNotes, expert='reader', sources=['1.md'], ids=[page.notes[0].id]).removed == 3
    call(AddNotes, 1000, notes=[Note(expert='nobody', text='x')])


def test_a_note_keeps_the_questions_that_another_source_gave_it(call):
    call(CreateExpert, expert=Expert(name='worded', domain='w'))

    def given(source, *questions):
        call(AddNotes, notes=[Note(expert='worded', source=source, text='nine bars', questions=questions)],
             replace=True)
        (note,) = call(ListNotes, expert='worded').notes
        return [note.source, *note.questions]
    assert given('built in', 'pressure?', 'how many bars?') == ['built in', 'pressure?', 'how many bars?']
    assert given('train.jsonl', 'bars?', 'pressure?') == ['built in', 'bars?', 'pressure?', 'how many bars?']
    assert given('train.jsonl', 'bars?', 'pressure?') == ['built in', 'bars?', 'pressure?', 'how many bars?']
    assert given('built in', 'pressure?') == ['built in', 'pressure?']


def test_a_note_keeps_the_questions_that_it_was_given_last(call):
    call(CreateExpert, expert=Expert(name='asked', domain='notes'))

    def given(*questions, text='nine bars'):
        return call(AddNotes, notes=[Note(expert='asked', text=text, questions=questions)] * 2).added

    def kept():
        return [list(note.questions) for note in call(ListNotes, expert='asked').notes]
    assert (given('which pressure'), kept()) == (1, [['which pressure']])
    assert (given('which pressure', 'how many bars'), kept()) == (0, [['which pressure', 'how many bars']])
    assert (given(), kept()) == (0, [['which pressure', 'how many bars']])
    call(AddNotes, 3004, notes=[Note(expert='asked', text='x', questions=[' '])])
    assert (given(text='no question'), kept()[-1]) == (1, [])


def test_keys_are_shown_once_and_kept_as_hashes(call, home, sql):
    made = call(CreateApiKey, name='robot', scopes=['inference', 'manage'], actor='me')
    assert made.key.startswith(f'moe_{made.id}_')
    call(CreateApiKey, 3004, name='robot', scopes=['everything'])
    listed = call(ListApiKeys)
    assert (list(listed.ids), listed.scopes, listed.revoked) == ([made.id], ['inference,manage'], [False])
    file = home / 'run' / 'api_keys.json'
    assert file.stat().st_mode & 0o777 == 0o600
    assert [key['id'] for key in json.loads(file.read_text())['keys']] == [made.id]
    assert made.key not in str(sql('SELECT * FROM api_keys')) + file.read_text()
    call(RevokeApiKey, id=made.id)
    call(RevokeApiKey, 3004, id=999)
    assert call(ListApiKeys).revoked == [True]
    assert json.loads(file.read_text())['keys'] == []


def test_a_job_is_followed_and_a_row_changed_by_hand_is_noticed(call, sql):
    call(CreateExpert, expert=Expert(name='learner', domain='jobs'))
    job = call(CreateTrainingJob, job=TrainingJob(expert='learner', method='lora', loss=math.nan)).job
    job.status, job.step, job.loss = 'running', 3, 0.5
    assert call(UpdateTrainingJob, job=job).job.status == 'running'
    assert sql('SELECT step, loss FROM job_metrics WHERE job_id = %s', job.id) == [(3, 0.5)]
    sql("UPDATE training_jobs SET status = 'failed' WHERE id = %s", job.id)
    event = call.event('job_changed', lambda one: one.job_id == job.id and one.reason == 'failed')
    assert event.actor == 'sql:moe_user'
    assert call(UpdateTrainingJob, job=job).job.status == 'failed'
    assert call(GetTrainingJob, id=job.id).job.finished_at.sec
    assert call(ListTrainingJobs, expert='learner', status='failed').total == 1
    call(GetTrainingJob, 3004, id=999999)


def test_upkeep_reports_tables(call, model, home):
    call(CreateExpert, expert=Expert(name='kept_well', domain='test'), artifact_path=str(model))

    def report(operation):
        return json.loads(call(MaintainRegistry, operation=operation).report)
    report('gc')  # what experts deleted for good left behind
    assert report('verify')['ok']
    orphan = home / 'artifacts' / 'kept_well' / 'orphan' / 'file.gguf'
    orphan.parent.mkdir()
    orphan.write_bytes(b'')
    version = call(GetVersion, expert='kept_well').version
    with open(version.artifact_path, 'r+b') as file:
        file.seek(-1, os.SEEK_END)
        file.write(b'!')
    assert [row[0] for row in report('verify')['rows']] == ['changed', 'orphaned']
    os.unlink(version.artifact_path)
    assert [row[0] for row in report('gc')['rows']] == ['missing', 'removed']
    assert not orphan.parent.exists()
    for operation in ('slow_queries', 'vacuum'):
        assert report(operation)['rows']
    assert report('locks')['ok']
    assert report('disconnect')['columns'][0] == 'pid'
    call(MaintainRegistry, 3004, operation='nonsense')


def test_values_that_no_column_holds_are_refused_and_the_node_lives(call):
    assert call(ListEvents, after_sequence=2**64 - 1).events == []
    call(AddRouteSamples, 3004, samples=[RouteSample(expert='x' * 100, text='too long a name')])
    for name in ("x'; DROP TABLE experts; --", '../../etc/passwd', ''):
        call(CreateExpert, 1002, expert=Expert(name=name, domain='test'))
        call(GetExpert, 1000, name=name)
    call(CreateExpert, 1002, expert=Expert(name='no_file', domain='test'), artifact_path='/nowhere.gguf')
    call(ListExperts, limit=1)


def test_the_log_has_no_gaps_and_is_latched(call):
    call(CreateExpert, expert=Expert(name='logged', domain='test'))
    last = call(ListEvents, limit=1).last_sequence
    wait_for(lambda: call.events and call.events[-1].sequence == last, what='the last event')
    numbers = [event.sequence for event in call.events]
    assert numbers == list(range(numbers[0], last + 1))
    late = Caller(call.graph)
    wait_for(lambda: late.events and late.events[-1].sequence == last, what='latched events')
    assert call(ListEvents, after_sequence=last - 1).events[0].sequence == last


def test_concurrent_promote_and_delete_have_one_winner(call, model):
    for index in range(5):
        name = call.candidate(f'race{index}', write_model(model.with_name(f'race{index}.gguf'), 3))
        with ThreadPoolExecutor() as pool:
            promoted = pool.submit(call.graph.call, Promote, 'registry/promote', expert=name)
            deleted = pool.submit(call.graph.call, DeleteExpert, 'registry/delete_expert', name=name)
            codes = promoted.result().error_code, deleted.result().error_code
        champion = call(GetExpert, name=f'race{index}').expert.champion_version
        assert codes in ((0, 0), (1000, 0))
        assert champion == (2 if codes[0] == 0 else 1)
        assert call(ListVersions, expert=f'race{index}').versions[0].number == champion
        call(GetExpert, 1000, name=name)
