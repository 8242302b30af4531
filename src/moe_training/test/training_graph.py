"""Registry and training node as processes, and a node inside the test process that asks them."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest
import rclpy
from action_client import MeetingActionClient
from ament_index_python.packages import get_package_prefix
from rclpy.executors import SingleThreadedExecutor
from tiny import SYSTEM, write_dataset

from moe_interfaces.action import TrainExpert
from moe_interfaces.msg import Expert
from moe_interfaces.srv import CreateExpert, GetTrainingJob, GetVersion

ENDLESS = 100_000
LOST_ANSWER_S = 25.0  # longer than any service takes, on a busy machine too
SETTINGS = {'heartbeat_s': 0.2, 'checkpoint_steps': 2, 'stuck_timeout_s': 300.0}


def wait_for(condition, timeout=120.0, what='condition'):
    """Return the first true value of condition()."""
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f'{what} not met within {timeout} s')


class NodeProcess:
    """An executable under /moe with its output in a file; ended whatever happens."""

    def __init__(self, folder, package, name, **parameters):
        self.log = folder / f'{name}.log'
        arguments = ['--ros-args', '-r', '__ns:=/moe']
        for key, value in parameters.items():
            arguments += ['-p', f'{key}:={value}']
        with self.log.open('ab') as output:
            program = Path(get_package_prefix(package)) / 'lib' / package / name
            self.process = subprocess.Popen([program, *arguments], env={**os.environ, 'MOE_HOME': str(folder)},
                                            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        if self.process.poll() is None:
            self.end()

    def end(self, number=signal.SIGTERM, timeout=40.0):
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class Goal:
    """A goal on its way: what was fed back, and its end."""

    def __init__(self, graph, interface, name, goal):
        self.feedback = []
        client = graph.once(name, lambda: MeetingActionClient(graph.node, interface, name))
        assert client.wait_for_server(60.0), f'no action {name}'
        self._graph = graph
        self.handle = graph.result(client.send_goal_async(
            goal, feedback_callback=lambda message: self.feedback.append(message.feedback)))
        self._result = self.handle.get_result_async()

    def stepping(self, steps=1):
        """Wait for steps of training."""
        wait_for(lambda: (self.feedback and self.feedback[-1].step >= steps) or self._result.done(), what='a step')
        return self

    def cancel(self):
        """Ask for the end."""
        self._graph.result(self.handle.cancel_goal_async())
        return self

    def result(self, timeout=180.0):
        """Wait for the result; returns (status, result)."""
        answer = self._graph.result(self._result, timeout)
        return answer.status, answer.result


class Graph:
    """A client node, spun in a thread."""

    def __enter__(self):
        rclpy.init()
        self.node = rclpy.create_node('training_tests', namespace='/moe')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._clients = {}
        self._thread = threading.Thread(target=self._executor.spin)
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.try_shutdown()

    def once(self, name, make):
        """A client that is made at its first use."""
        if name not in self._clients:
            self._clients[name] = make()
        return self._clients[name]

    @staticmethod
    def result(future, timeout=60.0):
        """Wait for a future."""
        wait_for(future.done, timeout, 'answer')
        return future.result()

    def call(self, interface, name, /, timeout=60.0, **fields):
        """Call a service."""
        client = self.once(name, lambda: self.node.create_client(interface, name))
        assert client.wait_for_service(60.0), f'no service {name}'
        # A server that has just started may answer before it has discovered who asks; such an answer is lost for good.
        with contextlib.suppress(AssertionError):
            return self.result(client.call_async(interface.Request(**fields)), LOST_ANSWER_S)
        return self.result(client.call_async(interface.Request(**fields)), timeout)


def goal(home, **fields):
    return TrainExpert.Goal(**{
        'expert': 'doors', 'dataset': str(home / 'data' / 'doors.jsonl'), 'method': 'full', 'base': 'tiny',
        'max_steps': 4, 'batch_size': 4, 'learning_rate': 1e-3, 'holdout': 0.2, **fields})


def train(graph, home, **fields):
    return Goal(graph, TrainExpert, 'train_expert', goal(home, **fields))


def job(graph, number):
    return graph.call(GetTrainingJob, 'registry/get_training_job', id=number).job


def _workers(home):
    """Processes that still train below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if 'train_expert' in ' '.join(process.cmdline()) and process.environ().get('MOE_HOME') == str(home):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope='module', name='home')
def training_home(tmp_path_factory):
    folder = tmp_path_factory.mktemp('moe')
    if os.geteuid() == 0:
        for parent in (folder, *folder.parents[:2]):
            parent.chmod(0o755)  # the embedded server runs as a user of its own where the tests run as root
    (folder / 'data').mkdir()
    write_dataset(folder / 'data' / 'doors.jsonl')
    (folder / 'link').symlink_to(folder / 'data')
    return folder


@pytest.fixture(scope='module', name='graph')
def training_graph(home):
    with Graph() as graph, NodeProcess(home, 'moe_experts', 'registry_node'):
        wait_for(lambda: graph.call(GetVersion, 'registry/get_version', expert='none').error_code == 1000,
                 what='registry')
        for name in ('doors', 'gates'):
            assert not graph.call(CreateExpert, 'registry/create_expert', expert=Expert(
                name=name, domain=name, system_prompt=SYSTEM)).error_code
        yield graph
        assert not _workers(home), 'a worker outlives its node'
