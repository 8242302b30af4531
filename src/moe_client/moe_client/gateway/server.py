"""uvicorn as the gateway runs it: one process or several, slow callers cut off, logs with request ids."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from moe_client.gateway.guard import RequestIdFilter
from moe_client.gateway.settings import Settings

BACKLOG = 2048
WS_MESSAGE_LIMIT = 65536
GRACE_S = 3


def protocol(receive_timeout_s: float) -> type[HttpToolsProtocol]:
    """uvicorn's protocol, that closes a connection whose request's head does not arrive in time (slow loris)."""
    class Impatient(HttpToolsProtocol):
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._forget_head()
            elif self._head_timer is None:
                self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_head()
            super().connection_lost(exc)

        def _expect_head(self) -> None:
            self._head_timer = self.loop.call_later(receive_timeout_s, self._give_up)

        def _forget_head(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _give_up(self) -> None:
            upgraded = self.transport.get_protocol() is not self  # to a WebSocket, which has its own rules
            idle = self.cycle is None or self.cycle.response_complete
            if idle and not upgraded and not self.transport.is_closing():
                self.transport.close()
    return Impatient


class Server(uvicorn.Server):
    """uvicorn that leaves the signals to whoever runs it, from the process's first moment to its last.

    uvicorn's own handlers are there only while it serves; a signal that comes while the application is being made
    would be heard by nobody.

    Args:
        config: from configuration().
        stopped: whether to end; asked every 0.1 s.
    """

    def __init__(self, config: uvicorn.Config, stopped: Callable[[], bool]) -> None:
        super().__init__(config)
        self._stopped = stopped

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        """Leave them as they are."""
        return contextlib.nullcontext()

    async def on_tick(self, counter: int) -> bool:
        """Whether to end now."""
        return await super().on_tick(counter) or self._stopped()


def configuration(app: Any, settings: Settings, **more: Any) -> uvicorn.Config:
    """uvicorn's settings."""
    return uvicorn.Config(
        app, http=protocol(settings.receive_timeout_s), loop='auto', ws='websockets-sansio', access_log=False,
        log_config=None, server_header=False, timeout_keep_alive=30, timeout_graceful_shutdown=GRACE_S,
        ws_max_size=WS_MESSAGE_LIMIT, backlog=BACKLOG, **more)


def log_to_stdout(level: int) -> None:
    """One line a record, with the id of the request; no header and no body of a request is ever logged."""
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(logging.Formatter(
        '[%(levelname)s] [%(created).6f] [moe.gateway] [request %(request_id)s]: %(message)s'))
    for name, least in (('moe.gateway', level), ('uvicorn.error', max(level, logging.WARNING))):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(least)
