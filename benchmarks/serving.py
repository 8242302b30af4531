"""A registry and an expert node as processes of their own, and callers of them, for benchmarks."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from ament_index_python.packages import get_package_prefix
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile

from moe_interfaces.action import GenerateResponse
from moe_interfaces.msg import Expert, ExpertVersion, ServingStatus
from moe_interfaces.srv import CreateExpert, GetVersion, LoadExpert, RegisterVersion, UnloadExpert

ROOT = Path(__file__).parents[1]
DOMAIN = '57'
TIMEOUT_S = 600.0


@dataclass
class Call:
    """One goal: when it was sent, when its first text and its result came [s, monotonic], and what came."""

    sent: float
    first: float = 0.0
    ended: float = 0.0
    result: Any = None
    handle: Any = None
    text: str = ''

    @property
    def first_s(self) -> float:
        """Seconds to the first text."""
        return (self.first or self.ended) - self.sent


class Serving:
    """A context manager; the processes end with it.

    Args:
        home: MOE_HOME of the processes.
        base: GGUF file that expert `general` is.
        adapters: GGUF files by expert name.
        parameters: of the expert node.
    """

    def __init__(self, home: Path, base: Path, adapters: dict[str, Path], **parameters: Any) -> None:
        self._home, self._base, self._adapters, self._parameters = home, base, adapters, parameters
        self._processes: list[subprocess.Popen[bytes]] = []

    def _start(self, name: str, **parameters: Any) -> None:
        arguments = ['--ros-args', '-r', '__ns:=/moe']
        for key, value in parameters.items():
            arguments += ['-p', f'{key}:={value}']
        program = Path(get_package_prefix('moe_experts')) / 'lib' / 'moe_experts' / name
        with (self._home / f'{name}.log').open('wb') as log:
            self._processes.append(subprocess.Popen(
                [program, *arguments], env={**os.environ, 'MOE_HOME': str(self._home), 'ROS_DOMAIN_ID': DOMAIN},
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT))

    def __enter__(self) -> Serving:
        os.environ.update(ROS_DOMAIN_ID=DOMAIN, ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST')
        self._home.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:  # the embedded server runs as a user of its own where root starts it
            for folder in (self._home, *self._home.parents):
                if folder.stat().st_mode & 0o005 != 0o005 and folder != Path('/'):
                    folder.chmod(folder.stat().st_mode | 0o055)
        self._context = rclpy.Context()
        self._context.init()
        self._node = rclpy.create_node('benchmark', namespace='moe', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._clients: dict[str, Any] = {}
        self.status: ServingStatus | None = None
        self._node.create_subscription(ServingStatus, 'experts/status', self._on_status, 10)
        self._actions = ActionClient(self._node, GenerateResponse, 'experts/generate_response',
                                     feedback_sub_qos_profile=QoSProfile(depth=2000))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        try:
            self._start('registry_node')
            self._start('expert_node', **self._parameters)
            self._fill()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def _on_status(self, message: ServingStatus) -> None:
        self.status = message

    def __exit__(self, *_error: object) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._stop.set()
        self._thread.join()
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.shutdown()

    def _fill(self) -> None:
        """Register the experts."""
        give_up = time.monotonic() + 120
        while self.call(GetVersion, 'registry/get_version', expert='none').error_code == 5000:
            if time.monotonic() > give_up:
                raise SystemExit('The registry does not get its database.')
            time.sleep(0.2)
        self._create(Expert(name='general', domain='general', fallback=True, max_seq_len=4096), str(self._base))
        for name, path in self._adapters.items():
            self._create(Expert(name=name, domain=name, max_seq_len=4096), '')
            self._expect(self.call(RegisterVersion, 'registry/register_version', expert=name, alias='champion',
                                   version=ExpertVersion(artifact_path=str(path), base='base',
                                                         base_path=str(self._base))))
        if not self._actions.wait_for_server(60.0):
            raise SystemExit('The expert node does not start.')

    def _create(self, expert: Expert, path: str) -> None:
        self._expect(self.call(CreateExpert, 'registry/create_expert', expert=expert, artifact_path=path))

    @staticmethod
    def _expect(response: Any) -> Any:
        if response.error_code:
            raise SystemExit(response.error_msg)
        return response

    def call(self, interface: Any, name: str, **fields: Any) -> Any:
        """Call a service and wait."""
        client = self._clients.setdefault(name, None) or self._node.create_client(interface, name)
        self._clients[name] = client
        if not client.wait_for_service(60.0):
            raise SystemExit(f'There is no service {name}.')
        return _wait(client.call_async(interface.Request(**fields)))

    def load(self, expert: str) -> float:
        """Load an expert; returns the seconds that it took in the node."""
        return float(self._expect(self.call(LoadExpert, 'experts/load_expert', expert=expert)).load_s)

    def unload(self, expert: str) -> None:
        """Unload an expert."""
        self._expect(self.call(UnloadExpert, 'experts/unload_expert', expert=expert))

    def begin(self, changed: Callable[[Call], None] | None = None, **goal: Any) -> tuple[Call, Future[Call]]:
        """Send a goal; the future is done with its result."""
        call, done = Call(time.monotonic()), Future[Call]()

        def feedback(message: Any) -> None:
            text = message.feedback.partial_response.text
            if text and not call.first:
                call.first = time.monotonic()
            call.text += text
            if changed:
                changed(call)

        def finished(future: Any) -> None:
            call.result, call.ended = future.result().result, time.monotonic()
            done.set_result(call)

        def accepted(future: Any) -> None:
            call.handle = future.result()
            call.handle.get_result_async().add_done_callback(finished)
        self._actions.send_goal_async(GenerateResponse.Goal(**goal), feedback_callback=feedback).add_done_callback(
            accepted)
        return call, done

    def ask(self, goals: Sequence[dict[str, Any]]) -> list[Call]:
        """Send goals together and wait for all."""
        return [done.result(TIMEOUT_S) for _call, done in [self.begin(**goal) for goal in goals]]


def _wait(future: Any) -> Any:
    done = threading.Event()
    future.add_done_callback(lambda _future: done.set())
    if not done.wait(TIMEOUT_S):
        raise SystemExit('A service did not answer.')
    return future.result()
