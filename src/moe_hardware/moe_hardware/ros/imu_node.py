"""imu_node: publishes what the IMU measures, with an orientation, and calibrates it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
from geometry_msgs.msg import Quaternion
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from sensor_msgs.msg import Imu, Temperature
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from moe_hardware.device_thread import DeviceThread
from moe_hardware.errors import InvalidCommand, MotionError
from moe_hardware.imu import complementary_filter
from moe_hardware.imu.bno055 import Bno055Driver
from moe_hardware.imu.calibration import Calibration, load
from moe_hardware.imu.calibration_run import CalibrationCancelled, calibrate
from moe_hardware.imu.complementary_filter import ComplementaryFilter
from moe_hardware.imu.driver import ImuDriver
from moe_hardware.imu.mpu6050 import Mpu6050Driver
from moe_hardware.imu.reading import Reading
from moe_hardware.imu.replay import ReplayDriver
from moe_hardware.imu.stream import TEMPERATURE_PERIOD_S, ImuStream
from moe_hardware.ros import imu_bag
from moe_hardware.ros.diagnostics import ERROR, OK, STALE, WARN, Diagnostics
from moe_hardware.ros.managed_node import INACTIVE, ManagedNode
from moe_hardware.ros.publishing import sensor_publisher, stamp, until_shutdown, warner
from moe_hardware.ros.spinning import spin
from moe_interfaces.action import CalibrateImu

USUAL_SAMPLES = 2000
THREADS = 4  # a calibration takes one for a minute and more
LOW_RATE_SHARE = 0.8  # of the wanted rate; below it diagnostics warn
LONGEST_RECONNECT_DELAY_S = 4.0
DRIVERS, FILTERS = ('bno055', 'mpu6050', 'replay'), ('complementary', 'fusion')


class CalibrationRunning(MotionError):
    """One calibration at a time (OVERLOADED)."""

    code = 3002


class ImuNode(ManagedNode):
    """Publishes imu/data_raw, imu/data and imu/temperature; serves calibrate_imu and calibrate."""

    def __init__(self) -> None:
        super().__init__('imu')
        home = Path(os.environ.get('MOE_HOME') or '~/.local/share/moe').expanduser().absolute()

        def declare(name: str, default: Any, description: str, **limits: Any) -> Any:
            return self.declare_parameter(
                name, default, ParameterDescriptor(description=description, read_only=True, **limits)).value

        def between(low: float, high: float) -> dict[str, Any]:
            return {'floating_point_range': [FloatingPointRange(from_value=low, to_value=high, step=0.0)]}

        kind = declare('driver', 'bno055', f'one of {", ".join(DRIVERS)}')
        self._port_name = declare('port_name', '/dev/imu', 'serial port of the BNO055, I2C bus of the MPU-6050 '
                                  '(/dev/i2c-1), or the recording; symlinks are followed anew')
        address = declare('i2c_address', 0x68, 'of the MPU-6050', integer_range=[
            IntegerRange(from_value=0x08, to_value=0x77, step=1)])
        loop = declare('loop', True, 'begin a recording again at its end')
        baud_rate = declare('baud_rate', 115200, 'of the BNO055 [baud]', integer_range=[
            IntegerRange(from_value=1200, to_value=4_000_000, step=1)])
        self._rate = declare('rate', 100.0, 'readings per second [Hz]', **between(1.0, 200.0))
        self._frame_id = declare('frame_id', 'imu_link', 'frame of the sensor: x forward, y left, z up')
        orientation_filter = declare('filter', 'complementary', f'one of {", ".join(FILTERS)}: complementary, or that '
                                     'of x-io (Madgwick, package imufusion)')
        gain = declare('fusion_gain', 0.5, 'of the filter "fusion": weight of gravity against the gyroscope',
                       **between(0.001, 10.0))
        alpha = declare('alpha', 0.98, 'weight of the gyroscope per sample at 100 Hz; another rate keeps the time '
                        'constant of 0.49 s', **between(0.0, 0.9999))
        deviation = between(0.0, 100.0)
        angular = declare('angular_velocity_stddev', 0.0018, 'noise of each axis [rad/s]; 0: unknown', **deviation)
        linear = declare('linear_acceleration_stddev', 0.02, 'noise of each axis [m/s^2]; 0: unknown', **deviation)
        tilt = declare('orientation_stddev', 0.02, 'of roll and pitch [rad]; 0: unknown', **deviation)
        heading = declare('yaw_stddev', 3.14, 'of the heading, which no sensor observes [rad]', **deviation)
        self._calibration_file = Path(declare(
            'calibration_file', str(home / 'hardware' / 'imu_calibration.yaml'),
            'YAML file of the offsets; written by calibrate_imu')).expanduser()
        self._warmup_s = declare('warmup_s', 60.0, 'a chip that has been on for less is cold: its offsets still '
                                 'drift [s]', **between(0.0, 3600.0))
        self._angular_covariance = _diagonal(angular, angular, angular)
        self._linear_covariance = _diagonal(linear, linear, linear)
        self._orientation_covariance = _diagonal(tilt, tilt, heading)
        self._raw = sensor_publisher(self, Imu, 'imu/data_raw')
        self._data = sensor_publisher(self, Imu, 'imu/data')
        self._temperature = sensor_publisher(self, Temperature, 'imu/temperature')
        self._temperature_due_ns = 0
        self._calibrating = threading.Lock()
        if kind not in DRIVERS or orientation_filter not in FILTERS:
            raise ValueError(f'driver is one of {", ".join(DRIVERS)} and filter one of {", ".join(FILTERS)}, not '
                             f'"{kind}" and "{orientation_filter}".')
        driver: ImuDriver
        if kind == 'bno055':
            driver = Bno055Driver(self._port_name, baud_rate)
        elif kind == 'mpu6050':
            driver = Mpu6050Driver(self._port_name, address)
        else:
            driver = ReplayDriver(self._port_name, imu_bag.load, loop)
        fusion = ComplementaryFilter(alpha) if orientation_filter == 'complementary' else _fusion(gain, self._rate)
        self._stream = ImuStream(driver, self._rate, fusion,
                                 lambda: int(self.get_clock().now().nanoseconds), self._publish)
        self._calibration_fault = ''
        try:
            self._stream.calibration = load(self._calibration_file)
        except InvalidCommand as error:
            self._calibration_fault = str(error)
            self.get_logger().warning(self._calibration_fault)
        self._thread = DeviceThread(
            self._stream, 'imu', LONGEST_RECONNECT_DELAY_S,
            lambda: self.get_logger().info(f'The IMU on {self._port_name} measures.'), warner(self))
        Diagnostics(self, self._port_name).add('device', self._diagnose)
        self._server = ActionServer(
            self, CalibrateImu, self.resolve_service_name('calibrate_imu'),  # Jazzy remaps no topics of an action
            self._execute, callback_group=ReentrantCallbackGroup(), cancel_callback=lambda _goal: CancelResponse.ACCEPT)
        self.create_service(Trigger, 'calibrate', self._serve, callback_group=ReentrantCallbackGroup())
        self.autostart()

    def begin(self) -> None:
        """Open the IMU."""
        self._thread.start()

    def end(self) -> None:
        """Let go of the IMU."""
        self._thread.stop()

    def _publish(self, reading: Reading, orientation: complementary_filter.Quaternion) -> None:
        """Publish a reading where somebody listens; called in the device's thread."""
        with until_shutdown(self):
            if self._raw.get_subscription_count():
                raw = self._message(reading)
                raw.orientation_covariance[0] = -1.0  # REP 145: no orientation in it
                self._raw.publish(raw)
            if self._data.get_subscription_count():
                data = self._message(reading)
                x, y, z, w = orientation
                data.orientation = Quaternion(x=x, y=y, z=z, w=w)
                data.orientation_covariance = self._orientation_covariance
                self._data.publish(data)
            # A clock set back must not silence it.
            if not 0 <= self._temperature_due_ns - reading.stamp_ns <= TEMPERATURE_PERIOD_S * 1e9:
                self._temperature_due_ns = reading.stamp_ns + int(TEMPERATURE_PERIOD_S * 1e9)
                self._temperature.publish(Temperature(
                    header=Header(stamp=stamp(reading.stamp_ns), frame_id=self._frame_id),
                    temperature=float(reading.temperature)))

    def _message(self, reading: Reading) -> Imu:
        """Return what both topics have in common; filled in place, which costs half of making the parts anew."""
        message = Imu()
        head, velocity, force = message.header, message.angular_velocity, message.linear_acceleration
        head.stamp, head.frame_id = stamp(reading.stamp_ns), self._frame_id
        velocity.x, velocity.y, velocity.z = reading.angular_velocity
        force.x, force.y, force.z = reading.linear_acceleration
        message.angular_velocity_covariance = self._angular_covariance
        message.linear_acceleration_covariance = self._linear_covariance
        return message

    def _calibrate(self, samples: int, warmup_s: float, progress: Callable[[str, int], None],
                   cancelled: Callable[[], bool]) -> Calibration:
        """Calibrate, one caller at a time. Raises MotionError."""
        if not self._calibrating.acquire(blocking=False):
            raise CalibrationRunning('A calibration is running already; wait for it or cancel it.')
        try:
            found = calibrate(self._stream, samples, self._warmup_s if warmup_s < 0 else warmup_s, self._warmup_s,
                              self._calibration_file, progress, lambda: cancelled() or not self.context.ok())
        except MotionError as error:
            self.get_logger().warning(str(error))
            raise
        finally:
            self._calibrating.release()
        self._calibration_fault = ''
        if not found.warm:
            self.get_logger().warning(f'The IMU was calibrated within {self._warmup_s:.0f} s of its start; its offsets '
                                      'will drift as it warms, so calibrate again later.')
        return found

    def _execute(self, handle: ServerGoalHandle) -> CalibrateImu.Result:
        goal, result = handle.request, CalibrateImu.Result()
        try:
            found = self._calibrate(
                goal.samples, goal.warmup_s,
                lambda phase, samples: handle.publish_feedback(CalibrateImu.Feedback(phase=phase, samples=samples)),
                lambda: handle.is_cancel_requested)
        except MotionError as error:
            result.error_code, result.error_msg = error.code, str(error)
            if handle.is_cancel_requested and isinstance(error, CalibrationCancelled):
                handle.canceled()
            elif self.context.ok():
                handle.abort()
            return result
        result.gyro_bias, result.accel_bias = list(found.gyro_bias), list(found.accel_bias)
        result.accel_norm, result.temperature = found.accel_norm, found.temperature
        result.path = str(self._calibration_file)
        handle.succeed()
        return result

    def _serve(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Calibrate with the usual number of samples, for callers without actions; takes as long."""
        try:
            found = self._calibrate(USUAL_SAMPLES, -1.0, lambda _phase, _samples: None, lambda: False)
        except MotionError as error:
            response.success, response.message = False, str(error)
            return response
        response.success = True
        response.message = f'Saved {found.samples} samples to {self._calibration_file}.'
        return response

    def _diagnose(self) -> tuple[bytes, str, dict[str, str]]:
        stream, calibration, measured = self._stream, self._stream.calibration, self._stream.meter.rate()
        values = {
            'state': 'streaming' if self._thread.running else 'waiting for the device',
            'port': os.path.realpath(self._port_name), 'wanted rate [Hz]': f'{self._rate:.1f}',
            'measured rate [Hz]': f'{measured:.1f}', 'temperature [degree Celsius]': f'{stream.temperature:.0f}',
            'damaged replies': str(stream.damaged), 'reconnections': str(self._thread.restarts),
            'calibration': f'{calibration.samples} samples' if calibration.samples else 'none; run calibrate_imu',
            'last error': self._thread.fault or self._calibration_fault}
        if not self.active:
            return STALE, INACTIVE, {**values, 'state': 'inactive'}
        if not self._thread.running:
            return ERROR, self._thread.fault or 'The IMU is being opened.', values
        if self._calibration_fault:
            return WARN, self._calibration_fault, values
        if stream.running_s > 5.0 and measured < LOW_RATE_SHARE * self._rate:
            return WARN, f'{measured:.1f} readings/s instead of {self._rate:.1f}; is the machine overloaded?', values
        if calibration.samples and not calibration.warm:
            return WARN, 'The IMU was calibrated cold; calibrate it again now that it is warm.', values
        return OK, 'The IMU measures.', values


def _fusion(gain: float, rate: float) -> Any:
    """Make the filter of x-io. Raises ValueError where its package is missing."""
    try:
        from moe_hardware.imu.fusion_filter import FusionFilter
    except ImportError as error:
        raise ValueError('The filter "fusion" needs the package imufusion; install it or set filter to '
                         'complementary.') from error
    return FusionFilter(gain, rate)


def _diagonal(x: float, y: float, z: float) -> numpy.ndarray:
    """Return a row-major 3x3 covariance from standard deviations."""
    return numpy.diag((x * x, y * y, z * z)).reshape(-1)


def main() -> None:
    """Run the node."""
    spin(ImuNode, THREADS)


if __name__ == '__main__':
    main()
