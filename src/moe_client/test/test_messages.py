"""Messages to plain values and back; wrong values are named."""

import pytest

from moe_client.errors import InvalidRequest
from moe_client.operations import OPERATIONS, SAMPLING_FIELDS, generation_goal, motion_command
from moe_client.ros.messages import from_plain, interface, to_plain
from moe_interfaces.action import CalibrateImu, GenerateResponse
from moe_interfaces.msg import Expert, SamplingConfig, TrainingJob
from moe_interfaces.srv import ListExperts


@pytest.mark.parametrize('operation', OPERATIONS.values(), ids=OPERATIONS)
def test_every_operation_has_its_interface(operation):
    assert interface(operation.kind.value, operation.interface)
    assert operation.method in ('GET', 'POST', 'PUT', 'PATCH', 'DELETE')


def test_routes_are_unique():
    routes = [(operation.method, operation.path) for operation in OPERATIONS.values()]
    assert len(set(routes)) == len(routes)


def test_there_and_back():
    values = {'name': 'python', 'max_tokens': 7, 'sampling_config': {'temp': 0.5, 'logit_bias': [{'token': 3}]},
              'aliases': [{'name': 'champion', 'version': 2}], 'created_at': 12.5, 'fallback': True}
    message = from_plain(Expert, values)
    plain = to_plain(message)
    assert plain['sampling_config']['temp'] == 0.5
    assert plain['sampling_config']['logit_bias'][0]['token'] == 3
    assert plain['aliases'] == [{'name': 'champion', 'version': 2}]
    assert plain['created_at'] == 12.5
    assert from_plain(Expert, plain) == message


def test_nan_is_none():
    job = from_plain(TrainingJob, {'loss': None, 'validation_loss': float('nan')})
    assert to_plain(job)['loss'] is None
    assert to_plain(job)['validation_loss'] is None


def test_fixed_lists_and_left_out_errors():
    plain = to_plain(CalibrateImu.Result())
    assert plain['gyro_bias'] == [0.0, 0.0, 0.0]
    assert 'error_code' not in plain


@pytest.mark.parametrize(('values', 'words'), [
    ({'nonsense': 1}, 'nonsense'), ({'limit': 2 ** 40}, 'limit'), ({'limit': 1.5}, 'limit'), ({'limit': 'x'}, 'limit'),
    ({'limit': True}, 'limit'), ({'domain': 3}, 'domain'), ({'domain': 'a\0b'}, 'NUL'),
    ({'domain': '\ud800'}, 'domain')])
def test_wrong_values_are_named(values, words):
    with pytest.raises(InvalidRequest, match=words):
        from_plain(ListExperts.Request, values)


def test_wrong_values_deep_inside_are_named():
    with pytest.raises(InvalidRequest, match=r'sampling_config\.logit_bias\[0\]\.token'):
        from_plain(GenerateResponse.Goal, {'sampling_config': {'logit_bias': [{'token': 'x'}]}})


def test_every_way_to_draw_tokens_has_a_name():
    fields = SamplingConfig.get_fields_and_field_types()
    assert set(SAMPLING_FIELDS) == set(fields)
    assert set(SAMPLING_FIELDS) & set(GenerateResponse.Goal.get_fields_and_field_types()) == set()
    goal = generation_goal({'prompt': 'x', 'ignore_eos': True, 'mirostat': 2, 'sampling_config': {'typical_p': 0.9}})
    sampling = from_plain(GenerateResponse.Goal, goal).sampling_config
    assert (sampling.ignore_eos, sampling.mirostat) == (True, 2)
    assert sampling.typical_p == pytest.approx(0.9)


def test_options_of_a_generation_become_its_goal():
    goal = generation_goal({'prompt': 'x', 'temperature': 0.3, 'top_k': None, 'json_schema': {'type': 'object'},
                            'timeout': 3.0, 'ground': True})
    assert goal == {'prompt': 'x', 'ground': True,
                    'sampling_config': {'temp': 0.3, 'json_schema': '{"type": "object"}'}}
    assert from_plain(GenerateResponse.Goal, goal).ground


def test_a_joint_and_degrees_become_a_motion():
    by = motion_command({'joint': 'pan', 'degrees': 30.0, 'relative': True})
    assert by['command'] == '{"joint": "pan", "by": 30}'
    assert motion_command({'joint': 'tilt', 'degrees': -2.5})['command'] == '{"joint": "tilt", "to": -2.5}'
