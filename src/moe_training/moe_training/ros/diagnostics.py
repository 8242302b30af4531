"""Diagnostics of a node at 1 Hz: diagnostic_updater where ROS provides it, a small equivalent otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

try:
    from diagnostic_updater import Updater
except ImportError:  # not among the ROS wheels of PyPI
    Updater = None

Check = Callable[[], tuple[bytes, str, dict[str, str]]]


def diagnose(node: Node, name: str, check: Check, group: CallbackGroup) -> Any:
    """Publish level, sentence and values of check() once a second; returns what must stay alive."""
    if Updater is not None:
        updater = Updater(node, 1.0)
        updater.setHardwareID('none')

        def fill(status: Any) -> Any:
            level, sentence, values = check()
            status.summary(level, sentence)
            for key, value in values.items():
                status.add(key, value)
            return status
        updater.add(name, fill)
        return updater
    publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)

    def publish() -> None:
        level, sentence, values = check()
        message = DiagnosticArray(status=[DiagnosticStatus(
            level=level, name=f'{node.get_name()}: {name}', message=sentence, hardware_id='none',
            values=[KeyValue(key=key, value=value) for key, value in values.items()])])
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
    return node.create_timer(1.0, publish, callback_group=group)
