"""The training node with its registry, as processes: jobs, their queue, and what happens to them on bad days."""

import json
import os
import signal

import psutil
import pytest
from action_msgs.msg import GoalStatus
from tiny import DOORS, SYSTEM, make_tiny, write_dataset
from training_graph import Goal, Graph, NodeProcess, wait_for

from moe_interfaces.action import ConvertModel, QuantizeModel, TrainExpert
from moe_interfaces.msg import Expert, TrainingJob
from moe_interfaces.srv import (
    AnalyzeDataset,
    CreateExpert,
    GetExpert,
    GetTrainingJob,
    GetVersion,
    PrepareDataset,
    ValidateDataset,
)

ENDLESS = 100_000
SETTINGS = {'heartbeat_s': 0.2, 'checkpoint_steps': 2, 'stuck_timeout_s': 120.0}


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp('moe')
    if os.geteuid() == 0:
        for parent in (folder, *folder.parents[:2]):
            parent.chmod(0o755)  # the embedded server runs as a user of its own where the tests run as root
    (folder / 'data').mkdir()
    write_dataset(folder / 'data' / 'doors.jsonl')
    (folder / 'link').symlink_to(folder / 'data')
    return folder


@pytest.fixture(scope='module')
def graph(home):
    with Graph() as graph, NodeProcess(home, 'moe_experts', 'registry_node'):
        wait_for(lambda: graph.call(GetVersion, 'registry/get_version', expert='none').error_code == 1000,
                 what='registry')
        for name in ('doors', 'gates'):
            assert not graph.call(CreateExpert, 'registry/create_expert', expert=Expert(
                name=name, domain=name, system_prompt=SYSTEM)).error_code
        yield graph


@pytest.fixture
def node(home, graph):
    with NodeProcess(home, 'moe_training', 'training_node', **SETTINGS,
                     allowed_roots=f'["{home / "link"}", "{home / "out"}"]') as node:
        yield node
        for process in psutil.process_iter():  # nothing may outlive the test
            if process.is_running() and any(str(home) in part for part in _command(process)):
                assert 'train_expert' not in ' '.join(_command(process))


def _command(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def goal(home, **fields):
    return TrainExpert.Goal(**{
        'expert': 'doors', 'dataset': str(home / 'data' / 'doors.jsonl'), 'method': 'full', 'base': 'tiny',
        'max_steps': 4, 'batch_size': 4, 'learning_rate': 1e-3, 'holdout': 0.2, **fields})


def train(graph, home, **fields):
    return Goal(graph, TrainExpert, 'train_expert', goal(home, **fields))


def job(graph, number):
    return graph.call(GetTrainingJob, 'registry/get_training_job', id=number).job


def test_a_model_from_scratch_is_trained_registered_and_quantised(graph, node, home):
    running = train(graph, home)
    status, result = running.result()
    assert (status, result.error_code) == (GoalStatus.STATUS_SUCCEEDED, 0), result.error_msg
    assert [phase for phase in dict.fromkeys(row.phase for row in running.feedback)] == [
        'load', 'train', 'convert', 'parity', 'evaluate', 'register']
    version = graph.call(GetVersion, 'registry/get_version', expert='doors').version
    assert (version.kind, version.number, version.quantization, version.base) == ('model', result.version, 'Q8_0', '')
    assert {'heldout_exact', 'heldout_loss', 'heldout_perplexity', 'heldout_tokens_per_second'} <= {
        metric.name for metric in version.metrics}
    row = job(graph, result.job_id)
    assert (row.status, row.version_id, row.step) == (TrainingJob.SUCCEEDED, result.version_id, 4)
    assert (home / 'logs' / f'training_{result.job_id}.log').read_text().count('Loss=') == 4
    status, made = Goal(graph, QuantizeModel, 'quantize_model', QuantizeModel.Goal(
        expert='doors', quantization='Q5_0', max_perplexity_ratio=1.5)).result()
    assert made.error_code == 0, made.error_msg
    assert (made.version, made.quantization.split('+')[0]) == (version.number + 1, 'Q5_0')
    base, _rows = make_tiny(home / 'data')
    status, converted = Goal(graph, ConvertModel, 'convert_model', ConvertModel.Goal(
        source=str(base), destination=str(home / 'out' / 'tiny.gguf'), quantization='Q8')).result()
    assert (converted.error_code, converted.quantization) == (0, 'Q8_0'), converted.error_msg


@pytest.mark.parametrize(('fields', 'code', 'text'), [
    ({'expert': 'nobody'}, 1000, 'nobody'), ({'dataset': '/absent.jsonl'}, 2001, 'outside'),
    ({'dataset': 'data/absent.jsonl'}, 2001, 'cannot be read'), ({'dataset': 'data/shape.jsonl'}, 2001, 'line 1'),
    ({'dataset': 'data/empty.jsonl'}, 2001, 'no rows'), ({'dataset': 'data/pickle.jsonl'}, 2001, 'never opened'),
    ({'dataset': 'data/out.jsonl'}, 2001, 'outside'), ({'base': 'data/weights.pt'}, 2000, 'never loaded'),
    ({'resume': '../../etc'}, 2000, 'checkpoint'), ({'resume': 'epoch_99.pt', 'expert': 'gates'}, 2000, 'checkpoint'),
    ({'learning_rate': -1.0}, 3004, 'learning_rate'), ({'scheduler': 'wavy'}, 3004, 'scheduler'),
    ({'base': 'huge'}, 2000, 'does not exist'), ({'quantization': 'Q99'}, 3004, 'unknown')])
def test_bad_goals_are_refused_before_anything_starts(graph, refusing, home, fields, code, text):
    data = home / 'data'
    (data / 'shape.jsonl').write_text('{"question": "a"}\n')
    (data / 'empty.jsonl').write_text('\n')
    (data / 'pickle.jsonl').write_bytes(b'\x80\x04rest')
    (data / 'weights.pt').write_bytes(b'PK\x03\x04')
    if not (data / 'out.jsonl').is_symlink():
        (data / 'out.jsonl').symlink_to('/etc/hostname')
    fields = {key: str(home / value) if str(value).startswith('data/') else value for key, value in fields.items()}
    status, result = train(graph, home, **fields).result()
    assert (status, result.error_code, result.job_id) == (GoalStatus.STATUS_ABORTED, code, 0), result.error_msg
    assert text in result.error_msg


@pytest.fixture(scope='module')
def refusing(home, graph):
    with NodeProcess(home, 'moe_training', 'training_node', **SETTINGS,
                     allowed_roots=f'["{home / "link"}", "{home / "out"}"]') as node:
        yield node


def test_datasets_are_validated_analysed_and_prepared(graph, refusing, home):
    bad = home / 'data' / 'mixed.jsonl'
    bad.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n')
    found = graph.call(ValidateDataset, 'training/validate_dataset', path=str(bad))
    assert (found.rows, found.bad_rows, list(found.lines)) == (2, 1, [2])
    report = graph.call(AnalyzeDataset, 'training/analyze_dataset', path=str(home / 'data' / 'doors.jsonl'),
                        compared_with=str(bad), plot=str(home / 'out' / 'plot.png')).report
    assert json.loads(report)['rows'] == len(DOORS)
    made = graph.call(PrepareDataset, 'training/prepare_dataset', domain='doors', paths=[str(home / 'data')],
                      output=str(home / 'out' / 'doors'), holdout=0.2)
    assert made.error_code in (0, 2001)  # the folder may hold the pickle of the test above
    made = graph.call(PrepareDataset, 'training/prepare_dataset', domain='doors', paths=[str(bad)],
                      output=str(home / 'out' / 'doors'), holdout=0.0)
    assert (made.error_code, made.rows, made.dropped) == (0, 1, 1)
    assert graph.call(ValidateDataset, 'training/validate_dataset', path='/etc/hostname').error_code == 2001


def test_cancel_saves_and_resume_goes_on(graph, node, home):
    running = train(graph, home, max_steps=ENDLESS).stepping(3)
    status, result = running.cancel().result()
    assert (status, result.error_code) == (GoalStatus.STATUS_CANCELED, 3003)
    assert job(graph, result.job_id).status == TrainingJob.CANCELLED
    again = train(graph, home, max_steps=ENDLESS, resume='latest').stepping(1)
    assert again.feedback[-1].step > 3 or min(row.step for row in again.feedback if row.step) > 3
    again.cancel().result()
    status, result = train(graph, home, max_steps=ENDLESS, resume='latest', seed=9).result()
    assert (result.error_code, 'other settings' in result.error_msg) == (2000, True)


def test_the_queue_survives_kill_and_restart(graph, home):
    parameters = {**SETTINGS, 'allowed_roots': f'["{home}"]'}
    with NodeProcess(home, 'moe_training', 'training_node', **parameters) as node:
        first = train(graph, home, max_steps=400, promote=False).stepping(2)
        second = train(graph, home, expert='gates')
        number = first.feedback[-1].job_id
        wait_for(lambda: job(graph, number + 1).status == TrainingJob.QUEUED, what='the second job')
        wait_for(lambda: job(graph, number).pid, what='the worker\'s pid')
        worker = job(graph, number).pid
        node.end(signal.SIGKILL)
        assert psutil.pid_exists(worker)
    with NodeProcess(home, 'moe_training', 'training_node', **parameters) as node:
        wait_for(lambda: f'job {number} is adopted' in node.log.read_text(), what='adoption')
        assert job(graph, number).pid == worker
        reached = job(graph, number).step
        assert node.end() == 0  # in order: the worker saves and ends
        wait_for(lambda: not psutil.pid_exists(worker), what='the end of the worker')
        assert job(graph, number).status == TrainingJob.RUNNING
    with NodeProcess(home, 'moe_training', 'training_node', **parameters):
        wait_for(lambda: job(graph, number + 1).status == TrainingJob.SUCCEEDED, 240.0, 'both jobs')
        assert job(graph, number).status == TrainingJob.SUCCEEDED
        assert job(graph, number).step == 400 > reached
    assert graph.call(GetExpert, 'registry/get_expert', name='gates').expert.champion_version == 1
    del second


def test_a_stuck_worker_is_killed_and_its_job_named(graph, home):
    with NodeProcess(home, 'moe_training', 'training_node', **{**SETTINGS, 'stuck_timeout_s': 20.0}):
        running = train(graph, home, max_steps=ENDLESS).stepping(2)
        number = running.feedback[-1].job_id
        worker = wait_for(lambda: job(graph, number).pid, what='pid')
        os.kill(worker, signal.SIGSTOP)
        _status, result = running.result()
        assert (result.error_code, 'stuck' in result.error_msg) == (2000, True)
        assert job(graph, number).status == TrainingJob.FAILED
        assert not psutil.pid_exists(worker)
        assert any((home / 'training' / str(number) / 'checkpoints').iterdir())
