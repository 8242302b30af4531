"""The lifecycle of the nodes: autostart, or a manager's transitions; inactive nodes leave the device alone."""

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from processes import sim_imu, wait_for
from ros_graph import Graph, node, wait_for_status
from sensor_msgs.msg import Imu, JointState
from servo_graph import ServoGraph, goals, start, stop

from moe_hardware.simulation.servo_bus import SimulatedBus
from moe_interfaces.action import ExecuteMotion, MoveJoints
from moe_interfaces.msg import ErrorCode
from moe_interfaces.srv import SetTorque

STALE = b'\x03'


def change(graph, name, transition):
    return graph.call(ChangeState, f'{name}/change_state',
                      ChangeState.Request(transition=Transition(id=transition))).success


def state(graph, name):
    return graph.call(GetState, f'{name}/get_state', GetState.Request()).current_state.label


@pytest.fixture
def graph():
    with ServoGraph() as graph:
        yield graph


def test_a_manager_starts_and_stops_the_servos(graph, tmp_path):
    with SimulatedBus((1, 2), tmp_path / 'servos') as bus:
        process = start('servo_node', port_name=tmp_path / 'servos', autostart='false')
        try:
            assert state(graph, 'servos') == 'unconfigured'
            assert not change(graph, 'servos', Transition.TRANSITION_ACTIVATE)
            assert change(graph, 'servos', Transition.TRANSITION_CONFIGURE)
            refusal = graph.ask(SetTorque, 'set_torque', enable=True)
            assert refusal.error_code == ErrorCode.HARDWARE_ERROR
            assert 'inactive' in refusal.error_msg
            assert not bus.journal.entries
            for _ in range(2):  # once more after it was stopped
                assert change(graph, 'servos', Transition.TRANSITION_ACTIVATE)
                graph.latest(JointState, 'joint_states')
                wait_for(lambda: all(one.torque for one in bus.servos.values()))
                assert graph.execute(MoveJoints, 'move_joints', joint_names=['pan'], positions=[0.1])[0] == 4
                assert change(graph, 'servos', Transition.TRANSITION_DEACTIVATE)
                assert not any(one.torque for one in bus.servos.values())
                assert state(graph, 'servos') == 'inactive'
            assert goals(bus)
            assert change(graph, 'servos', Transition.TRANSITION_CLEANUP)
            assert change(graph, 'servos', Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
            assert state(graph, 'servos') == 'finalized'
        finally:
            stop(process)
        assert process.returncode == 0


def test_an_inactive_imu_is_silent_and_says_so(tmp_path):
    link = tmp_path / 'imu'
    with Graph() as graph, sim_imu(link), node(tmp_path / 'node.log', 'imu_node', port_name=link) as process:
        graph.listen(Imu, 'imu/data').next()
        assert state(graph, 'imu') == 'active'
        assert change(graph, 'imu', Transition.TRANSITION_DEACTIVATE)
        status = wait_for_status(graph.diagnostics(), 'imu', lambda one: one.level == STALE)
        assert 'activate it' in status.message
        assert change(graph, 'imu', Transition.TRANSITION_ACTIVATE)
        graph.listen(Imu, 'imu/data').next()
        assert process.end() == 0


def test_an_inactive_motion_node_refuses(graph):
    process = start('motion_node', autostart='false')
    try:
        status, result = graph.execute(ExecuteMotion, 'execute_motion', command='{"action":"center"}')
        assert (status, result.error_code) == (6, ErrorCode.HARDWARE_ERROR)
        assert 'inactive' in result.error_msg
    finally:
        stop(process)
