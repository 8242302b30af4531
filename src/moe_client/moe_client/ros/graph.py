"""A client's place on the ROS graph: one node, spun by one thread, with blocking calls for everyone else."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import rclpy
from action_msgs.msg import GoalStatus
from rclpy.action.client import ActionClient, ClientGoalHandle
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data

from moe_client.errors import Cancelled, Timeout, Unavailable

RESEND_S = 2.0
SERVICE_QOS = QoSProfile(depth=100)  # rcl's default of 10 loses calls that arrive together
FEEDBACK_QOS = QoSProfile(depth=1000)  # every token of every goal of an action comes on one topic


class Graph:
    """Services, actions and topics of the suite below one namespace.

    Args:
        namespace: of the suite, without slashes.

    Every call raises Unavailable when nobody serves the name and Timeout when nobody answers in time.
    """

    def __init__(self, namespace: str = 'moe') -> None:
        self._context = Context()
        rclpy.init(context=self._context)
        self.node: Node = rclpy.create_node(
            f'client_{time.monotonic_ns() % 10**9}', namespace=namespace, context=self._context,
            enable_rosout=False, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._spin, name='graph', daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            while self._context.ok():
                self._executor.spin_once(timeout_sec=0.5)
        except ExternalShutdownException:
            return

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown(timeout_sec=2.0)
        self._context.try_shutdown()
        self._thread.join(timeout=2.0)
        self.node.destroy_node()

    def call(self, interface: Any, name: str, request: Any, timeout_s: float = 10.0, again: bool = False) -> Any:
        """Call a service and wait for its response.

        With `again` the request is sent anew every RESEND_S: a node that was killed stays in the graph for a while, and
        what it was asked is lost. Only for requests that may be carried out twice.
        """
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(interface, name, qos_profile=SERVICE_QOS)
        deadline = time.monotonic() + timeout_s
        if not self._wait(client.service_is_ready, deadline):
            raise Unavailable(f'Nobody serves {client.srv_name}; start the suite with `moe up` and look at '
                              '`moe status`.')
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        futures = []
        try:
            while (left := deadline - time.monotonic()) > 0.0:
                futures.append(client.call_async(request))
                futures[-1].add_done_callback(lambda future: answers.put(future.result()))
                try:
                    return answers.get(timeout=min(left, RESEND_S) if again else left)
                except queue.Empty:
                    continue
        finally:
            for future in futures:
                if not future.done():
                    client.remove_pending_request(future)
        raise Timeout(f'Request timed out: {client.srv_name} did not answer.')

    def stream(self, interface: Any, name: str, goal: Any, timeout_s: float = 120.0,
               ready_timeout_s: float = 10.0) -> Iterator[tuple[str, Any]]:
        """Send a goal; yields ('feedback', message) and at the end ('result', message).

        Closing the iterator before its end cancels the goal.
        """
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = ActionClient(
                self.node, interface, name, feedback_sub_qos_profile=FEEDBACK_QOS)
        if not self._wait(client.server_is_ready, time.monotonic() + ready_timeout_s):
            raise Unavailable(f'Nobody serves the action {name}; start the suite with `moe up` and look at '
                              '`moe status`.')
        deadline = time.monotonic() + timeout_s
        arrivals: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        accepted = client.send_goal_async(
            goal, feedback_callback=lambda message: arrivals.put(('feedback', message.feedback)))
        handle: ClientGoalHandle[Any, Any, Any] = self._result(accepted, deadline, name)
        if not handle.accepted:
            raise Unavailable(f'The action {name} refused the goal; it is shutting down or still starting.')
        handle.get_result_async().add_done_callback(lambda future: arrivals.put(('result', future.result())))
        finished = False
        try:
            while not finished:
                try:
                    kind, message = arrivals.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    raise Timeout(f'Request timed out: {name} gave no result within {timeout_s:g} s.') from None
                if kind == 'result':
                    finished = True
                    if message.status == GoalStatus.STATUS_UNKNOWN:
                        raise Cancelled(f'The action {name} lost the goal.')
                    yield kind, message.result
                else:
                    yield kind, message
        finally:
            if not finished:
                handle.cancel_goal_async()

    def latest(self, interface: Any, name: str, timeout_s: float = 5.0, qos: Any = 10) -> Any:
        """Wait for the next message of a topic."""
        arrived = threading.Event()
        box: list[Any] = []

        def keep(message: Any) -> None:
            box.append(message)
            arrived.set()

        subscription = self.node.create_subscription(interface, name, keep, qos)
        try:
            if not arrived.wait(timeout_s):
                raise Unavailable(f'No message on {subscription.topic_name} within {timeout_s:g} s.')
            return box[0]
        finally:
            self.node.destroy_subscription(subscription)

    def rates(self, topics: dict[str, Any], seconds: float) -> dict[str, float]:
        """Count messages per topic for `seconds`, after the first one came; returns rates [Hz], 0.0 = none came."""
        arrivals: dict[str, list[float]] = {name: [] for name in topics}
        subscriptions = [
            self.node.create_subscription(
                interface, name, lambda _message, name=name: arrivals[name].append(time.monotonic()),
                qos_profile_sensor_data)
            for name, interface in topics.items()]
        self._wait(lambda: all(arrivals.values()), time.monotonic() + 5.0)
        time.sleep(seconds)
        for subscription in subscriptions:
            self.node.destroy_subscription(subscription)
        return {name: (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
                for name, times in arrivals.items()}

    @staticmethod
    def _wait(ready: Callable[[], bool], deadline: float) -> bool:
        while not ready():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    @staticmethod
    def _result(future: Any, deadline: float, name: str) -> Any:
        done = threading.Event()
        future.add_done_callback(lambda _future: done.set())
        if not done.wait(max(0.0, deadline - time.monotonic())):
            future.cancel()
            raise Timeout(f'Request timed out: {name} did not answer.')
        return future.result()
