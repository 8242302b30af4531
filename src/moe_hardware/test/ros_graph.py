"""A node inside the test process that listens, calls services and sends goals to the node under test."""

import contextlib
import threading

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from processes import Module, wait_for
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile

from moe_hardware.ros.action_client import MeetingActionClient

LOST_ANSWER_S = 10.0  # longer than any service takes, on a busy machine too


class Listener:
    """Keeps what a topic brought."""

    def __init__(self, node, interface, topic, qos):
        self.messages = []
        self.subscription = node.create_subscription(interface, topic, self.messages.append, qos)

    def next(self, count=1, accept=lambda _message: True, timeout=20.0):
        """Return the first `count` acceptable messages from now on."""
        begin = len(self.messages)

        def found():
            new = [message for message in self.messages[begin:] if accept(message)]
            return new[:count] if len(new) >= count else None
        return wait_for(found, timeout, f'{count} messages on {self.subscription.topic_name}')


class Graph:
    """The test's own node under /moe, spun in a thread; a context manager."""

    def __enter__(self):
        self.context = rclpy.Context()
        self.context.init()
        self.node = rclpy.create_node('tester', namespace='moe', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()
        return self

    def _spin(self):
        while not self._stop.is_set():
            self.executor.spin_once(timeout_sec=0.1)

    def __exit__(self, *_error):
        self._stop.set()
        self._thread.join()
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.shutdown()

    def listen(self, interface, topic, qos=None):
        """Subscribe; reliable by default."""
        return Listener(self.node, interface, topic, qos or QoSProfile(depth=100))

    def diagnostics(self):
        """Listen to /diagnostics."""
        return self.listen(DiagnosticArray, '/diagnostics')

    def call(self, interface, name, request, timeout=20.0):
        """Call a service and return its response."""
        client = self.node.create_client(interface, name)
        assert client.wait_for_service(timeout), f'no service {name}'
        return answer_of(client, request, timeout)

    def send(self, interface, name, goal, feedback=None, timeout=20.0):
        """Send a goal and return its handle, accepted."""
        client = MeetingActionClient(self.node, interface, name)
        assert client.wait_for_server(timeout), f'no action {name}'
        handle = result_of(client.send_goal_async(
            goal, feedback_callback=(lambda message: feedback.append(message.feedback)) if feedback is not None
            else None), timeout)
        assert handle.accepted
        return handle


def answer_of(client, request, timeout=30.0):
    """Call a service whose server is there.

    One that has just started may answer before it has discovered who asks; such an answer is lost for good.
    """
    with contextlib.suppress(AssertionError):
        return result_of(client.call_async(request), LOST_ANSWER_S)
    return result_of(client.call_async(request), timeout)


def result_of(future, timeout=30.0):
    """Wait for a future that the spinning thread completes."""
    wait_for(future.done, timeout, 'future')
    return future.result()


def node(log, name, **parameters):
    """Start a node of this package under /moe."""
    arguments = ['--ros-args', '-r', '__ns:=/moe']
    for key, value in parameters.items():
        arguments += ['-p', f'{key}:={value}']
    return Module(log, f'moe_hardware.ros.{name}', *arguments)


def status_of(message, name):
    """The first status of a DiagnosticArray whose name begins with that of a node; None without one."""
    return next((status for status in message.status if status.name.startswith(f'{name}:')), None)


def wait_for_status(listener, name, accept, timeout=20.0):
    """Return the first status of a node from now on that is acceptable."""
    message = listener.next(1, lambda one: (status := status_of(one, name)) is not None and accept(status), timeout)[0]
    return status_of(message, name)
