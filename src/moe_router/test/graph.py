"""Processes of the suite, and a node inside the test process that asks them."""

import contextlib
import signal
import subprocess
import threading
import time
from pathlib import Path

import rclpy
from ament_index_python.packages import get_package_prefix
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile

from moe_router.ros.action_client import MeetingActionClient

LOST_ANSWER_S = 25.0  # longer than any service takes, on a busy machine too


def wait_for(condition, timeout=30.0, what='condition', interval=0.01):
    """Return the first true value of condition(), asked every interval seconds."""
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up:
        if value := condition():
            return value
        time.sleep(interval)
    raise AssertionError(f'{what} not met within {timeout} s')


class NodeProcess:
    """An executable of the suite, under /moe unless told otherwise, its output in a file; ended whatever happens."""

    def __init__(self, folder, package, name, environment, label='', remappings=('__ns:=/moe',), **parameters):
        self.log = folder / f'{label or name}.log'
        arguments = ['--ros-args']
        for remapping in remappings:
            arguments += ['-r', remapping]
        for key, value in parameters.items():
            arguments += ['-p', f'{key}:={value}']
        with self.log.open('ab') as output:
            program = Path(get_package_prefix(package)) / 'lib' / package / name
            self.process = subprocess.Popen([program, *arguments], env=environment, stdin=subprocess.DEVNULL,
                                            stdout=output, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        if self.process.poll() is None:
            self.end()

    def end(self, timeout=60.0):
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class Answer:
    """A goal on its way: what was fed back, and its end."""

    def __init__(self, graph, interface, name, goal):
        self.feedback = []
        client = graph.once(name, lambda: MeetingActionClient(graph.node, interface, name))
        assert client.wait_for_server(120.0), f'no action {name}'
        self._handle = graph.result(client.send_goal_async(
            goal, feedback_callback=lambda message: self.feedback.append(message.feedback)))
        assert self._handle.accepted
        self._result = self._handle.get_result_async()
        self._graph = graph

    @property
    def text(self):
        """What was streamed so far."""
        return ''.join(message.partial_response.text for message in self.feedback)

    def streaming(self):
        """Wait for the first text."""
        wait_for(lambda: self.text or self._result.done(), timeout=120.0, what='text')
        return self

    def cancel(self):
        """Ask to cancel."""
        self._graph.result(self._handle.cancel_goal_async())

    def result(self, timeout=180.0):
        """The result; `.goal_status` is the action's."""
        response = self._graph.result(self._result, timeout)
        self.goal_status = response.status
        return response.result


class Graph:
    """The test's own node, spun in a thread; a context manager."""

    def __enter__(self):
        self.context = rclpy.Context()
        self.context.init()
        self.node = rclpy.create_node('tester', namespace='moe', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()
        self._made = {}
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

    def once(self, name, make):
        """What make() returns, made once and kept: destroying it would disturb the spinning thread."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    @staticmethod
    def result(future, timeout=120.0):
        """Wait for a future."""
        wait_for(future.done, timeout, 'answer')
        return future.result()

    def call(self, interface, name, timeout=120.0, **fields):
        """Call a service under /moe."""
        client = self.once(name, lambda: self.node.create_client(interface, name))
        assert client.wait_for_service(timeout), f'no service {name}'
        # A server that has just started may answer before it has discovered who asks; such an answer is lost for good.
        give_up = time.monotonic() + timeout
        while time.monotonic() < give_up - LOST_ANSWER_S:
            future = client.call_async(interface.Request(**fields))
            with contextlib.suppress(AssertionError):
                return self.result(future, LOST_ANSWER_S)
        return self.result(client.call_async(interface.Request(**fields)), timeout)

    def ask(self, interface, name, **fields):
        """Send a goal."""
        return Answer(self, interface, name, interface.Goal(**fields))

    def message(self, interface, topic, accept, timeout=30.0):
        """The first acceptable message of a topic from now on."""
        messages = self.once(topic, lambda: self._listen(interface, topic))
        begin = len(messages)
        return wait_for(lambda: [one for one in messages[begin:] if accept(one)], timeout, f'a message on {topic}')[0]

    def _listen(self, interface, topic):
        messages = []
        self.node.create_subscription(interface, topic, messages.append, QoSProfile(depth=50))
        return messages


def second_node(suite, environment):
    """Another expert node for the same experts."""
    return NodeProcess(suite['logs'], 'moe_experts', 'expert_node', environment, label='second', remappings=(
        '__ns:=/moe/b', 'registry/get_version:=/moe/registry/get_version', 'registry/events:=/moe/registry/events'))


def second_router(suite, environment, nodes='["experts","b/experts"]', **parameters):
    """A router of its own name and endpoints that knows these nodes."""
    return NodeProcess(suite['logs'], 'moe_router', 'router_node', environment, label='both', remappings=(
        '__ns:=/moe', '__node:=both', 'generate_response:=both/generate_response', 'route_prompt:=both/route_prompt',
        'generate_chat_completions:=both/generate_chat_completions', 'infer:=both/infer',
        'retrain_router:=both/retrain_router', 'correct_route:=both/correct_route', 'router/stats:=both/stats',
        'router/explain:=both/explain'), expert_nodes=nodes, act='false', **parameters)
