"""The way into the suite over HTTP, by the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Generator, Iterator
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

import httpx

from moe_client.errors import InvalidRequest, MoeError, Timeout, Unavailable, raise_for
from moe_client.operations import find
from moe_client.transport import Event, Values

_IN_PATH = re.compile(r'\{(\w+)\}')
_STREAM_HEADERS = {'Accept': 'text/event-stream'}


class HttpTransport:
    """Carries operations out as requests to a gateway.

    Args:
        base_url: 'http://127.0.0.1:8000'.
        api_key: '' = none.
        timeout: of a request [s]; of a stream, between two signs of life.
    """

    def __init__(self, base_url: str, api_key: str = '', timeout: float = 300.0) -> None:
        headers = {'Authorization': f'Bearer {api_key}'} if api_key else {}
        self._timeout = timeout
        self._settings: dict[str, Any] = {'base_url': base_url.rstrip('/'), 'headers': headers, 'timeout': timeout}
        self._client = httpx.Client(**self._settings)
        self._async_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def call(self, name: str, values: Values, timeout: float = 0.0) -> Values:
        """See Transport."""
        with self._errors():
            return _data(self._client.request(**self._request(name, values), timeout=timeout or self._timeout))

    async def acall(self, name: str, values: Values, timeout: float = 0.0) -> Values:
        """See Transport."""
        with self._errors():
            return _data(await self._asynchronous().request(**self._request(name, values),
                                                            timeout=timeout or self._timeout))

    def stream(self, name: str, values: Values, timeout: float) -> Generator[Event, None, None]:
        """See Transport."""
        request = self._request(name, {**values, 'timeout': timeout} if name.startswith('inference.') else values)
        with self._errors(), self._client.stream(**request, timeout=timeout or self._timeout,
                                                 headers=_STREAM_HEADERS) as response:
            if response.status_code >= 400:
                response.read()
                _data(response)
            parser = _Events()
            for line in response.iter_lines():
                if event := parser.feed(line):
                    yield event
            parser.end()

    async def astream(self, name: str, values: Values, timeout: float) -> AsyncGenerator[Event, None]:
        """See Transport."""
        request = self._request(name, {**values, 'timeout': timeout} if name.startswith('inference.') else values)
        with self._errors():
            async with self._asynchronous().stream(**request, timeout=timeout or self._timeout,
                                                   headers=_STREAM_HEADERS) as response:
                if response.status_code >= 400:
                    await response.aread()
                    _data(response)
                parser = _Events()
                async for line in response.aiter_lines():
                    if event := parser.feed(line):
                        yield event
                parser.end()

    def _asynchronous(self) -> httpx.AsyncClient:
        # connections belong to the loop in which they were made, and asyncio.run() makes a new one each time
        loop = asyncio.get_running_loop()
        if loop not in self._async_clients:
            self._async_clients[loop] = httpx.AsyncClient(**self._settings)
        return self._async_clients[loop]

    @staticmethod
    def _request(name: str, values: Values) -> dict[str, Any]:
        """Method, URL and content of an operation."""
        operation = find(name)
        path = operation.path
        rest = dict(values)
        for key in _IN_PATH.findall(path):
            if not str(rest.get(key, '')):
                raise InvalidRequest(f'{name} needs {key}.')
            path = path.replace(f'{{{key}}}', quote(str(rest.pop(key)), safe=''))
        content: dict[str, Any] = {'params' if operation.in_query else 'json': rest}
        return {'method': operation.method, 'url': path, **content}

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise Timeout('Request timed out') from error
        except httpx.InvalidURL as error:
            raise InvalidRequest(f'{self._settings["base_url"]} is no URL: {error}.') from error
        except httpx.TransportError as error:
            raise Unavailable(f'The gateway at {self._settings["base_url"]} cannot be reached: {error}; start '
                              'the suite with `moe up`, or check base_url.') from error


def _data(response: httpx.Response) -> Values:
    """The data of an envelope; raises its error."""
    try:
        envelope = response.json()
        if envelope['success']:
            data: Values = envelope['data']
            return data
        error = {'code': int(envelope['error']['code']), **envelope['error']}
    except (ValueError, KeyError, TypeError) as wrong:
        raise MoeError(f'{response.url} answered with status {response.status_code} and no envelope; '
                       'is it a gateway of this suite?') from wrong
    _raise(error)
    raise MoeError(str(error.get('message')))


def _raise(error: Values) -> None:
    """Raise what the error of an envelope, or of an event, stands for."""
    details = error.get('details') or {}
    raise_for(int(error['code']), str(error.get('message')), float(details.get('retry_after_s') or 0.0))


class _Events:
    """Reads server-sent events, line by line."""

    def __init__(self) -> None:
        self._kind = ''
        self._finished = False

    def feed(self, line: str) -> Event | None:
        if line.startswith('event: '):
            self._kind = line[7:]
        elif line.startswith('data: '):
            data = json.loads(line[6:])
            if self._kind == 'error':
                _raise(data)
            self._finished = self._kind == 'result'
            return Event(self._kind, data)
        return None

    def end(self) -> None:
        if not self._finished:
            raise Unavailable('The stream ended before its result; the gateway or a node under it went away.')
