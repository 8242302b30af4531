"""The servo node as a process against simulated servos: limits, e-stop, watchdog, and the loss of everything."""

import json
import math
import signal
import subprocess
import sys

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import JointState
from servo_graph import Graph, start, stop, wait_for
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from moe_hardware.dynamixel import control_table as ct
from moe_hardware.simulation.servo_bus import SimulatedBus
from moe_interfaces.action import MoveJoints
from moe_interfaces.msg import ErrorCode, ServoStates
from moe_interfaces.srv import RebootServos, ScanServos, SetTorque

SUCCEEDED, CANCELED, ABORTED = 4, 5, 6


@pytest.fixture(scope='module')
def graph():
    graph = Graph()
    yield graph
    graph.close()


@pytest.fixture
def port(tmp_path):
    return tmp_path / 'servos'


@pytest.fixture
def bus(port):
    with SimulatedBus((1, 2), port) as bus:
        yield bus


@pytest.fixture
def node(graph, bus, port):
    process = start('servo_node', port_name=port)
    ready(graph)
    yield process
    stop(process)


def ready(graph):
    return graph.latest(ServoStates, 'servo_states',
                        lambda message: len(message.servos) == 2 and all(one.torque_enabled for one in message.servos))


def states(graph, condition):
    return graph.latest(ServoStates, 'servo_states', condition)


def goals(bus, servo=1):
    return [one['value'] for one in list(bus.journal.entries)
            if one['id'] == servo and one['register'] == 'goal_position']


def move(graph, **joints):
    return graph.execute(MoveJoints, 'move_joints', joint_names=list(joints), positions=list(joints.values()))


def test_joints_are_published_in_radians_and_move(graph, node, bus):
    message = graph.latest(JointState, 'joint_states', lambda one: len(one.name) == 2)
    assert message.name == ['pan', 'tilt'] and message.header.frame_id == ''
    assert message.header.stamp.sec > 0
    assert list(message.position) == pytest.approx([0.0, 0.0])
    feedback = []
    handle = graph.send(MoveJoints, 'move_joints', feedback.append, joint_names=['pan', 'tilt'], positions=[0.5, -0.3],
                        duration=0.5)
    status, result = graph.result(handle)
    assert (status, result.error_code, result.error_msg) == (SUCCEEDED, 0, '')
    assert list(result.positions) == pytest.approx([0.5, -0.3], abs=0.03)
    assert bus.servos[1].position == pytest.approx(ct.ticks(0.5), abs=1)
    assert bus.servos[2].position == pytest.approx(ct.ticks(-0.3), abs=1)
    progress = [one.feedback.progress for one in feedback]
    assert progress and progress == sorted(progress) and progress[-1] <= 1.0


def test_bad_goals_are_refused_whole(graph, node, bus):
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


def test_bad_trajectories_write_nothing_and_good_ones_are_followed(graph, node, bus):
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


def test_cancel_stops_where_it_is(graph, node, bus):
    handle = graph.send(MoveJoints, 'move_joints', joint_names=['pan'], positions=[1.2], duration=10.0)
    wait_for(lambda: bus.servos[1].position > 2060)
    graph.finish(handle.cancel_goal_async())
    status, result = graph.result(handle)
    assert (status, result.error_code) == (CANCELED, ErrorCode.CANCELLED)
    still = bus.servos[1].position
    assert still < ct.ticks(0.6)
    count = len(goals(bus))
    graph.latest(JointState, 'joint_states')
    assert len(goals(bus)) == count
    assert bus.servos[1].position == pytest.approx(still, abs=1) and bus.servos[1].torque


def test_a_newer_goal_replaces_the_older_one(graph, node, bus):
    older = graph.send(MoveJoints, 'move_joints', joint_names=['pan'], positions=[1.2], duration=10.0)
    assert move(graph, pan=-0.2)[0] == SUCCEEDED
    status, result = graph.result(older)
    assert (status, result.error_code) == (ABORTED, ErrorCode.CANCELLED)
    assert 'newer command' in result.error_msg


def test_the_estop_ends_motion_and_latches_until_reset(graph, node, bus):
    handle = graph.send(MoveJoints, 'move_joints', joint_names=['pan'], positions=[1.2], duration=10.0)
    wait_for(lambda: bus.servos[1].position > 2060)
    assert graph.call(Trigger, 'estop').success
    status, result = graph.result(handle)
    assert (status, result.error_code) == (ABORTED, ErrorCode.SAFETY_VIOLATION)
    assert bus.servos[1].torque and bus.servos[1].position < ct.ticks(0.6)
    state = states(graph, lambda message: message.estop)
    assert state.estop_reason == 'the estop service was called'
    count = len(goals(bus))
    status, result = move(graph, pan=0.0)
    assert (status, result.error_code) == (ABORTED, ErrorCode.SAFETY_VIOLATION)
    assert 'The e-stop is on (the estop service was called); call reset_estop' in result.error_msg
    assert len(goals(bus)) == count
    assert graph.call(Trigger, 'reset_estop').success
    states(graph, lambda message: not message.estop)
    assert move(graph, pan=0.0)[0] == SUCCEEDED


def test_torque_off_refuses_goals_until_it_is_on(graph, node, bus):
    assert graph.call(SetTorque, 'set_torque', joint_names=['tilt'], enable=False).error_code == 0
    assert not bus.servos[2].torque and bus.servos[1].torque
    status, result = move(graph, tilt=0.2)
    assert (status, result.error_code) == (ABORTED, ErrorCode.HARDWARE_ERROR)
    assert 'set_torque' in result.error_msg
    bus.servos[2].place(2300)  # turned by hand: switching on must not turn it back
    assert graph.call(SetTorque, 'set_torque', joint_names=[], enable=True).error_code == 0
    assert bus.servos[2].position == pytest.approx(2300, abs=1)
    assert graph.call(SetTorque, 'set_torque', joint_names=['x'], enable=True).error_code == ErrorCode.SAFETY_VIOLATION


def test_nothing_jumps_at_enable_with_a_stale_goal(graph, bus, port):
    for one in bus.servos.values():
        one.set(ct.GOAL_POSITION, 3000)
        one.place(1500)
    process = start('servo_node', port_name=port)
    try:
        ready(graph)
        assert move(graph, tilt=ct.radians(1600))[0] == SUCCEEDED
        assert bus.servos[1].position == pytest.approx(1500, abs=1)
        first = next(one for one in bus.journal.entries if one['register'] == 'torque_enable' and one['value'])
        before = bus.journal.entries[:bus.journal.entries.index(first)]
        assert [one['register'] for one in before if one['id'] == first['id']][-2:] == ['bus_watchdog', 'goal_position']
        assert max(goals(bus, 1)) <= 1501
    finally:
        stop(process)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_switches_the_torque_off(graph, tmp_path, number):
    link, journal = tmp_path / 'servos', tmp_path / 'journal.jsonl'
    simulator = subprocess.Popen([sys.executable, '-m', 'moe_hardware.simulation.sim_servos', '--link', str(link),
                                  '--journal', str(journal)])
    process = start('servo_node', port_name=link)
    try:
        ready(graph)
        graph.send(MoveJoints, 'move_joints', joint_names=['pan'], positions=[1.2], duration=10.0)
        process.send_signal(number)
        assert process.wait(10) == 0
        last = {}
        for line in journal.read_text().splitlines():
            entry = json.loads(line)
            if entry['register'] in ('torque_enable', 'goal_position') and not entry['error']:
                last[entry['id']] = (entry['register'], entry['value'])
        assert last == {1: ('torque_enable', 0), 2: ('torque_enable', 0)}
    finally:
        stop(process)
        stop(simulator)


def test_after_sigkill_the_watchdog_stops_motion_and_a_restart_clears_it(graph, node, bus, port):
    graph.send(MoveJoints, 'move_joints', joint_names=['pan'], positions=[1.5], duration=10.0)
    wait_for(lambda: bus.servos[1].position > 2060)
    node.kill()
    node.wait()
    with bus.lock:  # even a goal that is still far away is not gone to any more
        bus.servos[1].set(ct.GOAL_POSITION, 3000)
        bus.servos[1].set(ct.PROFILE_VELOCITY, 1)
    wait_for(lambda: bus.servos[1].position and bus.servos[1].get(ct.BUS_WATCHDOG) == ct.WATCHDOG_ERROR)
    still = bus.servos[1].position
    assert still < 2900
    process = start('servo_node', port_name=port)
    try:
        wait_for(lambda: bus.servos[1].get(ct.BUS_WATCHDOG) > 0)
        assert bus.servos[1].position == pytest.approx(still, abs=2)
        ready(graph)
        assert move(graph, pan=0.0)[0] == SUCCEEDED
    finally:
        stop(process)


def diagnosis(graph, name, level):
    def found(message):
        return [status for status in message.status if status.name.endswith(name) and status.level == level]
    return found(graph.latest(DiagnosticArray, '/diagnostics', found))[0]


def test_an_absent_port_is_named_and_taken_when_it_appears(graph, port):
    process = start('servo_node', port_name=port)
    try:
        status = diagnosis(graph, 'servos: bus', DiagnosticStatus.ERROR)
        assert 'does not exist; plug the adapter in or set port_name' in status.message
        assert status.hardware_id == str(port)
        state = states(graph, lambda message: len(message.servos) == 2)
        assert not any(one.online for one in state.servos) and not state.estop
        status, result = move(graph, pan=0.1)
        assert (status, result.error_code) == (ABORTED, ErrorCode.HARDWARE_ERROR)
        assert 'does not exist' in result.error_msg
        assert move(graph, pan=9.0)[1].error_code == ErrorCode.SAFETY_VIOLATION
        assert not graph.call(Trigger, 'reset_estop').success
        with SimulatedBus((1, 2), port):
            ready(graph)
            assert move(graph, pan=0.1)[0] == SUCCEEDED
            stop(process)
    finally:
        stop(process)
    assert process.returncode == 0


def test_unplugged_it_trips_the_estop_and_comes_back_on_another_pty(graph, node, bus):
    handle = graph.send(MoveJoints, 'move_joints', joint_names=['pan'], positions=[1.2], duration=10.0)
    wait_for(lambda: bus.servos[1].position > 2060)
    bus.unplug()
    status, result = graph.result(handle)
    assert (status, result.error_code) == (ABORTED, ErrorCode.HARDWARE_ERROR)
    state = states(graph, lambda message: message.estop and not any(one.online for one in message.servos))
    assert 'was lost' in state.estop_reason
    bus.plug()
    states(graph, lambda message: all(one.online for one in message.servos))
    assert move(graph, pan=0.0)[1].error_code == ErrorCode.SAFETY_VIOLATION
    assert graph.call(Trigger, 'reset_estop').success
    assert move(graph, pan=0.0)[0] == SUCCEEDED


def test_one_dead_servo_leaves_the_others_and_recovers_after_its_reboot(graph, node, bus):
    bus.servos[1].muted = True
    graph.latest(JointState, 'joint_states', lambda message: message.name == ['tilt'])
    assert move(graph, tilt=0.2)[0] == SUCCEEDED
    states(graph, lambda message: [one.online for one in message.servos] == [False, True])
    status, result = move(graph, pan=0.2)
    assert result.error_code == ErrorCode.HARDWARE_ERROR and 'pan (servo 1) does not answer' in result.error_msg
    with bus.lock:
        bus.servos[1].reboot()
        bus.servos[1].muted = False
    ready(graph)
    assert move(graph, pan=0.2)[0] == SUCCEEDED
    assert graph.call(RebootServos, 'reboot', joint_names=['pan']).error_code == 0
    ready(graph)
    assert bus.servos[1].torque


def test_voltage_heat_and_hardware_errors(graph, node, bus):
    bus.servos[1].voltage = 9.0
    assert '9.0 V, less than 10.0 V' in diagnosis(graph, 'servos: pan', DiagnosticStatus.WARN).message
    bus.servos[1].voltage = 5.5
    assert '5.5 V, less than 6.5 V' in diagnosis(graph, 'servos: pan', DiagnosticStatus.ERROR).message
    assert 'pan has 5.5 V' in states(graph, lambda message: message.estop).estop_reason
    refused = graph.call(Trigger, 'reset_estop')
    assert not refused.success and 'pan has 5.5 V' in refused.message
    bus.servos[1].voltage = 12.0
    wait_for(lambda: graph.call(Trigger, 'reset_estop').success)
    bus.servos[2].temperature = 71.0
    assert 'tilt is at 71 degrees' in states(graph, lambda message: message.estop).estop_reason
    wait_for(lambda: not bus.servos[2].torque)
    assert bus.servos[1].torque
    bus.servos[2].temperature = 30.0
    wait_for(lambda: graph.call(Trigger, 'reset_estop').success)
    wait_for(lambda: bus.servos[2].torque)
    with bus.lock:
        bus.servos[1].raise_hardware_error(1 << 5)
    assert 'pan reports overload' in states(graph, lambda message: message.estop).estop_reason
    assert not graph.call(Trigger, 'reset_estop').success
    assert graph.call(RebootServos, 'reboot', joint_names=['pan']).error_code == 0
    wait_for(lambda: graph.call(Trigger, 'reset_estop').success)
    assert move(graph, pan=0.1)[0] == SUCCEEDED


def test_a_blocked_servo_ends_the_goal(graph, node, bus):
    bus.servos[1].stalled = True
    status, result = move(graph, pan=0.5)
    assert (status, result.error_code) == (ABORTED, ErrorCode.HARDWARE_ERROR)
    assert 'pan stopped 28.' in result.error_msg and 'what blocks it' in result.error_msg


def test_scan_finds_servos_at_other_rates_and_the_bus_goes_on(graph, node, bus):
    response = graph.call(ScanServos, 'scan_servos', timeout=20.0, baud_rates=[57600, 1000000])
    assert [(one.id, one.model_number, one.baud_rate, one.voltage) for one in response.servos] == [
        (1, 1060, 57600, 12.0), (2, 1060, 57600, 12.0)]
    assert move(graph, pan=0.1)[0] == SUCCEEDED
    assert not bus.servos[1].get(ct.BUS_WATCHDOG) == ct.WATCHDOG_ERROR


def test_a_port_in_use_is_named(graph, node, bus, port):
    second = subprocess.run(
        [sys.executable, '-c', 'import sys\nfrom moe_hardware.dynamixel.bus import Bus\n'
         'try:\n    Bus(sys.argv[1], 57600).open()\nexcept Exception as error:\n    print(error)', str(port)],
        capture_output=True, text=True, timeout=20)
    assert 'is busy' in second.stdout


def test_a_wrong_setting_ends_with_its_sentence(port):
    process = subprocess.run(
        [sys.executable, '-m', 'moe_hardware.ros.servo_node', '--ros-args', '-p', 'ids:=[1]'],
        capture_output=True, text=True, timeout=20)
    assert process.returncode == 1
    assert 'need one entry for each joint' in process.stderr.splitlines()[-1]
