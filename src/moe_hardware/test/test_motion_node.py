"""The motion node and the servo node as processes, with simulated servos."""

import math

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from processes import wait_for
from ros_graph import result_of
from sensor_msgs.msg import JointState
from servo_graph import ServoGraph, diagnosis, start, stop
from std_srvs.srv import Trigger

from moe_hardware.dynamixel import control_table as ct
from moe_hardware.simulation.servo_bus import SimulatedBus
from moe_interfaces.action import ExecuteMotion, MoveJoints
from moe_interfaces.msg import ErrorCode, JointMove

SUCCEEDED, CANCELED, ABORTED = 4, 5, 6


@pytest.fixture(scope='module')
def graph():
    with ServoGraph() as graph:
        yield graph


@pytest.fixture(scope='module')
def bus(tmp_path_factory):
    with SimulatedBus((1, 2), tmp_path_factory.mktemp('run') / 'servos') as bus:
        yield bus


@pytest.fixture(scope='module')
def motion(graph):
    process = start('motion_node')
    yield process
    stop(process)
    assert process.returncode == 0


@pytest.fixture
def nodes(graph, bus, servos, motion):
    """Both nodes, the head in the middle, no e-stop."""
    graph.ask(Trigger, 'reset_estop')
    status, result = execute(graph, '{"action":"center"}')
    assert status == SUCCEEDED, result.error_msg


@pytest.fixture(scope='module')
def servos(graph, bus):
    process = start('servo_node', port_name=bus._link)
    graph.latest(JointState, 'joint_states', lambda message: len(message.name) == 2)
    yield process
    stop(process)


def values(status):
    return {pair.key: pair.value for pair in status.values}


def execute(graph, command='', **fields):
    return graph.execute(ExecuteMotion, 'execute_motion', command=command, **fields)


def angles(bus):
    return {name: math.degrees(ct.radians(bus.servos[servo].position)) for name, servo in (('pan', 1), ('tilt', 2))}


def of_motion(message, state):
    """The node's diagnostics, where they tell of this state."""
    return [one for one in message.status if one.name == 'motion: commands' and values(one)['state'] == state]


def test_without_the_servo_node_it_says_so(graph, motion):
    status, result = execute(graph, '{"joint":"pan","by":30}')
    assert (status, result.error_code) == (ABORTED, ErrorCode.HARDWARE_ERROR)
    assert 'The servo node does not answer' in result.error_msg
    assert all(math.isnan(one) for one in result.start_positions)
    assert execute(graph, '{"action":"stop"}')[1].error_code == ErrorCode.HARDWARE_ERROR
    status = diagnosis(graph, 'motion: commands', DiagnosticStatus.ERROR)
    assert status.hardware_id == 'none' and 'The servo node does not answer' in status.message
    assert values(status)['last error'] == result.error_msg


def test_left_by_thirty_degrees(graph, nodes, bus):
    status, result = execute(graph, '{"joint":"pan","by":30}')
    assert (status, result.error_code, result.error_msg) == (SUCCEEDED, 0, '')
    assert list(result.joint_names) == ['pan', 'tilt']
    assert list(result.start_positions) == pytest.approx([0.0, 0.0], abs=0.002)
    assert list(result.positions) == pytest.approx([math.radians(30.0), 0.0], abs=0.03)
    wait_for(lambda: abs(angles(bus)['pan'] - 30.0) < 0.1)
    execute(graph, '{"joint":"pan","by":30}')
    wait_for(lambda: abs(angles(bus)['pan'] - 60.0) < 0.3)


def test_a_sequence_goes_in_order_with_progress(graph, nodes, bus):
    feedback = []
    handle = graph.begin(ExecuteMotion, 'execute_motion', feedback.append,
                        command='[{"joint":"pan","to":20},{"joint":"tilt","by":-15},{"joint":"pan","by":-40}]')
    assert graph.end(handle)[0] == SUCCEEDED
    wait_for(lambda: abs(angles(bus)['pan'] + 20.0) < 0.1 and abs(angles(bus)['tilt'] + 15.0) < 0.1)
    steps = [one.feedback.step for one in feedback]
    assert steps == sorted(steps) and set(steps) == {0, 1, 2}
    assert {one.feedback.steps for one in feedback} == {3}


def test_typed_moves_at_a_lower_speed(graph, nodes, bus):
    begin = len(bus.journal.entries)
    status, _result = execute(graph, moves=[JointMove(joint='pan', relative=True, angle=0.25)], max_velocity=0.5)
    assert status == SUCCEEDED
    written = [(one['monotonic'], one['value']) for one in bus.journal.entries[begin:]
               if one['register'] == 'goal_position']
    fastest = max((later[1] - earlier[1]) for earlier, later in zip(written, written[3:])) * ct.RADIANS_PER_TICK / 0.06
    assert written[-1][1] == ct.ticks(0.25)
    assert len(written) > 20 and fastest < 2.0


def test_errors_are_named_and_nothing_moves(graph, nodes, bus):
    begin = len(bus.journal.entries)
    for fields, code, sentence in (
            ({'command': 'look left'}, ErrorCode.INVALID_REQUEST, 'is no JSON'),
            ({'command': '{"joint":"roll","by":3}'}, ErrorCode.INVALID_REQUEST, 'no joint "roll"'),
            ({'command': '{"refuse":"unclear"}'}, ErrorCode.INVALID_REQUEST, 'does not say clearly'),
            ({'command': '{"refuse":"unsafe"}'}, ErrorCode.SAFETY_VIOLATION, 'not safe'),
            ({'command': '{"joint":"pan","by":95}'}, ErrorCode.SAFETY_VIOLATION, 'cannot go by 95 degrees'),
            ({'command': '[{"joint":"pan","by":60},{"joint":"pan","by":60}]'}, ErrorCode.SAFETY_VIOLATION,
             'pan would come to 120 degrees'),
            ({}, ErrorCode.INVALID_REQUEST, 'neither command nor moves'),
            ({'moves': [JointMove(joint='pan', angle=math.nan)]}, ErrorCode.INVALID_REQUEST, 'not a number'),
            ({'command': '{"action":"stop"}', 'moves': [JointMove(joint='pan')]}, ErrorCode.INVALID_REQUEST, 'both'),
            ({'command': '{"joint":"pan","by":5}', 'max_velocity': math.nan}, ErrorCode.INVALID_REQUEST,
             'max_velocity is nan')):
        status, result = execute(graph, **fields)
        assert (status, result.error_code) == (ABORTED, code)
        assert sentence in result.error_msg
    assert len(bus.journal.entries) == begin


def slow(graph):
    """A motion that takes long, under way."""
    return graph.begin(ExecuteMotion, 'execute_motion', command='[{"joint":"pan","to":80},{"joint":"tilt","to":40}]',
                      max_velocity=0.2)


def test_cancel_stops_where_it_is(graph, nodes, bus):
    handle = slow(graph)
    wait_for(lambda: angles(bus)['pan'] > 2.0)
    moving = graph.latest(DiagnosticArray, '/diagnostics', lambda message: of_motion(message, 'moving'))
    assert of_motion(moving, 'moving')[0].message == 'A motion is carried out.'
    result_of(handle.cancel_goal_async())
    status, result = graph.end(handle)
    assert (status, result.error_code) == (CANCELED, ErrorCode.CANCELLED)
    rest = of_motion(graph.latest(DiagnosticArray, '/diagnostics',
                                  lambda message: of_motion(message, 'waiting for a command')), 'waiting for a command')
    assert rest[0].level == DiagnosticStatus.OK and values(rest[0])['last error'] == result.error_msg
    assert float(values(rest[0])['pan [deg]']) == pytest.approx(angles(bus)['pan'], abs=0.2)
    assert 1.0 < angles(bus)['pan'] < 40.0 and abs(angles(bus)['tilt']) < 0.1


def test_stop_ends_the_motion_of_another_goal_and_of_another_caller(graph, nodes, bus):
    handle = slow(graph)
    wait_for(lambda: angles(bus)['pan'] > 2.0)
    assert execute(graph, '{"action":"stop"}')[0] == SUCCEEDED
    status, result = graph.end(handle)
    assert (status, result.error_code) == (ABORTED, ErrorCode.CANCELLED)
    assert 'stopped the motion' in result.error_msg
    handle = graph.begin(MoveJoints, 'move_joints', joint_names=['tilt'], positions=[1.0], duration=20.0)
    wait_for(lambda: angles(bus)['tilt'] > 1.0)
    assert execute(graph, '{"action":"stop"}')[0] == SUCCEEDED
    assert graph.end(handle)[1].error_code == ErrorCode.CANCELLED
    assert angles(bus)['pan'] < 40.0 and angles(bus)['tilt'] < 30.0


def test_a_newer_command_replaces_the_older_one(graph, nodes, bus):
    handle = slow(graph)
    wait_for(lambda: angles(bus)['pan'] > 2.0)
    status, result = execute(graph, '{"joint":"pan","to":-10}')
    assert status == SUCCEEDED, result.error_msg
    status, result = graph.end(handle)
    assert (status, result.error_code) == (ABORTED, ErrorCode.CANCELLED)
    assert 'replaced' in result.error_msg
    wait_for(lambda: abs(angles(bus)['pan'] + 10.0) < 0.1)
    assert abs(angles(bus)['tilt']) < 0.1


def test_the_estop_wins(graph, nodes, bus):
    handle = slow(graph)
    wait_for(lambda: angles(bus)['pan'] > 2.0)
    assert graph.ask(Trigger, 'estop').success
    status, result = graph.end(handle)
    assert (status, result.error_code) == (ABORTED, ErrorCode.SAFETY_VIOLATION)
    assert 'e-stop' in result.error_msg
    status, result = execute(graph, '{"action":"center"}')
    assert (status, result.error_code) == (ABORTED, ErrorCode.SAFETY_VIOLATION)
    assert 'call reset_estop' in result.error_msg
    assert execute(graph, '{"action":"stop"}')[0] == SUCCEEDED


def test_a_servo_node_that_dies_under_way_is_named(graph, nodes, bus, servos):
    handle = slow(graph)
    wait_for(lambda: angles(bus)['pan'] > 2.0)
    servos.kill()
    servos.wait()
    status, result = graph.end(handle)
    assert (status, result.error_code) == (ABORTED, ErrorCode.HARDWARE_ERROR)
    assert 'went away' in result.error_msg
