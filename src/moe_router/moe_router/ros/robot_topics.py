"""What the robot reports, looked at when a prompt asks for it."""

from __future__ import annotations

import threading
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Imu, JointState

from moe_router.grounding import Reading, RobotState, joints, orientation
from moe_router.ros.quick_service import companion

SOURCES = ('imu', 'joints', 'image', 'diagnostics')


class RobotTopics:
    """Reads imu/data, joint_states, camera_info (an image's stamp without its pixels) and /diagnostics.

    The subscriptions belong to a node that nobody spins: DDS keeps the last message of each, and 150 messages a second
    cost this process nothing until a prompt wants to know.
    """

    def __init__(self, node: Node) -> None:
        self._clock = node.get_clock()
        self._state, self._lock = RobotState(SOURCES), threading.Lock()
        self._levels: dict[str, bytes] = {}
        self._node = companion(node, 'grounding')
        self._subscriptions = [
            (interface, hear, self._node.create_subscription(
                interface, node.resolve_topic_name(topic), hear,
                QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)))
            for interface, topic, hear, depth in (
                (Imu, 'imu/data', self._on_imu, 1), (JointState, 'joint_states', self._on_joints, 1),
                (CameraInfo, 'camera_info', self._on_image, 1),
                (DiagnosticArray, '/diagnostics', self._on_diagnostics, 50))]

    def close(self) -> None:
        """Destroy the node."""
        with self._lock:
            self._node.destroy_node()

    def block(self, max_age_s: float) -> str:
        """The robot's state in words; see RobotState."""
        with self._lock:
            for interface, hear, subscription in self._subscriptions:
                while (taken := subscription.handle.take_message(interface, False)) is not None:
                    hear(taken[0])
        return self._state.block(self._clock.now().nanoseconds / 1e9, max_age_s)

    def _hear(self, source: str, text: str, header: Any) -> None:
        self._state.hear(source, Reading(text, Time.from_msg(header.stamp).nanoseconds / 1e9))

    def _on_imu(self, message: Imu) -> None:
        turn = message.orientation
        self._hear('imu', orientation(turn.x, turn.y, turn.z, turn.w), message.header)

    def _on_joints(self, message: JointState) -> None:
        self._hear('joints', joints(dict(zip(message.name, message.position, strict=False))), message.header)

    def _on_image(self, message: CameraInfo) -> None:
        self._hear('image', f'{message.width}x{message.height}', message.header)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self._levels.update({status.name: status.level for status in message.status})
        bad = sorted(name for name, level in self._levels.items() if level != DiagnosticStatus.OK)
        self._hear('diagnostics', f'not well: {", ".join(bad[:5])}' if bad else 'all well', message.header)
