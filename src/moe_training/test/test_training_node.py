"""The training node with its registry, as processes: jobs, models, datasets, and goals that are refused."""

import json

import pytest
from action_msgs.msg import GoalStatus
from tiny import DOORS, SYSTEM, make_tiny
from training_graph import ENDLESS, SETTINGS, Goal, NodeProcess, job, train, training_graph, training_home

from moe_interfaces.action import ConvertModel, QuantizeModel
from moe_interfaces.msg import Expert, TrainingJob
from moe_interfaces.srv import AnalyzeDataset, CreateExpert, GetVersion, ListNotes, PrepareDataset, ValidateDataset

home, graph = training_home, training_graph


@pytest.fixture(scope='module')
def node(home, graph):
    with NodeProcess(home, 'moe_training', 'training_node', **SETTINGS,
                     allowed_roots=f'["{home / "link"}", "{home / "out"}"]') as node:
        yield node


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


def test_an_expert_made_with_a_size_is_trained_as_that_size(graph, node, home):
    assert not graph.call(CreateExpert, 'registry/create_expert', size='tiny', expert=Expert(
        name='sized', domain='doors', system_prompt=SYSTEM)).error_code
    _status, refused = train(graph, home, expert='sized', base='', method='lora').result()
    assert (refused.error_code, 'full' in refused.error_msg) == (3004, True), refused.error_msg
    _status, result = train(graph, home, expert='sized', base='').result()
    assert result.error_code == 0, result.error_msg
    version = graph.call(GetVersion, 'registry/get_version', expert='sized').version
    assert (version.kind, version.base, version.parameter_count < 20e6) == ('model', '', True)


def test_an_expert_that_learns_to_read_carries_the_answers_of_its_dataset(graph, node, home):
    _status, result = train(graph, home, expert='gates', notes=2).result()
    assert result.error_code == 0, result.error_msg
    notes = graph.call(ListNotes, 'registry/list_notes', expert='gates').notes
    held_out = round(0.2 * len(DOORS))
    assert len(notes) == len(DOORS) - held_out
    assert {(*note.questions, note.text) for note in notes} < set(DOORS)
    assert {note.source for note in notes} == {'doors.jsonl'}


@pytest.mark.parametrize(('fields', 'code', 'text'), [
    ({'expert': 'nobody'}, 1000, 'nobody'), ({'dataset': '/absent.jsonl'}, 2001, 'outside'),
    ({'dataset': 'data/absent.jsonl'}, 2001, 'cannot be read'), ({'dataset': 'data/shape.jsonl'}, 2001, 'line 1'),
    ({'dataset': 'data/empty.jsonl'}, 2001, 'no rows'), ({'dataset': 'data/pickle.jsonl'}, 2001, 'never opened'),
    ({'dataset': 'data/out.jsonl'}, 2001, 'outside'), ({'base': 'data/weights.pt'}, 2000, 'never loaded'),
    ({'resume': '../../etc'}, 2000, 'checkpoint'), ({'resume': 'epoch_99.pt', 'expert': 'gates'}, 2000, 'checkpoint'),
    ({'learning_rate': -1.0}, 3004, 'learning_rate'), ({'scheduler': 'wavy'}, 3004, 'scheduler'),
    ({'notes': 21}, 3004, 'notes'), ({'base': 'huge'}, 2000, 'does not exist'),
    ({'quantization': 'Q99'}, 3004, 'unknown')])
def test_bad_goals_are_refused_before_anything_starts(graph, node, home, fields, code, text):
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


def test_datasets_are_validated_analysed_and_prepared(graph, node, home):
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
