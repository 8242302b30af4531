"""The action follow_joint_trajectory of ros2_control and MoveIt, where control_msgs is installed."""

from __future__ import annotations

import math
from typing import Any

from rclpy.action import CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node

from moe_hardware.dynamixel.controller import ServoController
from moe_hardware.errors import MotionCancelled, MotionError, SafetyViolation
from moe_hardware.ros.quick_endpoints import QuickEndpoints

try:
    from control_msgs.action import FollowJointTrajectory
except ImportError:  # not among the ROS wheels of PyPI
    FollowJointTrajectory = None

FEEDBACK_PERIOD_S = 0.05


class TrajectoryServer:
    """Serves follow_joint_trajectory; tolerances of the goal are those of the servo node.

    Args:
        node: that serves.
        controller: of the servos.
        endpoints: of its actions.
    """

    def __init__(self, node: Node, controller: ServoController, endpoints: QuickEndpoints) -> None:
        self._node, self._controller = node, controller
        endpoints.action('follow_joint_trajectory', FollowJointTrajectory, self._execute,
                         lambda _goal: CancelResponse.ACCEPT)

    def _execute(self, handle: ServerGoalHandle) -> Any:
        result, trajectory = FollowJointTrajectory.Result(), handle.request.trajectory
        names = list(trajectory.joint_names)
        times = [point.time_from_start.sec + 1e-9 * point.time_from_start.nanosec for point in trajectory.points]
        error: MotionError | None = None
        try:
            movement = self._controller.follow(names, times, [list(point.positions) for point in trajectory.points])
            while not movement.wait(FEEDBACK_PERIOD_S):
                if handle.is_cancel_requested:
                    self._controller.halt(movement)
                else:
                    handle.publish_feedback(self._feedback(names, movement.trajectory.at(movement.elapsed)))
            error = movement.error
        except MotionError as refusal:
            error = refusal
        if error is None:
            handle.succeed()
            return result
        result.error_string = str(error)
        result.error_code = (FollowJointTrajectory.Result.INVALID_GOAL if isinstance(error, SafetyViolation)
                             else FollowJointTrajectory.Result.GOAL_TOLERANCE_VIOLATED)
        if isinstance(error, MotionCancelled) and handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return result

    def _feedback(self, names: list[str], desired: dict[str, float]) -> Any:
        now = {report.joint: report.position for report in self._controller.reports}
        feedback = FollowJointTrajectory.Feedback(joint_names=names)
        feedback.header.stamp = self._node.get_clock().now().to_msg()
        feedback.desired.positions = [float(desired[name]) for name in names]
        feedback.actual.positions = [float(now.get(name, math.nan)) for name in names]
        feedback.error.positions = [desired[name] - now.get(name, math.nan) for name in names]
        return feedback
