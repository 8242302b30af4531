"""marker_node: what rviz shows above the head: who answers, how sure the router was, the joints and the e-stop.

`ros2 run moe_bringup marker_node --ros-args -r __ns:=/moe`. It hears the feedback of the router's actions and
servo_states, and publishes visualization_msgs/MarkerArray on `markers`.
"""

from __future__ import annotations

import contextlib
import math
import signal

import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from moe_interfaces.action import GenerateChatCompletions, GenerateResponse
from moe_interfaces.msg import ServoStates

PERIOD_S = 0.5
FRAME = 'base_link'
TEXT_HEIGHT_M = 0.03
GREEN, AMBER, RED = ColorRGBA(g=0.8, a=1.0), ColorRGBA(r=1.0, g=0.7, a=1.0), ColorRGBA(r=1.0, a=1.0)


class MarkerNode(Node):  # type: ignore[misc]
    """Publishes markers twice a second, latched."""

    def __init__(self) -> None:
        super().__init__('markers', enable_logger_service=True)
        self._answer, self._confidence, self._abstained = 'nobody was asked yet', 0.0, False
        self._servos = ServoStates()
        for action, name in ((GenerateResponse, 'generate_response'),
                             (GenerateChatCompletions, 'generate_chat_completions')):
            self.create_subscription(action.Impl.FeedbackMessage, f'{name}/_action/feedback', self._hear, 10)
        self.create_subscription(ServoStates, 'servo_states', self._see, 10)
        self._publisher = self.create_publisher(
            MarkerArray, 'markers', QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
        self.create_timer(PERIOD_S, self._publish)

    def _hear(self, message: GenerateResponse.Impl.FeedbackMessage) -> None:
        feedback = message.feedback
        if getattr(feedback, 'expert', ''):
            self._answer = f'{feedback.expert}@{feedback.expert_version}'
            self._confidence, self._abstained = feedback.confidence, feedback.abstained

    def _see(self, message: ServoStates) -> None:
        self._servos = message

    def _publish(self) -> None:
        sure = f'{self._answer}  {100 * self._confidence:.0f} %' if self._confidence else self._answer
        stop = f'E-STOP: {self._servos.estop_reason}' if self._servos.estop else 'e-stop off'
        joints = '   '.join(f'{servo.joint} {math.degrees(servo.position):+.1f}°' if servo.online else
                            f'{servo.joint} away' for servo in self._servos.servos)
        lines = [('expert', sure, AMBER if self._abstained else GREEN), ('joints', joints or 'no servo', GREEN),
                 ('estop', stop, RED if self._servos.estop else GREEN)]
        self._publisher.publish(MarkerArray(markers=[
            self._text(number, name, text, colour) for number, (name, text, colour) in enumerate(lines)]))

    def _text(self, number: int, name: str, text: str, colour: ColorRGBA) -> Marker:
        marker = Marker(ns=name, id=number, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD, text=text, color=colour)
        marker.header.frame_id = FRAME
        marker.header.stamp = self.get_clock().now().to_msg()
        marker.pose.orientation.w = 1.0
        marker.pose.position.z = 0.32 - 1.4 * TEXT_HEIGHT_M * number  # above the camera [m]
        marker.scale.z = TEXT_HEIGHT_M
        return marker


def main() -> None:
    """Run the node until SIGINT or SIGTERM; exit code 0."""
    came: list[int] = []  # an event would not do: its lock may be held by whom the handler interrupts
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: came.append(number))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = MarkerNode()
    with contextlib.suppress(KeyboardInterrupt):
        while not came:
            rclpy.spin_once(node, timeout_sec=0.2)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == '__main__':
    main()
