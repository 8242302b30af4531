"""motion_node: turns motion commands into joint targets, which it has the servo node move to, step by step."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.action import CancelResponse
from rclpy.action.client import ClientGoalHandle
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from moe_hardware.dynamixel.joints import Joint, configure
from moe_hardware.dynamixel.trajectory import PointToPoint
from moe_hardware.errors import HardwareFault, InvalidCommand, MotionCancelled, MotionError, error_of
from moe_hardware.motion import Command, Move, Range, Step, Stop, parse, plan, typed
from moe_hardware.ros.action_client import SERVICE_QOS
from moe_hardware.ros.diagnostics import ERROR, OK, STALE, Diagnostics
from moe_hardware.ros.latest_message import LatestMessage
from moe_hardware.ros.managed_node import INACTIVE, ManagedNode
from moe_hardware.ros.quick_endpoints import QuickEndpoints
from moe_hardware.ros.spinning import spin
from moe_interfaces.action import ExecuteMotion, MoveJoints

SERVO_NODE_TIMEOUT_S = 2.0
FRESH_S = 1.0  # joint positions older than this are not moved from
AWAY_S = 3.0  # without joint positions for so long the servo node is gone; DDS itself may take 20 s to notice
RESTART_S = 6.0  # a servo node that was there a moment ago may be starting again
OVERTIME_S = 6.0  # a step may take this much longer than planned, waiting for a busy bus included
POLL_S = 0.02
MOST_GOALS = 12  # at once; each holds a thread until it ends, and a stop must find a free one
THREADS = 2
_AWAY = 'The servo node does not answer; see whether it runs (moe status) and what it says (moe logs servos).'


class _Run:
    """One goal while it is carried out; another may end it."""

    def __init__(self) -> None:
        self.ended_by: MotionError | None = None


class MotionNode(ManagedNode):
    """Serves execute_motion."""

    def __init__(self) -> None:
        super().__init__('motion')
        self._joints = self._declare_joints()
        self._ranges = {name: Range(joint.minimum, joint.maximum) for name, joint in self._joints.items()}
        self._positions: dict[str, tuple[float, float]] = {}  # [rad] and monotonic time of measurement [s], by joint
        self._runs_lock = threading.Lock()
        self._run: _Run | None = None
        self._joint_states = LatestMessage(self, JointState, 'joint_states')
        self._stop_motion = self.create_client(Trigger, 'stop_motion', qos_profile=SERVICE_QOS,
                                               callback_group=ReentrantCallbackGroup())
        self._actions = QuickEndpoints(self, 'actions', MOST_GOALS)
        self._move_joints = self._actions.action_client('move_joints', MoveJoints)
        self._actions.action('execute_motion', ExecuteMotion, self._execute, lambda _goal: CancelResponse.ACCEPT)
        self._actions.start()
        self._last_error = ''
        Diagnostics(self, 'none').add('commands', self._diagnose)
        self.autostart()

    def close(self) -> None:
        """End of the process: end the goal under way."""
        super().close()
        self._actions.close()

    def begin(self) -> None:
        """Take goals."""

    def end(self) -> None:
        """End the goal under way."""
        self._take_over(None, MotionCancelled('The motion node is shutting down or was deactivated.'))

    def _declare_joints(self) -> dict[str, Joint]:
        """Declare the parameters, the same ones as the servo node's. Raises ValueError."""
        def get(name: str, default: Any, description: str) -> Any:
            return self.declare_parameter(name, default, ParameterDescriptor(
                description=description, read_only=True)).value

        def positive(name: str, default: float, description: str) -> float:
            return float(self.declare_parameter(name, default, ParameterDescriptor(
                description=description, read_only=True,
                floating_point_range=[FloatingPointRange(from_value=0.01, to_value=1000.0)])).value)

        names = list(get('joint_names', ['pan', 'tilt'], 'joints of the servo node that commands may move'))
        return configure(
            names, range(len(names)),
            list(get('min_position', [math.radians(-90.0), math.radians(-60.0)], 'of each joint [rad]')),
            list(get('max_position', [math.radians(90.0), math.radians(60.0)], 'of each joint [rad]')),
            [1] * len(names), positive('max_velocity', math.pi / 2.0, 'unless a goal asks for less [rad/s]'),
            positive('max_acceleration', 2.0 * math.pi, 'of every joint [rad/s^2]'))

    def _look(self) -> None:
        """Take in the joint positions that came last."""
        message = self._joint_states.take()
        if message is None:
            return
        stamp = message.header.stamp
        age = 1e-9 * self.get_clock().now().nanoseconds - stamp.sec - 1e-9 * stamp.nanosec
        measured = time.monotonic() - max(0.0, age)
        for name, position in zip(message.name, message.position):
            if name in self._joints:
                self._positions[name] = (position, measured)

    def _take_over(self, run: _Run | None, why: MotionError) -> None:
        """Make a run the only one; the one before it ends."""
        with self._runs_lock:
            if self._run is not None:
                self._run.ended_by = why
            self._run = run

    def _execute(self, handle: ServerGoalHandle) -> ExecuteMotion.Result:
        result = ExecuteMotion.Result(joint_names=list(self._joints))
        result.start_positions = self._now()
        error: MotionError | None = None
        try:
            self._carry_out(handle)
        except MotionError as one:
            error, self._last_error = one, str(one)
            self.get_logger().info(f'Not carried out: {one}')
        result.positions = self._now()
        if error is not None:
            result.error_code, result.error_msg = error.code, str(error)
        if isinstance(error, MotionCancelled) and handle.is_cancel_requested:
            handle.canceled()
        elif error is not None:
            handle.abort()
        else:
            handle.succeed()
        return result

    def _command(self, goal: ExecuteMotion.Goal) -> Command:
        if goal.command and goal.moves:
            raise InvalidCommand('The motion has both command and moves; send one of them.')
        if goal.command:
            return parse(goal.command, self._ranges)
        return typed([Move(one.joint, one.relative, one.angle) for one in goal.moves], self._ranges)

    def _carry_out(self, handle: ServerGoalHandle) -> None:
        """Do what a goal says. Raises MotionError."""
        goal = handle.request
        if not self.active:
            raise HardwareFault(INACTIVE)
        if not math.isfinite(goal.max_velocity) or goal.max_velocity < 0.0:
            raise InvalidCommand(f'max_velocity is {goal.max_velocity}; give rad/s, or 0 for that of the node.')
        command = self._command(goal)
        if isinstance(command, Stop):
            self._take_over(None, MotionCancelled('A newer command stopped the motion.'))
            self._stop()
            return
        steps = plan(command, self._fresh(), self._ranges)
        run = _Run()
        self._take_over(run, MotionCancelled('A newer motion command replaced this one.'))
        try:
            for number, step in enumerate(steps):
                self._move(handle, run, number, len(steps), step)
        finally:
            with self._runs_lock:
                if self._run is run:
                    self._run = None

    def _stop(self) -> None:
        """End every movement of the servo node, whoever began it."""
        if not self._stop_motion.wait_for_service(SERVO_NODE_TIMEOUT_S):
            raise HardwareFault(_AWAY)
        answer = self._wait(self._stop_motion.call_async(Trigger.Request()), SERVO_NODE_TIMEOUT_S)
        if not answer.success:
            raise HardwareFault(answer.message)

    def _move(self, handle: ServerGoalHandle, run: _Run, number: int, count: int, step: Step) -> None:
        """Have the servo node carry out one step."""
        if not self._move_joints.wait_for_server(SERVO_NODE_TIMEOUT_S):
            raise HardwareFault(_AWAY)
        duration = self._duration(step, handle.request.max_velocity)

        def progress(_message: Any) -> None:
            if handle.is_active:
                handle.publish_feedback(ExecuteMotion.Feedback(
                    joint_names=list(self._joints), positions=self._now(), step=number, steps=count))

        goal = MoveJoints.Goal(joint_names=list(step), positions=[float(target) for target in step.values()],
                               duration=duration)
        with self._runs_lock:  # a run that was taken over must not send after the one that did it
            if run.ended_by is not None:
                raise run.ended_by
            sending = self._move_joints.send_goal_async(goal, feedback_callback=progress)
        sent: ClientGoalHandle = self._wait(sending, SERVO_NODE_TIMEOUT_S)
        outcome = sent.get_result_async()
        done = self._completion(outcome)
        give_up = time.monotonic() + duration + OVERTIME_S
        cancelled = False
        while not done.wait(POLL_S):
            if (run.ended_by is not None or handle.is_cancel_requested) and not cancelled:
                cancelled = True
                sent.cancel_goal_async()
            if time.monotonic() > give_up or self._age() > AWAY_S:
                sent.cancel_goal_async()
                raise HardwareFault(f'The servo node went away during the motion. {_AWAY}')
        if run.ended_by is not None:
            raise run.ended_by
        answer = outcome.result().result
        for name, position in zip(step, answer.positions):
            if math.isfinite(position):
                self._positions[name] = (position, time.monotonic())
        if answer.error_code:
            raise error_of(answer.error_code, answer.error_msg)
        if handle.is_cancel_requested and number + 1 < count:
            raise MotionCancelled('The motion was cancelled between two steps.')

    def _duration(self, step: Step, max_velocity: float) -> float:
        """Time that a step takes at the speed of this node or of the goal, whichever is less [s]."""
        start = self._fresh()
        joints = {name: Joint(joint.name, joint.id, joint.minimum, joint.maximum,
                              min(joint.max_velocity, max_velocity or math.inf), joint.max_acceleration)
                  for name, joint in self._joints.items()}
        return PointToPoint({name: start[name] for name in step}, step, joints).duration

    def _now(self) -> list[float]:
        """Last known positions [rad], NaN for those never heard of."""
        self._look()
        return [float(self._positions.get(name, (math.nan, 0.0))[0]) for name in self._joints]

    def _fresh(self) -> dict[str, float]:
        """Present positions [rad]. Raises HardwareFault when one is not known."""
        begin = time.monotonic()
        while True:
            missing = self._unknown()
            if not missing:
                return {name: self._positions[name][0] for name in self._joints}
            there = self._move_joints.server_is_ready()
            if time.monotonic() - begin > (RESTART_S if there and self._positions else SERVO_NODE_TIMEOUT_S):
                raise HardwareFault(self._why_unknown(missing, there))
            time.sleep(POLL_S)

    def _unknown(self) -> list[str]:
        """Joints whose position was not heard lately."""
        self._look()
        now = time.monotonic()
        return [name for name in self._joints if now - self._positions.get(name, (0.0, -math.inf))[1] > FRESH_S]

    @staticmethod
    def _why_unknown(missing: list[str], there: bool) -> str:
        return (f'The position of {" and ".join(missing)} is not known: the servo node publishes none; see '
                '/diagnostics for what the servo bus lacks.' if there else _AWAY)

    def _age(self) -> float:
        """Time since any joint position was measured [s]."""
        self._look()
        return time.monotonic() - max((arrival for _position, arrival in self._positions.values()), default=-math.inf)

    def _diagnose(self) -> tuple[bytes, str, dict[str, str]]:
        moving = self._run is not None
        values = {'state': 'moving' if moving else 'waiting for a command', 'last error': self._last_error}
        if not self.active:
            return STALE, INACTIVE, {**values, 'state': 'inactive'}
        missing = self._unknown()
        for name in self._joints:
            values[f'{name} [deg]'] = '' if name in missing else f'{math.degrees(self._positions[name][0]):.1f}'
        if missing:
            return ERROR, self._why_unknown(missing, self._move_joints.server_is_ready()), values
        return OK, 'A motion is carried out.' if moving else 'Commands are taken.', values

    @staticmethod
    def _completion(future: Future) -> threading.Event:
        done = threading.Event()
        future.add_done_callback(lambda _future: done.set())
        return done

    def _wait(self, future: Future, timeout: float) -> Any:
        """Return the result of a call to the servo node. Raises HardwareFault after timeout [s]."""
        if not self._completion(future).wait(timeout):
            raise HardwareFault(_AWAY)
        return future.result()


def main() -> None:
    """Run the node."""
    spin(MotionNode, THREADS)


if __name__ == '__main__':
    main()
