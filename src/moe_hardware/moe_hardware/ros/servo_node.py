"""servo_node: the only node that touches the servo bus; limits, speed and e-stop are checked before a byte is written.

E-stop: a movement ends, the joints hold where they are (with estop_releases_torque: lose their torque), and every
further motion is refused until reset_estop. It trips by the service, by heat, supply voltage and hardware errors of a
servo (its torque goes off after heat and hardware errors), and when the bus is lost.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.action import CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from moe_hardware.dynamixel import joints
from moe_hardware.dynamixel.controller import ServoController
from moe_hardware.dynamixel.servo import ServoReport
from moe_hardware.dynamixel.settings import Settings
from moe_hardware.dynamixel.vitals import VitalLimits
from moe_hardware.errors import MotionCancelled, MotionError
from moe_hardware.ros.action_client import SERVICE_QOS
from moe_hardware.ros.diagnostics import ERROR, OK, STALE, WARN, Diagnostics
from moe_hardware.ros.follow_joint_trajectory import FollowJointTrajectory, TrajectoryServer
from moe_hardware.ros.managed_node import INACTIVE, ManagedNode
from moe_hardware.ros.publishing import sensor_publisher, until_shutdown
from moe_hardware.ros.quick_endpoints import QuickEndpoints
from moe_hardware.ros.spinning import spin
from moe_interfaces.action import MoveJoints
from moe_interfaces.msg import ServoInfo, ServoState, ServoStates
from moe_interfaces.srv import RebootServos, ScanServos, SetServoId, SetTorque

STATES_PERIOD_S = 0.1
IDLE_STATES_PERIOD_S = 0.5  # while no servo answers
FEEDBACK_PERIOD_S = 0.05
MOST_GOALS = 12  # at once; each holds a thread until it ends
THREADS = 12  # a service waits for the bus; the e-stop and the others must find a free one


class ServoNode(ManagedNode):
    """Publishes joint_states and servo_states; moves the joints."""

    def __init__(self) -> None:
        super().__init__('servos')
        self._settings = self._declare_settings()
        self._last_refusal = ''
        self._states_due = 0.0  # monotonic [s]
        self._joint_states = sensor_publisher(self, JointState, 'joint_states', 10)
        self._servo_states = sensor_publisher(self, ServoStates, 'servo_states', 10)
        self._controller = ServoController(self._settings, self._publish_joints, self.get_logger().info,
                                           self.get_logger().warning)
        # Everything that commands the bus may wait for it, each in a thread of its own.
        group = ReentrantCallbackGroup()
        self.create_subscription(JointTrajectory, 'joint_trajectory', self._follow, 10,
                                 callback_group=MutuallyExclusiveCallbackGroup())  # in the order they come
        self.create_subscription(Float64MultiArray, 'commands', self._command, 1,
                                 callback_group=MutuallyExclusiveCallbackGroup())
        self._actions = QuickEndpoints(self, 'actions', MOST_GOALS)
        self._actions.action('move_joints', MoveJoints, self._move, lambda _goal: CancelResponse.ACCEPT)
        for interface, name, handle in (
                (SetTorque, 'set_torque', self._set_torque), (RebootServos, 'reboot', self._reboot),
                (ScanServos, 'scan_servos', self._scan), (SetServoId, 'set_servo_id', self._set_id)):
            self.create_service(interface, name, self._answer(handle), qos_profile=SERVICE_QOS, callback_group=group)
        if FollowJointTrajectory is not None:
            self._follow_joint_trajectory = TrajectoryServer(self, self._controller, self._actions)
        for name, act in (('estop', self._estop), ('reset_estop', self._reset_estop), ('stop_motion', self._stop)):
            self.create_service(Trigger, name, self._trigger(act), qos_profile=SERVICE_QOS, callback_group=group)
        self.create_timer(IDLE_STATES_PERIOD_S, self._publish_idle_states,
                          callback_group=MutuallyExclusiveCallbackGroup())
        diagnostics = Diagnostics(self, self._settings.port_name)
        diagnostics.add('bus', self._diagnose_bus)
        diagnostics.add('estop', self._diagnose_estop)
        for at, name in enumerate(self._settings.joints):
            diagnostics.add(name, lambda at=at: self._diagnose_servo(self._controller.reports[at]))
        self._actions.start()
        self.autostart()

    def begin(self) -> None:
        """Open the bus."""
        self._controller.start()

    def end(self) -> None:
        """Leave the servos as the settings say, torque off by default."""
        self._controller.stop()

    def close(self) -> None:
        """End of the process: leave the servos, then end their goals."""
        super().close()
        self._actions.close()

    def _declare_settings(self) -> Settings:
        """Declare the parameters. Raises ValueError for those that do not fit together."""
        def get(name: str, default: Any, description: str, low: float | None = None, high: float = 1e6) -> Any:
            ranges: dict[str, Any] = {}
            if low is not None and isinstance(default, int):
                ranges['integer_range'] = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
            elif low is not None:
                ranges['floating_point_range'] = [FloatingPointRange(from_value=float(low), to_value=float(high))]
            return self.declare_parameter(name, default, ParameterDescriptor(
                description=description, read_only=True, **ranges)).value

        names = get('joint_names', ['pan', 'tilt'], 'one per servo')
        configured = joints.configure(
            names=list(names), ids=list(get('ids', [1, 2], 'bus id of each servo, 0..252')),
            minima=list(get('min_position', [math.radians(-90.0), math.radians(-60.0)], 'of each joint [rad]')),
            maxima=list(get('max_position', [math.radians(90.0), math.radians(60.0)], 'of each joint [rad]')),
            directions=list(get('directions', [1] * len(names), '-1 where a servo is mounted the other way round')),
            max_velocity=get('max_velocity', math.pi, 'of every joint [rad/s]', 0.0, 30.0),
            max_acceleration=get('max_acceleration', 4.0 * math.pi, 'of every joint [rad/s^2]', 0.0, 1000.0))
        return Settings(
            port_name=get('port_name', '/dev/ttyUSB0', 'serial port of the bus; a symlink such as '
                          '/dev/serial/by-id/* is followed anew at every attempt'),
            baud_rate=get('baud_rate', 57600, 'of the servos [baud]', 9600, 4500000), joints=configured,
            rate=get('publish_rate', 50.0, 'of joint_states and of the goals of a movement [Hz]', 1.0, 500.0),
            vital_limits=VitalLimits(
                max_temperature=get('max_temperature', 70.0, 'trips the e-stop [degree Celsius]', 20.0, 100.0),
                min_voltage=get('min_voltage', 6.5, 'below trips the e-stop [V]', 0.0, 100.0),
                max_voltage=get('max_voltage', 14.8, 'above trips the e-stop [V]', 0.0, 100.0),
                low_voltage=get('low_voltage', 10.0, 'below is a warning [V]', 0.0, 100.0)),
            watchdog_ms=get('bus_watchdog_ms', 500, 'a servo that hears nothing for so long stops; 0 = off [ms]',
                            0, 2540),
            return_delay_us=get('return_delay_time', 0, 'how long a servo waits before it answers; written where it '
                                'differs and the torque is off, -1 = never [us]', -1, 508),
            command_timeout_s=get('command_timeout', 0.5, 'a motion by `commands` ends where it is so long after the '
                                  'last of them [s]', 0.02, 3600.0),
            torque_off_on_shutdown=get('torque_off_on_shutdown', True, 'else the servos hold where they are'),
            estop_releases_torque=get('estop_releases_torque', False, 'else an e-stop holds where the joints are'),
            goal_tolerance=get('goal_tolerance', 0.03, 'a movement has arrived this near its goal [rad]', 0.0, 1.0),
            settle_s=get('settle_s', 1.0, 'time to arrive after the last goal was written [s]', 0.0, 60.0))

    # --- states ----------------------------------------------------------------------------------------------------

    def _publish_joints(self, fresh: dict[str, tuple[float, float]]) -> None:
        """Publish what the bus thread has read, and now and then the states, which then wake no other thread."""
        if time.monotonic() >= self._states_due - 0.001:
            self._publish_states()
        if not self._joint_states.get_subscription_count():
            return
        message = JointState(name=list(fresh), position=[float(one[0]) for one in fresh.values()],
                             velocity=[float(one[1]) for one in fresh.values()])
        message.header.stamp = self.get_clock().now().to_msg()
        self._publish(self._joint_states, message)

    def _publish_idle_states(self) -> None:
        """Publish the states that the bus thread does not, because nothing answers."""
        if time.monotonic() > self._states_due + STATES_PERIOD_S:
            self._publish_states()

    def _publish_states(self) -> None:
        self._states_due = time.monotonic() + STATES_PERIOD_S
        reason = self._controller.emergency_stop.reason
        message = ServoStates(estop=bool(reason), estop_reason=reason, servos=[
            ServoState(joint=one.joint, id=one.id, online=one.online, torque_enabled=one.torque,
                       position=float(one.position), velocity=float(one.velocity), voltage=float(one.vitals.voltage),
                       temperature=float(one.vitals.temperature), hardware_error=one.vitals.hardware_error,
                       comm_errors=one.silences + one.damages) for one in self._controller.reports])
        message.header.stamp = self.get_clock().now().to_msg()
        self._publish(self._servo_states, message)

    def _publish(self, publisher: Any, message: Any) -> None:
        """Publish, unless the graph is being left: the bus thread must live on to switch the torque off."""
        with until_shutdown(self):
            publisher.publish(message)

    def _diagnose_bus(self) -> tuple[bytes, str, dict[str, str]]:
        fault = self._controller.fault
        level, message = (ERROR if fault else OK), fault or 'The servos answer.'
        if not self.active:
            level, message = STALE, INACTIVE
        return level, message, {
            'state': 'active' if self.active else 'inactive', 'port': self._settings.port_name,
            'baud rate': str(self._settings.baud_rate),
            'rate wanted [Hz]': f'{self._settings.rate:.0f}', 'rate measured [Hz]': f'{self._controller.rate:.1f}',
            'last refused command': self._last_refusal}

    def _diagnose_estop(self) -> tuple[bytes, str, dict[str, str]]:
        reason = self._controller.emergency_stop.reason
        return (ERROR, f'The e-stop is on: {reason}.', {}) if reason else (OK, 'The e-stop is off.', {})

    def _diagnose_servo(self, servo: ServoReport) -> tuple[bytes, str, dict[str, str]]:
        values = {'id': str(servo.id), 'torque': 'on' if servo.torque else 'off',
                  'position [deg]': f'{math.degrees(servo.position):.1f}', 'voltage [V]': f'{servo.vitals.voltage:.1f}',
                  'temperature [C]': f'{servo.vitals.temperature:.0f}',
                  'hardware error': str(servo.vitals.hardware_error), 'answers lost': str(servo.silences),
                  'answers damaged': str(servo.damages)}
        if not self.active:
            return STALE, INACTIVE, values
        if not servo.online:
            return ERROR, 'Does not answer; check its power, cable and id.', values
        if fault := servo.vitals.fault(self._settings.vital_limits):
            return ERROR, f'{servo.joint} {fault}.', values
        if warning := servo.vitals.warning(self._settings.vital_limits):
            return WARN, f'{servo.joint} {warning}.', values
        return OK, 'Works.', values

    # --- commands --------------------------------------------------------------------------------------------------

    def _refused(self, error: MotionError) -> None:
        self._last_refusal = str(error)
        self.get_logger().warning(str(error))

    def _move(self, handle: ServerGoalHandle) -> MoveJoints.Result:
        goal, result = handle.request, MoveJoints.Result()
        names = list(goal.joint_names)
        error: MotionError | None = None
        try:
            movement = self._controller.move(names, list(goal.positions), goal.duration)
            while not movement.wait(FEEDBACK_PERIOD_S if not handle.is_cancel_requested else 0.01):
                if handle.is_cancel_requested:
                    self._controller.halt(movement)
                else:
                    handle.publish_feedback(MoveJoints.Feedback(
                        positions=self._positions(names), progress=float(movement.progress)))
            error = movement.error
        except MotionError as refusal:
            error = refusal
            self._refused(refusal)
        result.positions = self._positions(names)
        if error is not None:
            result.error_code, result.error_msg = error.code, str(error)
        if isinstance(error, MotionCancelled) and handle.is_cancel_requested:
            handle.canceled()
        elif error is not None:
            handle.abort()
        else:
            handle.succeed()
        return result

    def _positions(self, names: list[str]) -> list[float]:
        """Positions now [rad]; NaN for joints that are away or unknown."""
        now = {report.joint: report.position for report in self._controller.reports}
        return [float(now.get(name, math.nan)) for name in names]

    def _follow(self, message: JointTrajectory) -> None:
        times = [point.time_from_start.sec + 1e-9 * point.time_from_start.nanosec for point in message.points]
        try:
            self._controller.follow(list(message.joint_names), times,
                                    [list(point.positions) for point in message.points])
        except MotionError as refusal:
            self._refused(refusal)

    def _command(self, message: Float64MultiArray) -> None:
        try:
            self._controller.command(list(message.data))
        except MotionError as refusal:
            self._refused(refusal)

    @staticmethod
    def _answer(handle: Callable[[Any, Any], None]) -> Callable[[Any, Any], Any]:
        """Wrap a handler: errors become code and sentence."""
        def respond(request: Any, response: Any) -> Any:
            try:
                handle(request, response)
            except MotionError as error:
                response.error_code, response.error_msg = error.code, str(error)
            return response
        return respond

    @staticmethod
    def _trigger(act: Callable[[], str]) -> Callable[[Any, Any], Any]:
        """Wrap an action without arguments that returns what it did."""
        def respond(_request: Any, response: Any) -> Any:
            try:
                response.success, response.message = True, act()
            except MotionError as error:
                response.success, response.message = False, str(error)
            return response
        return respond

    def _set_torque(self, request: SetTorque.Request, _response: SetTorque.Response) -> None:
        self._controller.set_torque(list(request.joint_names), request.enable)

    def _reboot(self, request: RebootServos.Request, _response: RebootServos.Response) -> None:
        self._controller.reboot(list(request.joint_names))

    def _set_id(self, request: SetServoId.Request, _response: SetServoId.Response) -> None:
        self._controller.set_id(request.old_id, request.new_id)
        self.get_logger().info(f'Servo {request.old_id} is servo {request.new_id} now.')

    def _scan(self, request: ScanServos.Request, response: ScanServos.Response) -> None:
        response.servos = [
            ServoInfo(id=one.id, model_number=one.model_number, firmware_version=one.firmware_version,
                      baud_rate=one.baud_rate, voltage=float(one.voltage), temperature=float(one.temperature))
            for one in self._controller.scan(list(request.baud_rates))]

    def _estop(self) -> str:
        first = self._controller.trip('the estop service was called')
        self.get_logger().warning('E-stop: the estop service was called.')
        return 'The e-stop is on; `moe reset-estop` allows motion again.' if first else 'The e-stop was on already.'

    def _reset_estop(self) -> str:
        self._controller.reset()
        self.get_logger().info('The e-stop was reset.')
        return 'The e-stop is off; the joints hold where they are.'

    def _stop(self) -> str:
        self._controller.halt()
        return 'Nothing moves.'


def main() -> None:
    """Run the node."""
    spin(ServoNode, THREADS)


if __name__ == '__main__':
    main()
