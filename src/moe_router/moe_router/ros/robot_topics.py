"""What the robot reports, looked at when a prompt asks for it."""

from __future__ import annotations

import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Imu, JointState

from moe_router.grounding import Reading, RobotState, joints, orientation
from moe_router.ros.quick_endpoints import companion

SOURCES = ('imu', 'joints', 'image', 'diagnostics')
FIRST_S = 0.5  # how long the first prompt after a rest waits for the topics to be discovered and heard
REST_S = 60.0  # after so long without a prompt that asks, the fast topics are let go of
POLL_S = 0.005


class RobotTopics:
    """Reads imu/data, joint_states, camera_info (an image's stamp without its pixels) and /diagnostics.

    The subscriptions belong to a node that nobody spins: DDS keeps the last message of each until a prompt wants to
    know. Receiving 180 messages a second still took a tenth of a core, so the fast topics are subscribed to only while
    prompts ask for them.
    """

    def __init__(self, node: Node) -> None:
        self._clock = node.get_clock()
        self._state, self._lock = RobotState(SOURCES), threading.Lock()
        self._levels: dict[str, bytes] = {}
        self._node = companion(node, 'grounding')
        self._fast: dict[str, tuple[str, Any, Any]] = {
            source: (node.resolve_topic_name(topic), interface, hear) for source, topic, interface, hear in (
                ('imu', 'imu/data', Imu, self._on_imu), ('joints', 'joint_states', JointState, self._on_joints),
                ('image', 'camera_info', CameraInfo, self._on_image))}
        self._subscriptions: dict[str, Subscription] = {}
        self._diagnostics = self._subscribe(DiagnosticArray, '/diagnostics', 50)
        self._asked = 0.0  # monotonic [s]
        node.create_timer(REST_S / 4.0, self._rest)

    def close(self) -> None:
        """Destroy the node."""
        with self._lock:
            self._subscriptions.clear()
            self._node.destroy_node()

    def block(self, max_age_s: float) -> str:
        """The robot's state in words; see RobotState. Waits FIRST_S at most for topics that were at rest."""
        with self._lock:
            self._asked = time.monotonic()
            awaited = set()
            if not self._subscriptions:
                awaited = {source for source, (topic, _type, _hear) in self._fast.items()
                           if self._node.count_publishers(topic)}
                self._subscriptions = {source: self._subscribe(interface, topic, 1)
                                       for source, (topic, interface, _hear) in self._fast.items()}
            while True:
                for source, subscription in self._subscriptions.items():
                    _topic, interface, hear = self._fast[source]
                    if self._take(subscription, interface, hear):
                        awaited.discard(source)
                if not awaited or time.monotonic() > self._asked + FIRST_S:
                    break
                time.sleep(POLL_S)
            self._take(self._diagnostics, DiagnosticArray, self._on_diagnostics)
        return self._state.block(self._clock.now().nanoseconds / 1e9, max_age_s)

    def _rest(self) -> None:
        """Let go of the fast topics that no prompt has asked for."""
        with self._lock:
            if time.monotonic() > self._asked + REST_S:
                for subscription in self._subscriptions.values():
                    self._node.destroy_subscription(subscription)
                self._subscriptions.clear()

    def _subscribe(self, interface: Any, topic: str, depth: int) -> Subscription:
        return self._node.create_subscription(interface, topic, lambda _message: None, QoSProfile(
            depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT))

    @staticmethod
    def _take(subscription: Subscription, interface: Any, hear: Any) -> bool:
        """Hear what has come; false when nothing has."""
        heard = False
        while (taken := subscription.handle.take_message(interface, False)) is not None:
            hear(taken[0])
            heard = True
        return heard

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
