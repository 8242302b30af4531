"""Expert nodes on other machines: one is cut off, the other answers, the cut-off one comes back and answers again.

A machine is a network namespace with a /dev/shm of its own; a bridge on the robot is the network between them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ament_index_python.packages import get_package_prefix
from conftest import wait_for

ROOT = Path(__file__).parents[1]
QUESTION = 'How do I read a JSON file in Python?'


def refusal():
    """Why this machine can't hold others; '' = it can."""
    probe = subprocess.run(['unshare', '--net', '--mount', '--ipc', 'sh', '-c', 'ip link add wire type bridge'],
                           capture_output=True, text=True)
    return probe.stderr.strip()


class Machine:
    """A network namespace, kept by a process that sleeps in it; a context manager."""

    def __init__(self, number):
        self.address = f'10.77.0.{number}'
        self._keeper = subprocess.Popen(
            ['unshare', '--net', '--mount', '--ipc', 'sh', '-c',
             'mount -t tmpfs tmpfs /dev/shm && ip link set lo up && echo up && exec sleep infinity'],
            stdout=subprocess.PIPE, text=True)
        assert self._keeper.stdout.readline() == 'up\n'
        self.pid = self._keeper.pid

    def line(self, *command):
        """A command as it runs on this machine."""
        return ['nsenter', f'--net=/proc/{self.pid}/ns/net', f'--mount=/proc/{self.pid}/ns/mnt',
                f'--ipc=/proc/{self.pid}/ns/ipc', '--', *command]

    def ip(self, *arguments):
        subprocess.run(self.line('ip', *arguments), check=True, timeout=10)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._keeper.kill()
        self._keeper.wait()


class Network:
    """A robot and two machines beside it, all on one wire."""

    def __init__(self, machines):
        self.robot, *self.others = (machines.enter_context(Machine(number)) for number in (1, 2, 3))
        self.robot.ip('link', 'add', 'wire', 'type', 'bridge')
        self._address(self.robot, 'wire')
        for other in self.others:
            self.robot.ip('link', 'add', self._port(other), 'type', 'veth', 'peer', 'name', 'wire', 'netns',
                          str(other.pid))
            self.robot.ip('link', 'set', self._port(other), 'master', 'wire', 'up')
            self._address(other, 'wire')

    @staticmethod
    def _port(machine):
        return f'to-{machine.address.rpartition(".")[2]}'

    @staticmethod
    def _address(machine, device):
        machine.ip('address', 'add', f'{machine.address}/24', 'dev', device)
        machine.ip('link', 'set', device, 'up')
        machine.ip('route', 'add', '224.0.0.0/4', 'dev', device)

    def plug(self, machine, state):
        """Put the cable of a machine in ('up') or pull it out ('down')."""
        self.robot.ip('link', 'set', self._port(machine), state)


class Node:
    """A node of the suite on a machine, its output in a file; a context manager."""

    def __init__(self, machine, folder, package, program, *arguments, name=''):
        self.log = folder / f'{name or program}.log'
        remappings = ['-r', '__ns:=/moe', *(['-r', f'__node:={name}'] if name else [])]
        with self.log.open('wb') as output:
            self._process = subprocess.Popen(
                machine.line(str(Path(get_package_prefix(package)) / 'lib' / package / program), '--ros-args',
                             *remappings, *arguments),
                stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=dict(os.environ, ROS_AUTOMATIC_DISCOVERY_RANGE='SUBNET'))

    def answered(self, request_id):
        """Whether it was this node that answered."""
        return f'request_id={request_id} ' in self.log.read_text(errors='replace')

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def network():
    if cause := refusal():
        pytest.skip(f'no network namespaces here: {cause}')
    with contextlib.ExitStack() as machines:
        yield Network(machines)


def ask(robot):
    """The id of an answered request, asked on the robot; None = no answer."""
    done = subprocess.run(robot.line(sys.executable, '-m', 'moe_client', 'ask', QUESTION, '--json', '--timeout', '30'),
                          capture_output=True, text=True, timeout=120,
                          env=dict(os.environ, ROS_AUTOMATIC_DISCOVERY_RANGE='SUBNET'))
    return json.loads(done.stdout)['request_id'] if done.returncode == 0 else None


def test_a_machine_that_is_cut_off_is_passed_over_until_it_comes_back(network, home, tmp_path):
    robot, (left, right) = network.robot, network.others
    with contextlib.ExitStack() as nodes:
        for package, program, *arguments in (
                ('moe_experts', 'registry_node', '-p', f'catalogue:={ROOT / "data" / "experts.yaml"}'),
                ('moe_router', 'router_node', '-p', 'act:=false', '-p', 'expert_nodes:=["experts_1", "experts_2"]')):
            nodes.enter_context(Node(robot, tmp_path, package, program, *arguments))
        first, second = (nodes.enter_context(Node(
            machine, tmp_path, 'moe_experts', 'expert_node', '-p', f'replica:={number}', name=f'experts_{number}'))
            for number, machine in ((1, left), (2, right)))

        def answered_by(node, tries=20):
            """Whether that node answers one of the next requests; every one of them is answered."""
            for _ in range(tries):
                request = ask(robot)
                assert request, 'a request was lost'
                if node.answered(request):
                    return True
            return False

        wait_for(lambda: ask(robot), timeout=240.0)
        assert answered_by(first) and answered_by(second), 'both machines take their share'
        network.plug(left, 'down')
        for _ in range(3):
            assert second.answered(wait_for(lambda: ask(robot), timeout=60.0))
        network.plug(left, 'up')
        wait_for(lambda: answered_by(first, 3), timeout=120.0)
