"""What the device threads of the nodes need to publish."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions

# Reliable, so that default and best-effort (sensor data) subscribers both get it; few, since old ones are worth little.
SENSOR_QOS = QoSProfile(depth=5)


def sensor_publisher(node: Node, interface: type, topic: str, depth: int = SENSOR_QOS.depth) -> Any:
    """Make a publisher whose QoS the parameters qos_overrides.<topic>.publisher.* may change."""
    return node.create_publisher(interface, topic, QoSProfile(depth=depth),
                                 qos_overriding_options=QoSOverridingOptions.with_default_policies())


def stamp(nanoseconds: int) -> Time:
    """Return a time as a message [ns since the epoch of the node's clock]."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return Time(sec=seconds, nanosec=rest)


def warner(node: Node) -> Callable[[str], None]:
    """Return what logs a device's faults as warnings, but not those that the end of the suite itself brings."""
    def warn(sentence: str) -> None:
        if node.context.ok():
            node.get_logger().warning(sentence)
    return warn


@contextlib.contextmanager
def until_shutdown(node: Node) -> Iterator[None]:
    """Let a device thread publish; what it says while the signal handler shuts the context down is dropped."""
    try:
        yield
    except RuntimeError:  # RCLError and InvalidHandle are its subclasses
        if node.context.ok():
            raise
