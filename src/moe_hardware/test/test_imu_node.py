"""The IMU node as a process, with a simulated chip as another: topics, conventions, calibration, bad days."""

import math
import os
import signal

import pytest
import yaml
from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticStatus
from processes import sim_imu, wait_for
from rclpy.qos import qos_profile_sensor_data
from ros_graph import Graph, node, result_of, wait_for_status
from sensor_msgs.msg import Imu, Temperature

from moe_hardware.simulation.pseudo_terminal import PseudoTerminal
from moe_interfaces.action import CalibrateImu
from moe_interfaces.msg import ErrorCode


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


def imu_node(tmp_path, **parameters):
    return node(tmp_path / 'node.log', 'imu_node', **{
        'port_name': tmp_path / 'imu', 'calibration_file': tmp_path / 'calibration.yaml', 'warmup_s': 0.0,
        **parameters})


def seconds(header):
    return header.stamp.sec + header.stamp.nanosec * 1e-9


def calibrate(graph, samples=100, warmup_s=-1.0, feedback=None):
    handle = graph.send(CalibrateImu, 'calibrate_imu', CalibrateImu.Goal(samples=samples, warmup_s=warmup_s), feedback)
    done = result_of(handle.get_result_async(), 60.0)
    return done.status, done.result


def test_topics_follow_rep_103_and_145(tmp_path, graph):
    raw = graph.listen(Imu, 'imu/data_raw')
    data = graph.listen(Imu, 'imu/data', qos_profile_sensor_data)
    temperature = graph.listen(Temperature, 'imu/temperature')
    with sim_imu(tmp_path / 'imu', '--still', '--warmup-s', '0'), imu_node(tmp_path) as process:
        raws, fused = raw.next(60), data.next(20)
        warm = temperature.next(1)[0]
        assert process.end() == 0, process.output
    assert warm.temperature == 38.0 and warm.header.frame_id == 'imu_link'
    for message in raws + fused:
        assert message.header.frame_id == 'imu_link'
        assert message.linear_acceleration.z == pytest.approx(9.80665, abs=0.4)
        assert abs(message.angular_velocity.z) < 0.1
        assert list(message.angular_velocity_covariance[::4]) == pytest.approx([0.0018 ** 2] * 3)
        assert list(message.linear_acceleration_covariance[::4]) == pytest.approx([0.02 ** 2] * 3)
    assert all(message.orientation_covariance[0] == -1.0 for message in raws)
    for message in fused:
        q = message.orientation
        assert math.hypot(q.x, q.y, q.z, q.w) == pytest.approx(1.0)
        assert math.hypot(q.x, q.y) < 0.05, 'level'
        assert list(message.orientation_covariance[::4]) == pytest.approx([0.02 ** 2, 0.02 ** 2, 3.14 ** 2])
    both = {seconds(message.header) for message in raw.messages}
    assert all(seconds(message.header) in both for message in fused), 'one reading, one stamp'
    stamps = [seconds(message.header) for message in raws]
    assert stamps == sorted(stamps)


def test_calibrates_and_remembers(tmp_path, graph):
    feedback, data = [], graph.listen(Imu, 'imu/data')
    arguments = ('--still', '--warmup-s', '0', '--seed', '4')
    with sim_imu(tmp_path / 'imu', *arguments), imu_node(tmp_path, warmup_s=0.5) as process:
        assert mean_yaw_rate(data) > 0.01, 'the offset of this chip'
        status, result = calibrate(graph, 100, feedback=feedback)
        assert (status, result.error_code, result.error_msg) == (GoalStatus.STATUS_SUCCEEDED, ErrorCode.NONE, '')
        assert 9.0 < result.accel_norm < 10.6 and result.temperature == 38.0
        assert result.path == str(tmp_path / 'calibration.yaml')
        phases = [message.phase for message in feedback]
        assert phases[-1] == 'save' and 'collect' in phases
        assert mean_yaw_rate(data) < 0.002
        assert process.end(signal.SIGINT) == 0
    saved = yaml.safe_load((tmp_path / 'calibration.yaml').read_text())
    assert saved['gyro_bias'] == pytest.approx(list(result.gyro_bias)) and saved['warm'] is True
    with sim_imu(tmp_path / 'imu', *arguments), imu_node(tmp_path):
        data.next(1)
        assert mean_yaw_rate(data) < 0.002, 'kept over a restart'


def mean_yaw_rate(listener):
    return abs(sum(message.angular_velocity.z for message in listener.next(50)) / 50)


def test_calibration_refuses_motion_few_samples_a_second_goal_and_can_be_cancelled(tmp_path, graph):
    with sim_imu(tmp_path / 'imu', '--sway'), imu_node(tmp_path) as process:
        graph.listen(Imu, 'imu/data').next(1)
        status, result = calibrate(graph, 2000)
        assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.SAFETY_VIOLATION)
        assert 'The robot moved' in result.error_msg
        status, result = calibrate(graph, 10)
        assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.INVALID_REQUEST)
        feedback = []
        waiting = graph.send(CalibrateImu, 'calibrate_imu', CalibrateImu.Goal(samples=100, warmup_s=1000.0), feedback)
        wait_for(lambda: feedback, what='feedback')
        assert feedback[0].phase == 'warm up'
        status, result = calibrate(graph, 100)
        assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.OVERLOADED)
        result_of(waiting.cancel_goal_async())
        done = result_of(waiting.get_result_async())
        assert (done.status, done.result.error_code) == (GoalStatus.STATUS_CANCELED, ErrorCode.CANCELLED)
        assert not (tmp_path / 'calibration.yaml').exists()
        # Leaving in the middle of one is clean as well.
        graph.send(CalibrateImu, 'calibrate_imu', CalibrateImu.Goal(samples=100, warmup_s=1000.0))
        assert process.end() == 0, process.output
    assert not os.path.lexists(tmp_path / 'calibration.yaml')


def test_waits_for_its_device_and_says_why(tmp_path, graph):
    diagnostics, data = graph.diagnostics(), graph.listen(Imu, 'imu/data')
    with imu_node(tmp_path) as process:
        status = wait_for_status(diagnostics, 'imu', lambda one: one.level == DiagnosticStatus.ERROR and 'exist' in
                                 one.message)
        assert status.message == f'{tmp_path}/imu does not exist; plug in the IMU or set port_name ' \
            '(see ls -l /dev/serial/by-id).'
        assert status.hardware_id == str(tmp_path / 'imu')
        _, result = calibrate(graph, 100)
        assert result.error_code == ErrorCode.HARDWARE_ERROR and 'not connected' in result.error_msg
        with sim_imu(tmp_path / 'imu', '--warmup-s', '0'):
            data.next(5)
            status = wait_for_status(diagnostics, 'imu', lambda one: one.level == DiagnosticStatus.OK)
            values = {pair.key: pair.value for pair in status.values}
            assert values['wanted rate [Hz]'] == '100.0' and values['state'] == 'streaming'
        assert process.popen.poll() is None
        assert process.end() == 0, process.output


def test_a_replugged_device_is_found_behind_the_same_link(tmp_path, graph):
    diagnostics, data = graph.diagnostics(), graph.listen(Imu, 'imu/data')
    with imu_node(tmp_path) as process:
        with sim_imu(tmp_path / 'imu') as simulator:
            data.next(5)
            simulator.end(signal.SIGKILL)
        wait_for_status(diagnostics, 'imu', lambda one: one.level == DiagnosticStatus.ERROR)
        # Another device now has the number of the old one.
        with PseudoTerminal(), sim_imu(tmp_path / 'imu'):
            data.next(5)
            status = wait_for_status(diagnostics, 'imu', lambda one: one.level != DiagnosticStatus.ERROR)
            assert ('reconnections', '1') in [(pair.key, pair.value) for pair in status.values]
        assert process.end() == 0, process.output


def test_a_broken_calibration_file_is_told_and_kept(tmp_path, graph):
    (tmp_path / 'calibration.yaml').write_text('not: a calibration\n')
    diagnostics = graph.diagnostics()
    with sim_imu(tmp_path / 'imu'), imu_node(tmp_path):
        status = wait_for_status(diagnostics, 'imu', lambda one: one.level == DiagnosticStatus.WARN)
        assert 'is not a calibration of an IMU' in status.message
    assert (tmp_path / 'calibration.yaml').read_text() == 'not: a calibration\n'


def test_a_cold_calibration_warns(tmp_path, graph):
    diagnostics = graph.diagnostics()
    with sim_imu(tmp_path / 'imu'), imu_node(tmp_path, warmup_s=600.0):
        graph.listen(Imu, 'imu/data').next(1)
        status, result = calibrate(graph, 100, warmup_s=0.0)
        assert status == GoalStatus.STATUS_SUCCEEDED, result.error_msg
        status = wait_for_status(diagnostics, 'imu', lambda one: one.level == DiagnosticStatus.WARN)
        assert 'calibrated cold' in status.message
    assert yaml.safe_load((tmp_path / 'calibration.yaml').read_text())['warm'] is False
