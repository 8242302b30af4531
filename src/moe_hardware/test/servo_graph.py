"""What the tests of the servo and motion nodes share: a node of their own on the graph, and node processes."""

import contextlib
import subprocess
import sys
import threading
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from moe_interfaces.action import MoveJoints
from moe_interfaces.msg import ServoStates

NAMESPACE = '/moe'
SUCCEEDED, CANCELED, ABORTED = 4, 5, 6  # of action_msgs/GoalStatus


def wait_for(condition, timeout=15.0):
    """Return the first true value of condition()."""
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError('condition not met in time')


class Graph:
    """A node that asks others; spun in a thread."""

    def __init__(self):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('tester', namespace=NAMESPACE, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.clients = {}
        self.received = {}
        self.thread = threading.Thread(target=self._spin)
        self.thread.start()

    def _spin(self):
        with contextlib.suppress(ExternalShutdownException):
            while self.context.ok():
                self.executor.spin_once(timeout_sec=0.1)

    def close(self):
        self.context.try_shutdown()
        self.thread.join()

    def finish(self, future, timeout=15.0):
        wait_for(future.done, timeout)
        return future.result()

    def listen(self, interface, name):
        """Collect the messages of a topic in a list."""
        if name not in self.received:
            self.received[name] = []
            self.node.create_subscription(interface, name, self.received[name].append, 100)
        return self.received[name]

    def latest(self, interface, name, condition=lambda _message: True, timeout=15.0):
        """Wait for a message, from now on, that fulfils the condition."""
        messages = self.listen(interface, name)
        seen = len(messages)
        return wait_for(lambda: next((one for one in messages[seen:] if condition(one)), None), timeout)

    def call(self, interface, name, timeout=15.0, **fields):
        if name not in self.clients:
            self.clients[name] = self.node.create_client(interface, name)
        assert self.clients[name].wait_for_service(15.0)
        return self.finish(self.clients[name].call_async(interface.Request(**fields)), timeout)

    def send(self, interface, name, feedback=None, **fields):
        """Send a goal; returns the accepted handle."""
        if name not in self.clients:
            self.clients[name] = ActionClient(self.node, interface, name)
        assert self.clients[name].wait_for_server(15.0)
        handle = self.finish(self.clients[name].send_goal_async(interface.Goal(**fields), feedback_callback=feedback))
        assert handle.accepted
        return handle

    def result(self, handle):
        """Wait for the end of a goal; returns (status, result)."""
        answer = self.finish(handle.get_result_async(), 30.0)
        return answer.status, answer.result

    def execute(self, interface, name, **fields):
        return self.result(self.send(interface, name, **fields))


def start(module, **parameters):
    """Start a node of this package as a process; its output goes to that of the tests."""
    command = [sys.executable, '-m', f'moe_hardware.ros.{module}', '--ros-args', '-r', f'__ns:={NAMESPACE}']
    for name, value in parameters.items():
        command += ['-p', f'{name}:={value}']
    return subprocess.Popen(command)


def stop(process):
    """End a process that a test may have ended already."""
    if process.poll() is None:
        process.terminate()
    assert process.wait(20) is not None


def ready(graph):
    """Wait until both servos hold."""
    return graph.latest(ServoStates, 'servo_states',
                        lambda message: len(message.servos) == 2 and all(one.torque_enabled for one in message.servos))


def states(graph, condition):
    """Wait for servo_states that fulfil the condition."""
    return graph.latest(ServoStates, 'servo_states', condition)


def goals(bus, servo=1):
    """Goal positions [ticks] that were written, in order."""
    return [one['value'] for one in list(bus.journal.entries)
            if one['id'] == servo and one['register'] == 'goal_position']


def move(graph, **joints):
    """Move joints [rad]; returns (status, result)."""
    return graph.execute(MoveJoints, 'move_joints', joint_names=list(joints), positions=list(joints.values()))


def diagnosis(graph, name, level):
    """Wait for a status of this level."""
    def found(message):
        return [status for status in message.status if status.name.endswith(name) and status.level == level]
    return found(graph.latest(DiagnosticArray, '/diagnostics', found))[0]


