"""The action follow_joint_trajectory as MoveIt sends it, where control_msgs is installed."""

import pytest
from servo_graph import ABORTED, CANCELED, SUCCEEDED, ServoGraph, ready, start, states, stop
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from moe_hardware.simulation.servo_bus import SimulatedBus

pytest.importorskip('control_msgs', reason='control_msgs is not installed; ROS 2 from PyPI does not have it')
from control_msgs.action import FollowJointTrajectory


@pytest.fixture(scope='module')
def graph(tmp_path_factory):
    port = tmp_path_factory.mktemp('run') / 'servos'
    with ServoGraph() as graph, SimulatedBus((1, 2), port):
        process = start('servo_node', port_name=port)
        ready(graph)
        yield graph
        stop(process)


def path(*points, names=('pan', 'tilt')):
    """Points of (second, positions [rad])."""
    trajectory = JointTrajectory(joint_names=list(names))
    for second, positions in points:
        point = JointTrajectoryPoint(positions=[float(one) for one in positions])
        point.time_from_start.sec, point.time_from_start.nanosec = int(second), int(second % 1 * 1e9)
        trajectory.points.append(point)
    return trajectory


def test_a_path_is_followed_point_by_point(graph):
    feedback = []
    handle = graph.begin(FollowJointTrajectory, 'follow_joint_trajectory', lambda one: feedback.append(one.feedback),
                         trajectory=path((0.6, (0.3, 0.0)), (1.2, (0.3, -0.2))))
    status, result = graph.end(handle)
    assert (status, result.error_code, result.error_string) == (SUCCEEDED, FollowJointTrajectory.Result.SUCCESSFUL, '')
    arrived = states(graph, lambda message: True)
    assert [one.position for one in arrived.servos] == pytest.approx([0.3, -0.2], abs=0.03)
    assert list(feedback[0].joint_names) == ['pan', 'tilt']
    for one in feedback:
        for desired, actual, error in zip(one.desired.positions, one.actual.positions, one.error.positions,
                                          strict=True):
            assert error == pytest.approx(desired - actual)


def test_a_path_out_of_the_limits_is_refused_whole(graph):
    before = [one.position for one in states(graph, lambda message: True).servos]
    for wrong in (path((0.5, (0.0, 0.0)), (1.0, (3.0, 0.0))), path((0.5, (0.1,)), names=('elbow',)), path()):
        status, result = graph.execute(FollowJointTrajectory, 'follow_joint_trajectory', trajectory=wrong)
        assert (status, result.error_code) == (ABORTED, FollowJointTrajectory.Result.INVALID_GOAL)
        assert result.error_string
    after = [one.position for one in states(graph, lambda message: True).servos]
    assert after == pytest.approx(before, abs=0.03)


def test_a_cancelled_path_ends_where_it_is(graph):
    handle = graph.begin(FollowJointTrajectory, 'follow_joint_trajectory', trajectory=path((4.0, (-1.2, 0.4))))
    states(graph, lambda message: message.servos[0].position < 0.1)
    handle.cancel_goal_async()
    status, _result = graph.end(handle)
    assert status == CANCELED
    held = states(graph, lambda message: abs(message.servos[0].velocity) < 0.01).servos[0].position
    assert -1.1 < held < 0.2
