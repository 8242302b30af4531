"""Diagnostics of a node at 1 Hz: diagnostic_updater where ROS provides it, a small equivalent otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

try:
    from diagnostic_updater import Updater
except ImportError:  # not among the ROS wheels of PyPI
    Updater = None

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE
PERIOD_S = 1.0

Check = Callable[[], tuple[bytes, str, dict[str, str]]]


class Diagnostics:
    """Asks every added check once a second and publishes the answers on /diagnostics.

    Args:
        node: that publishes; its name prefixes that of every status.
        hardware_id: which device this is, e.g. its path; may change later by `hardware_id`.
    """

    def __init__(self, node: Node, hardware_id: str) -> None:
        self._node = node
        self._checks: list[tuple[str, Check]] = []
        self._hardware_id = hardware_id
        self._updater: Any = None
        if Updater is not None:
            self._updater = Updater(node, PERIOD_S)
            self._updater.setHardwareID(hardware_id)
            return
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        node.create_timer(PERIOD_S, self._publish, callback_group=MutuallyExclusiveCallbackGroup())

    @property
    def hardware_id(self) -> str:
        """Which device this is."""
        return self._hardware_id

    @hardware_id.setter
    def hardware_id(self, value: str) -> None:
        self._hardware_id = value
        if self._updater is not None:
            self._updater.setHardwareID(value)

    def add(self, name: str, check: Check) -> None:
        """Publish what check() says: level (OK, WARN, ERROR, STALE), message, and values by key."""
        self._checks.append((name, check))
        if self._updater is not None:
            self._updater.add(name, lambda status: self._fill(status, check))

    @staticmethod
    def _fill(status: Any, check: Check) -> Any:
        level, message, values = check()
        status.summary(level, message)
        for key, value in values.items():
            status.add(key, value)
        return status

    def _publish(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        for name, check in self._checks:
            level, sentence, values = check()
            message.status.append(DiagnosticStatus(
                level=level, name=f'{self._node.get_name()}: {name}', message=sentence,
                hardware_id=self._hardware_id,
                values=[KeyValue(key=key, value=value) for key, value in values.items()]))
        self._publisher.publish(message)
