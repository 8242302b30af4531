"""What the tests of the servo and motion nodes share: a node of their own on the graph, and node processes."""

import subprocess
import sys

from diagnostic_msgs.msg import DiagnosticArray
from ros_graph import Graph, answer_of, result_of

from moe_hardware.ros.action_client import MeetingActionClient
from moe_interfaces.action import MoveJoints
from moe_interfaces.msg import ServoStates

SUCCEEDED, CANCELED, ABORTED = 4, 5, 6  # of action_msgs/GoalStatus


class ServoGraph(Graph):
    """A node that asks others, each through one client that it keeps."""

    def __init__(self):
        self._kept = {}

    def _keep(self, name, make):
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def latest(self, interface, name, condition=lambda _message: True):
        """Wait for a message, from now on, that fulfils the condition."""
        return self._keep(name, lambda: self.listen(interface, name)).next(1, condition)[0]

    def ask(self, interface, name, **fields):
        """Call a service and return its response."""
        client = self._keep(name, lambda: self.node.create_client(interface, name))
        assert client.wait_for_service(15.0)
        return answer_of(client, interface.Request(**fields))

    def begin(self, interface, name, feedback=None, **fields):
        """Send a goal; returns the accepted handle."""
        client = self._keep(name, lambda: MeetingActionClient(self.node, interface, name))
        assert client.wait_for_server(15.0)
        handle = result_of(client.send_goal_async(interface.Goal(**fields), feedback_callback=feedback))
        assert handle.accepted
        return handle

    @staticmethod
    def end(handle):
        """Wait for the end of a goal; returns (status, result)."""
        answer = result_of(handle.get_result_async())
        return answer.status, answer.result

    def execute(self, interface, name, **fields):
        """Send a goal and wait for its end; returns (status, result)."""
        return self.end(self.begin(interface, name, **fields))


def start(module, **parameters):
    """Start a node of this package as a process; its output goes to that of the tests."""
    command = [sys.executable, '-m', f'moe_hardware.ros.{module}', '--ros-args', '-r', '__ns:=/moe']
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


