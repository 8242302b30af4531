"""Services that answer within milliseconds, apart from a node's many other endpoints. The same file in two packages."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile

SERVICE_QOS = QoSProfile(depth=100)  # rcl's default of 10 loses calls that arrive together


def companion(node: Node, purpose: str) -> Node:
    """A node beside another one; names are resolved by that one, so that its remappings hold."""
    return rclpy.create_node(
        f'{node.get_name()}_{purpose}', namespace=node.get_namespace(), context=node.context,
        start_parameter_services=False, enable_rosout=False, use_global_arguments=False)


class QuickServices:
    """Services on a node and a thread of their own, one request after the other.

    rclpy looks at every endpoint of an executor each time that one of them has something; for a node with fifty that
    costs as much as the answer.

    Args:
        node: whose names and remappings hold.
        services: interface and handler by name.
    """

    def __init__(self, node: Node, services: Mapping[str, tuple[Any, Callable[[Any, Any], Any]]]) -> None:
        self._node = companion(node, 'quick')
        for name, (interface, handle) in services.items():
            self._node.create_service(interface, node.resolve_service_name(name), handle, qos_profile=SERVICE_QOS)
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(self._node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, name='quick services')
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            while not self._stop.is_set():
                self._executor.spin_once(timeout_sec=0.2)

    def close(self) -> None:
        """End the thread and the node."""
        self._stop.set()
        self._executor.wake()
        self._thread.join()
        self._executor.shutdown()
        self._node.destroy_node()
