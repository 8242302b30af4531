"""A service that answers within milliseconds, apart from the node's many other endpoints."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from moe_router.ros.calls import SERVICE_QOS


def companion(node: Node, purpose: str) -> Node:
    """A node beside another one; names are resolved by that one, so that its remappings hold."""
    return rclpy.create_node(
        f'{node.get_name()}_{purpose}', namespace=node.get_namespace(), context=node.context,
        start_parameter_services=False, enable_rosout=False, use_global_arguments=False)


class QuickService:
    """One service on a node and a thread of its own.

    rclpy looks at every endpoint of an executor each time that one of them has something; the router has fifty,
    which costs as much as the decision.
    """

    def __init__(self, node: Node, interface: Any, name: str, handle: Callable[[Any, Any], Any]) -> None:
        self._node = companion(node, 'quick')
        self._node.create_service(interface, node.resolve_service_name(name), handle, qos_profile=SERVICE_QOS)
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(self._node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, name=name)
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
