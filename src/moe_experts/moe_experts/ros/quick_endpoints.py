"""Endpoints that answer within milliseconds, apart from a node's many others. The same file in three packages."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import rclpy
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Task

from .action_client import ACTION_QOS, FEEDBACK_QOS, SERVICE_QOS, MeetingActionClient

Execute = Callable[[ServerGoalHandle], Any]
Cancel = Callable[[ServerGoalHandle], CancelResponse]


def companion(node: Node, purpose: str) -> Node:
    """A node beside another one; names are resolved by that one, so that its remappings hold."""
    return rclpy.create_node(
        f'{node.get_name()}_{purpose}', namespace=node.get_namespace(), context=node.context,
        start_parameter_services=False, enable_rosout=False, use_global_arguments=False,
        parameter_overrides=[Parameter('start_type_description_service', value=False)])


class ThreadedActionServer(ActionServer):  # type: ignore[misc]
    """An action server whose goals are carried out by a pool's threads, so that its executor's one stays free."""

    def __init__(self, pool: ThreadPoolExecutor, *arguments: Any, **options: Any) -> None:
        self._pool = pool
        super().__init__(*arguments, **options)

    def notify_execute(self, goal_handle: ServerGoalHandle, execute_callback: Execute | None) -> None:
        """Carry out a goal that was accepted; its result is sent by the same thread."""
        self._pool.submit(Task(self._execute_goal, (execute_callback or self._execute_callback, goal_handle)))


class QuickEndpoints:
    """Services and actions on a node and a thread of their own.

    rclpy looks at every endpoint of an executor each time that one of them has something; for a node with fifty that
    costs as much as the answer. What a service does is done in that thread, one request after the other; goals have
    threads of a pool.

    Args:
        node: whose names and remappings hold.
        purpose: part of the new node's name.
        goals: most goals that are carried out at once.
    """

    def __init__(self, node: Node, purpose: str, goals: int = 1) -> None:
        self._owner, self._node = node, companion(node, purpose)
        self._pool = ThreadPoolExecutor(goals, 'goal')
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(self._node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, name=purpose)

    def service(self, name: str, interface: Any, handle: Callable[[Any, Any], Any]) -> None:
        """Serve a service."""
        self._node.create_service(interface, self._owner.resolve_service_name(name), handle, qos_profile=SERVICE_QOS)

    def action(self, name: str, interface: Any, execute: Execute, cancel: Cancel) -> None:
        """Serve an action."""
        ThreadedActionServer(
            self._pool, self._node, interface, self._owner.resolve_service_name(name), execute, cancel_callback=cancel,
            feedback_pub_qos_profile=FEEDBACK_QOS, **ACTION_QOS)

    def action_client(self, name: str, interface: Any) -> MeetingActionClient:
        """A client of an action elsewhere."""
        return MeetingActionClient(self._node, interface, self._owner.resolve_service_name(name))

    def start(self) -> None:
        """Answer from now on; all endpoints are there."""
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            while not self._stop.is_set():
                self._executor.spin_once(timeout_sec=0.2)

    def close(self) -> None:
        """Wait for the goals and end the thread; the node goes with the process: others may still ask its clients."""
        self._pool.shutdown()
        self._stop.set()
        self._executor.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._executor.shutdown()
