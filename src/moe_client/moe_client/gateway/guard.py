"""The first and last to see a request: its id, its key, its limits, its line in the log, its metrics."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from contextvars import ContextVar
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moe_client.errors import MoeError, RateLimited
from moe_client.gateway.envelope import failure, failure_of
from moe_client.gateway.keys import KeyRing
from moe_client.gateway.limits import Allowance, RateLimiter
from moe_client.gateway.metrics import Metrics
from moe_client.gateway.settings import Settings

request_id: ContextVar[str] = ContextVar('request_id', default='-')
_ID = re.compile(r'[\w.:-]{1,64}', re.ASCII)
OPEN = ('/', '/health', '/docs', '/openapi.json', '/favicon.ico')  # pages that hold nothing of anybody
OPEN_BELOW = ('/static/', '/docs/')
UPLOAD = '/v1/datasets/upload'
log = logging.getLogger('moe.gateway')


class RequestIdFilter(logging.Filter):
    """Puts the id of the request into each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add it."""
        record.request_id = request_id.get()
        return True


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, settings: Settings, keys: KeyRing, limiter: RateLimiter, metrics: Metrics) -> None:
        self._app, self._settings = app, settings
        self._keys, self._limiter, self._metrics = keys, limiter, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the application answer."""
        if scope['type'] != 'http':
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode('latin-1') for name, value in scope['headers']}
        given = headers.get(b'x-request-id', '')
        number = given if _ID.fullmatch(given) else uuid.uuid4().hex[:16]
        request_id.set(number)
        scope['state']['request_id'] = number
        exchange = _Exchange(self._settings, scope, receive, send, number)
        begin = time.perf_counter()
        try:
            refusal = self._refusal(scope, headers, exchange)
            await (refusal or self._app)(scope, exchange.receive, exchange.send)
        finally:
            self._note(scope, exchange, time.perf_counter() - begin)

    def _refusal(self, scope: Scope, headers: dict[bytes, str], exchange: _Exchange) -> ASGIApp | None:
        """The answer to a request that must not go on."""
        path = scope['path']
        if path in OPEN or path.startswith(OPEN_BELOW):
            return None
        try:
            identity = self._keys.check(headers.get(b'authorization', ''), headers.get(b'x-api-key', ''))
            scope['state']['identity'] = identity
            caller = f'key {identity.id}' if identity.id else f'address {(scope.get("client") or ("-",))[0]}'
            exchange.allowance = self._limiter.take(caller)
            if exchange.allowance and not exchange.allowance.allowed:
                raise RateLimited(f'More than {exchange.allowance.limit} requests in this minute; come back in '
                                  f'{exchange.allowance.reset_s} s.', retry_after_s=exchange.allowance.reset_s)
        except MoeError as error:
            return failure_of(path, error)
        length = headers.get(b'content-length', '0')
        if length.isdigit() and int(length) > exchange.body_limit:
            return failure(path, 3004, exchange.too_large, 413)
        return None

    def _note(self, scope: Scope, exchange: _Exchange, seconds: float) -> None:
        route = scope.get('route')
        name = getattr(route, 'path', None) or ('static' if scope['path'] in OPEN else 'none')
        self._metrics.requests.labels(name, scope['method'], str(exchange.status)).inc()
        self._metrics.request_latency.labels(name).observe(seconds)
        level = logging.DEBUG if name in OPEN and exchange.status < 400 else logging.INFO
        log.log(level, '%s %s %s %.1f ms', scope['method'], name if name != 'none' else '(no route)', exchange.status,
                1000 * seconds)


class _Exchange:
    """One request and its response: counts and times the one, completes the headers of the other."""

    def __init__(self, settings: Settings, scope: Scope, receive: Receive, send: Send, number: str) -> None:
        self._receive, self._send, self._number = receive, send, number
        self._timeout = settings.receive_timeout_s
        self._received, self._whole = 0, False
        self.body_limit = settings.upload_limit if scope['path'] == UPLOAD else settings.body_limit
        self.allowance: Allowance | None = None
        self.status = 499  # until an answer begins

    @property
    def too_large(self) -> str:
        """The sentence about a body over the limit."""
        return f'The body is larger than {self.body_limit} bytes, the limit of this gateway.'

    async def receive(self) -> Message:
        """The next piece of the body; raises where it is too much or comes too slowly."""
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(self._timeout):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f'No more of the body came within {self._timeout:g} s.') from None
        self._received += len(message.get('body', b''))
        self._whole = not message.get('more_body', False)
        if self._received > self.body_limit:
            raise HTTPException(413, self.too_large)
        return message

    async def send(self, message: Message) -> None:
        """Send, with the request's id and the caller's limits among the headers."""
        if message['type'] == 'http.response.start':
            self.status = message['status']
            more: dict[str, Any] = {'X-Request-ID': self._number, 'X-Content-Type-Options': 'nosniff'}
            if self.allowance:
                more.update(self.allowance.headers())
            message['headers'] = [*message.get('headers', ()), *(
                (name.lower().encode(), value.encode()) for name, value in more.items())]
        await self._send(message)
