"""One process that answers HTTP; where there are several, each has a ROS node of its own and one socket for all."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from moe_client.gateway.application import application
from moe_client.gateway.metrics import Metrics
from moe_client.gateway.server import Server, configuration, log_to_stdout
from moe_client.gateway.settings import DISCOVERY_S, READY_TIMEOUT_S, Settings
from moe_client.ros.backend import RosBackend
from moe_client.ros.graph import Graph
from moe_client.ros.stop import Stop, stop_at_signals

GRACE_S = 6.0


def serve(listener: socket.socket, settings: Settings, graph: Graph, metrics: Metrics, stop: Stop) -> None:
    """Answer until the stop."""
    app = application(settings, RosBackend(graph=graph), metrics)
    Server(configuration(app, settings), stop.is_set).run([listener])


class Workers:
    """Worker processes on one listening socket; whoever dies is started again."""

    def __init__(self, listener: socket.socket, settings: Settings, level: int, arguments: Sequence[str]) -> None:
        self._listener = listener
        told = json.dumps({**asdict(settings), 'home': str(settings.home)})
        self._line = [sys.executable, '-m', __name__, str(listener.fileno()), told, str(level), *arguments]
        self._children = [self._start() for _ in range(settings.workers)]

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._line, pass_fds=(self._listener.fileno(),))

    def tend(self, stop: Stop) -> None:
        """Keep them alive until the stop, then end them."""
        while not stop.wait(0.2):
            self._children = [child if child.poll() is None else self._start() for child in self._children]
        for child in self._children:
            child.terminate()
        for child in self._children:
            try:
                child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def main() -> None:
    """Be one of several workers: file descriptor, settings, log level, ROS arguments."""
    descriptor, told, level, *arguments = sys.argv[1:]
    values = json.loads(told)
    settings = Settings(**{**values, 'home': Path(values['home'])})
    log_to_stdout(int(level))
    stop = stop_at_signals()
    graph = Graph(arguments=arguments, ready_timeout_s=READY_TIMEOUT_S, discovery_s=DISCOVERY_S)
    with contextlib.closing(graph):
        serve(socket.socket(fileno=int(descriptor)), settings, graph, Metrics(), stop)


if __name__ == '__main__':
    main()
