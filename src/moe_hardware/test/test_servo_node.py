"""The servo node as a process against simulated servos: conventions, limits, e-stop, health."""

import math
import subprocess
import sys

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from processes import wait_for
from ros_graph import result_of
from sensor_msgs.msg import JointState
from servo_graph import (
    ABORTED,
    CANCELED,
    SUCCEEDED,
    ServoGraph,
    diagnosis,
    goals,
    move,
    ready,
    start,
    states,
    stop,
)
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from moe_hardware.dynamixel import control_table as ct
from moe_hardware.simulation.servo_bus import SimulatedBus
from moe_interfaces.action import MoveJoints
from moe_interfaces.msg import ErrorCode
from moe_interfaces.srv import RebootServos, ScanServos, SetTorque


@pytest.fixture(scope='module')
def graph():
    with ServoGraph() as graph:
        yield graph


@pytest.fixture(scope='module')
def port(tmp_path_factory):
    return tmp_path_factory.mktemp('run') / 'servos'


@pytest.fixture(scope='module')
def running(graph, port):
    with SimulatedBus((1, 2), port) as bus:
        process = start('servo_node', port_name=port)
        ready(graph)
        yield bus
        stop(process)
        assert process.returncode == 0


@pytest.fixture
def bus(graph, running):
    """The bus of a running node: no fault, no e-stop, torque on, the head in the middle."""
    running.servos[1].stalled = False
    wait_for(lambda: graph.ask(Trigger, 'reset_estop').success)
    assert graph.ask(SetTorque, 'set_torque', enable=True).error_code == 0
    assert move(graph, pan=0.0, tilt=0.0)[0] == SUCCEEDED
    return running


def test_joints_are_published_in_radians_and_move(graph, bus):
    message = graph.latest(JointState, 'joint_states', lambda one: len(one.name) == 2)
    assert message.name == ['pan', 'tilt'] and message.header.frame_id == ''
    assert message.header.stamp.sec > 0
    assert list(message.position) == pytest.approx([0.0, 0.0], abs=0.03)
    feedback = []
    handle = graph.begin(MoveJoints, 'move_joints', feedback.append, joint_names=['pan', 'tilt'], positions=[0.5, -0.3],
                        duration=0.5)
    status, result = graph.end(handle)
    assert (status, result.error_code, result.error_msg) == (SUCCEEDED, 0, '')
    assert list(result.positions) == pytest.approx([0.5, -0.3], abs=0.03)
    assert bus.servos[1].position == pytest.approx(ct.ticks(0.5), abs=1)
    assert bus.servos[2].position == pytest.approx(ct.ticks(-0.3), abs=1)
    progress = [one.feedback.progress for one in feedback]
    assert progress and progress == sorted(progress) and progress[-1] <= 1.0


def test_bad_goals_are_refused_whole(graph, bus):
    before = len(bus.journal.entries)
    for names, positions, duration, sentence in (
            (['pan'], [math.radians(91.0)], 0.0, 'pan at 91.0 degrees is outside its range of -90.0 to 90.0 degrees'),
            (['pan', 'tilt'], [0.1, -2.0], 0.0, 'tilt at -114.6 degrees is outside'),
            (['pan'], [math.nan], 0.0, 'not a number'), (['pan'], [math.inf], 0.0, 'not a number'),
            (['roll'], [0.1], 0.0, 'There is no joint "roll"; the joints are pan, tilt'),
            ([], [], 0.0, 'names no joint'), (['pan', 'pan'], [0.1, 0.2], 0.0, 'twice'),
            (['pan', 'tilt'], [0.1], 0.0, '2 joints and 1 positions'),
            (['pan'], [0.1], math.nan, 'The duration is nan'), (['pan'], [0.1], -1.0, 'The duration is -1.0')):
        status, result = graph.execute(MoveJoints, 'move_joints', joint_names=names, positions=positions,
                                       duration=duration)
        assert (status, result.error_code) == (ABORTED, ErrorCode.SAFETY_VIOLATION)
        assert sentence in result.error_msg
    assert len(bus.journal.entries) == before


def trajectory(names, *points):
    message = JointTrajectory(joint_names=names)
    for seconds, positions in points:
        point = JointTrajectoryPoint(positions=[float(one) for one in positions])
        point.time_from_start.sec, point.time_from_start.nanosec = int(seconds), int(seconds % 1 * 1e9)
        message.points.append(point)
    return message


def test_bad_trajectories_write_nothing_and_good_ones_are_followed(graph, bus):
    publisher = graph.node.create_publisher(JointTrajectory, 'joint_trajectory', 10)
    wait_for(lambda: publisher.get_subscription_count() == 1)
    before = len(bus.journal.entries)
    for bad in (trajectory(['pan']), trajectory([], (1.0, [])), trajectory(['pan'], (1.0, [math.nan])),
                trajectory(['pan'], (1.0, [0.1]), (1.0, [0.2])), trajectory(['nod'], (1.0, [0.1])),
                trajectory(['pan'], (1.0, [0.5]), (2.0, [1.8])), trajectory(['pan'], (0.1, [1.0]))):
        publisher.publish(bad)
    graph.latest(DiagnosticArray, '/diagnostics', lambda message: any(
        value.key == 'last refused command' and 'faster than its 3.14 rad/s' in value.value
        for status in message.status for value in status.values))
    assert len(bus.journal.entries) == before
    publisher.publish(trajectory(['pan', 'tilt'], (0.3, [0.2, 0.1]), (0.6, [0.4, 0.0])))
    wait_for(lambda: abs(bus.servos[1].position - ct.ticks(0.4)) <= 1)
    assert bus.servos[2].position == pytest.approx(ct.ticks(0.0), abs=1)
    assert ct.ticks(0.1) == pytest.approx(max(goals(bus, 2)), abs=20)
    graph.node.destroy_publisher(publisher)


def test_cancel_stops_where_it_is(graph, bus):
    handle = graph.begin(MoveJoints, 'move_joints', joint_names=['pan'], positions=[1.2], duration=10.0)
    wait_for(lambda: bus.servos[1].position > 2060)
    result_of(handle.cancel_goal_async())
    status, result = graph.end(handle)
    assert (status, result.error_code) == (CANCELED, ErrorCode.CANCELLED)
    still = bus.servos[1].position
    assert still < ct.ticks(0.6)
    count = len(goals(bus))
    graph.latest(JointState, 'joint_states')
    assert len(goals(bus)) == count
    assert bus.servos[1].position == pytest.approx(still, abs=1) and bus.servos[1].torque


def test_a_newer_goal_replaces_the_older_one(graph, bus):
    older = graph.begin(MoveJoints, 'move_joints', joint_names=['pan'], positions=[1.2], duration=10.0)
    assert move(graph, pan=-0.2)[0] == SUCCEEDED
    status, result = graph.end(older)
    assert (status, result.error_code) == (ABORTED, ErrorCode.CANCELLED)
    assert 'newer command' in result.error_msg


def test_the_estop_ends_motion_and_latches_until_reset(graph, bus):
    handle = graph.begin(MoveJoints, 'move_joints', joint_names=['pan'], positions=[1.2], duration=10.0)
    wait_for(lambda: bus.servos[1].position > 2060)
    assert graph.ask(Trigger, 'estop').success
    status, result = graph.end(handle)
    assert (status, result.error_code) == (ABORTED, ErrorCode.SAFETY_VIOLATION)
    assert bus.servos[1].torque and bus.servos[1].position < ct.ticks(0.6)
    state = states(graph, lambda message: message.estop)
    assert state.estop_reason == 'the estop service was called'
    count = len(goals(bus))
    status, result = move(graph, pan=0.0)
    assert (status, result.error_code) == (ABORTED, ErrorCode.SAFETY_VIOLATION)
    assert 'The e-stop is on (the estop service was called); call reset_estop' in result.error_msg
    assert len(goals(bus)) == count
    assert graph.ask(Trigger, 'reset_estop').success
    states(graph, lambda message: not message.estop)
    assert move(graph, pan=0.0)[0] == SUCCEEDED


def test_torque_off_refuses_goals_until_it_is_on(graph, bus):
    assert graph.ask(SetTorque, 'set_torque', joint_names=['tilt'], enable=False).error_code == 0
    assert not bus.servos[2].torque and bus.servos[1].torque
    status, result = move(graph, tilt=0.2)
    assert (status, result.error_code) == (ABORTED, ErrorCode.HARDWARE_ERROR)
    assert 'set_torque' in result.error_msg
    bus.servos[2].place(2300)  # turned by hand: switching on must not turn it back
    assert graph.ask(SetTorque, 'set_torque', joint_names=[], enable=True).error_code == 0
    assert bus.servos[2].position == pytest.approx(2300, abs=1)
    assert graph.ask(SetTorque, 'set_torque', joint_names=['x'], enable=True).error_code == ErrorCode.SAFETY_VIOLATION


def test_voltage_heat_and_hardware_errors(graph, bus):
    bus.servos[1].voltage = 9.0
    assert '9.0 V, less than 10.0 V' in diagnosis(graph, 'servos: pan', DiagnosticStatus.WARN).message
    bus.servos[1].voltage = 5.5
    assert '5.5 V, less than 6.5 V' in diagnosis(graph, 'servos: pan', DiagnosticStatus.ERROR).message
    assert 'pan has 5.5 V' in states(graph, lambda message: message.estop).estop_reason
    refused = graph.ask(Trigger, 'reset_estop')
    assert not refused.success and 'pan has 5.5 V' in refused.message
    bus.servos[1].voltage = 12.0
    wait_for(lambda: graph.ask(Trigger, 'reset_estop').success)
    bus.servos[2].temperature = 71.0
    assert 'tilt is at 71 degrees' in states(graph, lambda message: message.estop).estop_reason
    wait_for(lambda: not bus.servos[2].torque)
    assert bus.servos[1].torque
    bus.servos[2].temperature = 30.0
    wait_for(lambda: graph.ask(Trigger, 'reset_estop').success)
    wait_for(lambda: bus.servos[2].torque)
    with bus.lock:
        bus.servos[1].raise_hardware_error(1 << 5)
    assert 'pan reports overload' in states(graph, lambda message: message.estop).estop_reason
    assert not graph.ask(Trigger, 'reset_estop').success
    assert graph.ask(RebootServos, 'reboot', joint_names=['pan']).error_code == 0
    wait_for(lambda: graph.ask(Trigger, 'reset_estop').success)
    assert move(graph, pan=0.1)[0] == SUCCEEDED


def test_a_blocked_servo_ends_the_goal(graph, bus):
    bus.servos[1].stalled = True
    status, result = move(graph, pan=0.5)
    assert (status, result.error_code) == (ABORTED, ErrorCode.HARDWARE_ERROR)
    assert 'pan stopped 2' in result.error_msg and 'what blocks it' in result.error_msg


def test_scan_finds_servos_at_other_rates_and_the_bus_goes_on(graph, bus):
    response = graph.ask(ScanServos, 'scan_servos', baud_rates=[57600, 1000000])
    assert [(one.id, one.model_number, one.baud_rate, one.voltage) for one in response.servos] == [
        (1, 1060, 57600, 12.0), (2, 1060, 57600, 12.0)]
    assert move(graph, pan=0.1)[0] == SUCCEEDED
    assert bus.servos[1].get(ct.BUS_WATCHDOG) != ct.WATCHDOG_ERROR


def test_a_port_in_use_is_named(graph, bus, port):
    second = subprocess.run(
        [sys.executable, '-c', 'import sys\nfrom moe_hardware.dynamixel.bus import Bus\n'
         'try:\n    Bus(sys.argv[1], 57600).open()\nexcept Exception as error:\n    print(error)', str(port)],
        capture_output=True, text=True, timeout=20)
    assert 'is busy' in second.stdout


