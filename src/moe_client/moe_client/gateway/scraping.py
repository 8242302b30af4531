"""/metrics on a port and a thread of its own: a scrape never waits for an answer, nor an answer for a scrape."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app


class _Quiet(WSGIRequestHandler):
    timeout = 5.0  # of a scraper that sends nothing [s]

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def scrapes(listener: socket.socket, registry: CollectorRegistry) -> Iterator[None]:
    """Serve /metrics on a listening socket, for the time of a with block."""
    listener.setblocking(True)
    address = listener.getsockname()[:2]
    server = WSGIServer(address, _Quiet, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.server_name, server.server_port = address
    server.setup_environ()
    server.set_app(make_wsgi_app(registry))
    threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.2}, daemon=True, name='metrics').start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
