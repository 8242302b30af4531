"""gateway_node: the suite over HTTP, and its metrics."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from moe_client.gateway.ports import listen, taken_by
from moe_client.gateway.settings import DISCOVERY_S, READY_TIMEOUT_S, Settings
from moe_client.ros.diagnostics import diagnose
from moe_client.ros.graph import Graph
from moe_client.ros.stop import Stop, stop_at_signals

RETRY_S = 5.0
_LEVELS = {'debug': logging.DEBUG, 'info': logging.INFO, 'warn': logging.WARNING, 'error': logging.ERROR,
           'fatal': logging.CRITICAL}


def declare(node: Node) -> Settings:
    """Declare the parameters and read them."""
    def integer(name: str, default: int, description: str, least: int, most: int) -> int:
        return int(node.declare_parameter(name, default, ParameterDescriptor(
            description=description, read_only=True,
            integer_range=[IntegerRange(from_value=least, to_value=most, step=1)])).value)

    def text(name: str, default: str, description: str) -> str:
        return str(node.declare_parameter(name, default, ParameterDescriptor(
            description=description, read_only=True)).value)

    def number(name: str, default: float, description: str) -> float:
        return float(node.declare_parameter(name, default, ParameterDescriptor(
            description=description, read_only=True)).value)

    return Settings(
        home=Path(os.environ.get('MOE_HOME') or '~/.local/share/moe').expanduser().absolute(),
        host=text('api.host', '127.0.0.1', 'address to listen on; another than a loopback one demands API keys'),
        port=integer('api.port', 8000, 'port to listen on; 0 = any that is free', 0, 65535),
        workers=integer('api.workers', 1, 'processes that answer, each with a ROS node of its own', 1, 64),
        rate_limit=integer('api.rate_limit', 1200, 'requests per minute and key, or address where no key is given; '
                           '0 = no limit', 0, 10 ** 9),
        body_limit=integer('api.body_limit', 4_000_000, 'most bytes of a request, uploads excepted', 1000, 10 ** 9),
        upload_limit=integer('api.upload_limit', 200_000_000, 'most bytes of an uploaded dataset', 1000, 10 ** 12),
        prompt_limit=integer('api.prompt_limit', 200_000, 'most characters of all messages of a request', 1, 10 ** 9),
        receive_timeout_s=number('api.receive_timeout_s', 20.0, 'within which the head, and again the body, of a '
                                 'request has to arrive [s]'),
        generate_timeout_s=number('api.generate_timeout_s', 120.0, 'of a generation whose caller names none [s]'),
        metrics_port=integer('metrics.port', 9090, 'port of /metrics, on the same address; 0 = any that is free',
                             0, 65535))


class Health:
    """What /diagnostics says of the gateway."""

    def __init__(self, node: Node) -> None:
        self._level, self._sentence = DiagnosticStatus.WARN, 'Starting.'
        self._publishing = diagnose(node, 'http', self._check, MutuallyExclusiveCallbackGroup())

    def put(self, level: bytes, sentence: str) -> None:
        """Say this from now on."""
        self._level, self._sentence = level, sentence

    def _check(self) -> tuple[bytes, str, dict[str, str]]:
        return self._level, self._sentence, {'pid': str(os.getpid())}


def main() -> None:
    """Run the node until SIGINT or SIGTERM; exit code 0."""
    stop = stop_at_signals()
    graph = Graph(name='gateway', arguments=sys.argv, ready_timeout_s=READY_TIMEOUT_S, discovery_s=DISCOVERY_S)
    try:
        settings, health = declare(graph.node), Health(graph.node)
        listeners = _listeners(graph, settings, health, stop)
        if listeners is not None:
            _serve(graph, settings, *listeners, health, stop)
    finally:
        graph.close()


def _listeners(graph: Graph, settings: Settings, health: Health, stop: Stop
               ) -> tuple[socket.socket, socket.socket] | None:
    """Sockets of the API and of the metrics, as soon as both ports are free; None = stopped before."""
    wanted = (('api.port', settings.port), ('metrics.port', settings.metrics_port))
    said = ''
    while not stop.is_set():
        try:
            for name, port in wanted:
                if port and (sentence := taken_by(settings.host, port)):
                    raise OSError(f'{sentence}; free it, or set {name} in config/gateway.yaml')
            return listen(settings.host, settings.port), listen(settings.host, settings.metrics_port)
        except OSError as error:
            if str(error) != said:
                said = str(error)
                health.put(DiagnosticStatus.ERROR, f'{said}.')
                graph.node.get_logger().error(f'{said}. Trying again every {RETRY_S:.0f} s.')
        stop.wait(RETRY_S)
    return None


def _serve(graph: Graph, settings: Settings, api: socket.socket, metrics_listener: socket.socket,
           health: Health, stop: Stop) -> None:
    """Serve the API with as many processes as asked for, and the metrics of them all, until stopped."""
    with contextlib.ExitStack() as stack:
        alone = settings.workers == 1
        if not alone:  # before prometheus_client is imported, which then writes into files
            os.environ['PROMETHEUS_MULTIPROC_DIR'] = stack.enter_context(
                tempfile.TemporaryDirectory(prefix='moe-metrics-'))
        # FastAPI and its like are imported late: a node whose port is taken waits without them
        from moe_client.gateway.metrics import Metrics, scraped
        from moe_client.gateway.observations import Observations
        from moe_client.gateway.scraping import scrapes
        from moe_client.gateway.server import log_to_stdout
        from moe_client.ros.backend import RosBackend
        from moe_client.ros.gateway_worker import Workers, serve
        log_to_stdout(_level())
        observations = Observations(RosBackend(graph=graph))
        stack.callback(observations.close)
        metrics = Metrics()
        stack.enter_context(scrapes(metrics_listener, scraped(metrics if alone else None, observations)))
        address, port, metrics_port = settings.host, api.getsockname()[1], metrics_listener.getsockname()[1]
        stack.enter_context(_announced(settings.home / 'run' / 'gateway.json', address, port, metrics_port))
        graph.node.get_logger().info(f'http://{address}:{port} serves the dashboard, /docs and the APIs; '
                                     f'http://{address}:{metrics_port}/metrics the metrics.')
        health.put(DiagnosticStatus.OK, f'Serving on http://{address}:{port}.')
        if alone:
            serve(api, settings, graph, metrics, stop)
        else:
            Workers(api, settings, _level(), sys.argv[1:]).tend(stop)


def _level() -> int:
    """The level of --log-level."""
    name = sys.argv[sys.argv.index('--log-level') + 1] if '--log-level' in sys.argv[:-1] else 'info'
    return _LEVELS.get(name.rpartition('=')[2].lower(), logging.INFO)


@contextlib.contextmanager
def _announced(path: Path, host: str, port: int, metrics_port: int) -> Iterator[None]:
    """Write where the gateway is found, for the time of a with block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix('.part')
    part.write_text(json.dumps({'pid': os.getpid(), 'url': f'http://{host}:{port}',
                                'metrics': f'http://{host}:{metrics_port}/metrics'}))
    part.replace(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            if json.loads(path.read_text())['pid'] == os.getpid():  # and not that of another gateway of this home
                path.unlink()


if __name__ == '__main__':
    main()
