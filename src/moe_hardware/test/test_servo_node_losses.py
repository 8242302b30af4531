"""The servo node as a process through starts, signals, and the loss of port, servo or itself."""

import json
import signal
import subprocess
import sys

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from processes import wait_for
from sensor_msgs.msg import JointState
from servo_graph import ABORTED, SUCCEEDED, ServoGraph, diagnosis, goals, move, ready, start, states, stop
from std_srvs.srv import Trigger

from moe_hardware.dynamixel import control_table as ct
from moe_hardware.simulation.servo_bus import SimulatedBus
from moe_interfaces.action import MoveJoints
from moe_interfaces.msg import ErrorCode
from moe_interfaces.srv import RebootServos


@pytest.fixture(scope='module')
def graph():
    with ServoGraph() as graph:
        yield graph


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
    try:
        ready(graph)
        yield process
    finally:
        stop(process)


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
        assert [one['register'] for one in before if one['id'] == first['id']][-3:] == [
            'bus_watchdog', 'goal_position', 'profile_velocity']
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
        graph.begin(MoveJoints, 'move_joints', joint_names=['pan'], positions=[1.2], duration=10.0)
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
    graph.begin(MoveJoints, 'move_joints', joint_names=['pan'], positions=[1.5], duration=10.0)
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
        assert not graph.ask(Trigger, 'reset_estop').success
        with SimulatedBus((1, 2), port):
            ready(graph)
            assert move(graph, pan=0.1)[0] == SUCCEEDED
            stop(process)
    finally:
        stop(process)
    assert process.returncode == 0


def test_unplugged_it_trips_the_estop_and_comes_back_on_another_pty(graph, node, bus):
    handle = graph.begin(MoveJoints, 'move_joints', joint_names=['pan'], positions=[1.2], duration=10.0)
    wait_for(lambda: bus.servos[1].position > 2060)
    bus.unplug()
    status, result = graph.end(handle)
    assert (status, result.error_code) == (ABORTED, ErrorCode.HARDWARE_ERROR)
    state = states(graph, lambda message: message.estop and not any(one.online for one in message.servos))
    assert 'was lost' in state.estop_reason
    bus.plug()
    states(graph, lambda message: all(one.online for one in message.servos))
    assert move(graph, pan=0.0)[1].error_code == ErrorCode.SAFETY_VIOLATION
    assert graph.ask(Trigger, 'reset_estop').success
    assert move(graph, pan=0.0)[0] == SUCCEEDED


def test_one_dead_servo_leaves_the_others_and_recovers_after_its_reboot(graph, node, bus):
    bus.servos[1].muted = True
    graph.latest(JointState, 'joint_states', lambda message: message.name == ['tilt'])
    assert move(graph, tilt=0.2)[0] == SUCCEEDED
    states(graph, lambda message: [one.online for one in message.servos] == [False, True])
    _status, result = move(graph, pan=0.2)
    assert result.error_code == ErrorCode.HARDWARE_ERROR and 'pan (servo 1) does not answer' in result.error_msg
    with bus.lock:
        bus.servos[1].reboot()
        bus.servos[1].muted = False
    ready(graph)
    assert move(graph, pan=0.2)[0] == SUCCEEDED
    assert graph.ask(RebootServos, 'reboot', joint_names=['pan']).error_code == 0
    ready(graph)
    assert bus.servos[1].torque


def test_a_wrong_setting_ends_with_its_sentence(port):
    process = subprocess.run(
        [sys.executable, '-m', 'moe_hardware.ros.servo_node', '--ros-args', '-p', 'ids:=[1]'],
        capture_output=True, text=True, timeout=20)
    assert process.returncode == 1
    assert 'need one entry for each joint' in process.stderr.splitlines()[-1]
