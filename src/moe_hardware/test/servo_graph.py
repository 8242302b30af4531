"""What the tests of the servo and motion nodes share: a node of their own on the graph, and node processes."""

import contextlib
import subprocess
import sys

from action_msgs.msg import GoalInfo
from action_msgs.srv import CancelGoal
from diagnostic_msgs.msg import DiagnosticArray
from processes import wait_for
from rclpy.action import ActionClient
from ros_graph import Graph, result_of
from unique_identifier_msgs.msg import UUID

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
        return result_of(client.call_async(interface.Request(**fields)))

    def begin(self, interface, name, feedback=None, **fields):
        """Send a goal; returns the accepted handle."""
        client = self._keep(name, lambda: ActionClient(self.node, interface, name))
        assert client.wait_for_server(15.0)
        self._meet(name)
        handle = result_of(client.send_goal_async(interface.Goal(**fields), feedback_callback=feedback))
        assert handle.accepted
        return handle

    def _meet(self, name):
        """Cancel a goal that never was until that is answered.

        A server that has just started may not have discovered us, and then its answer, to a goal as well, is lost.
        """
        if (name, 'met') in self._kept:
            return
        client = self._keep((name, 'met'), lambda: self.node.create_client(CancelGoal, f'{name}/_action/cancel_goal'))
        nobody = CancelGoal.Request(goal_info=GoalInfo(goal_id=UUID(uuid=[1] * 16)))

        def answered():
            with contextlib.suppress(AssertionError):
                return result_of(client.call_async(nobody), 2.0)
        wait_for(answered, 60.0, f'an answer of {name}')

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


