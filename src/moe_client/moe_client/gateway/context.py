"""What every route of the gateway shares."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.responses import Response, StreamingResponse

from moe_client.errors import Cancelled, InvalidRequest, MoeError
from moe_client.gateway.backend import Backend
from moe_client.gateway.envelope import finite, plain_json, problem
from moe_client.gateway.keys import LOCAL, KeyRing
from moe_client.gateway.live import Channels
from moe_client.gateway.metrics import Metrics
from moe_client.gateway.observations import Observations
from moe_client.gateway.settings import Settings
from moe_client.transport import Event, Values

T = TypeVar('T')
SSE_HEADERS = {'Cache-Control': 'no-cache', 'X-Accel-Buffering': 'no'}
DAY_S = 24 * 3600.0
BEARER = Depends(HTTPBearer(auto_error=False, description='an API key with the scope of the operation'))


@dataclass(frozen=True)
class Context:
    """The parts that routes work with."""

    settings: Settings
    backend: Backend
    observations: Observations
    channels: Channels
    metrics: Metrics
    keys: KeyRing

    async def expert_name(self, reference: str) -> str:
        """The name of an expert that is named by its id or its name."""
        if not reference.isdigit():
            return reference
        row = await self.backend.acall('experts.get', {'id_or_name': reference})
        return str(row['expert']['name'])

    def check_prompt(self, text: str) -> None:
        """Raise InvalidRequest where a prompt is longer than the gateway takes."""
        if len(text) > self.settings.prompt_limit:
            raise InvalidRequest(f'The prompt has {len(text)} characters; this gateway takes '
                                 f'{self.settings.prompt_limit} at most.')

    async def generation(self, operation: str, values: Values, timeout: float | None
                         ) -> AsyncGenerator[Event, None]:
        """The events of a generation, counted and told to those who watch."""
        who = {'request_id': values.get('request_id', ''), 'expert': values.get('expert', '')}
        self.channels.tell('inference', 'started', who)
        try:
            async with contextlib.aclosing(self.backend.astream(
                    operation, values, timeout or self.settings.generate_timeout_s)) as events:
                async for event in events:
                    if event.kind == 'result':
                        self.metrics.generation(event.data)
                        self.channels.tell('inference', 'finished', {
                            **who, 'expert': event.data['expert'], 'finish_reason': event.data['finish_reason'],
                            'usage': event.data['usage'], 'timings': event.data['timings'],
                            'route': event.data['route']})
                    yield event
        except MoeError as error:
            self.metrics.failed_generation(str(who['expert']), type(error).__name__)
            self.channels.tell('inference', 'failed', {**who, **problem(error)})
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self.metrics.failed_generation(str(who['expert']), 'Cancelled')
            self.channels.tell('inference', 'cancelled', who)
            raise

    async def answer(self, operation: str, values: Values, timeout: float | None) -> Values:
        """The result of a generation."""
        async with contextlib.aclosing(self.generation(operation, values, timeout)) as events:
            async for event in events:
                last = event.data
        return last


def need(scope: str) -> Any:
    """A dependency: the caller's key has this scope."""
    async def check(request: Request, _key: Any = BEARER) -> None:
        getattr(request.state, 'identity', LOCAL).demand(scope)
    return Depends(check)


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Do work as long as the caller waits for it; raises Cancelled, and cancels the work, when it went away."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Cancelled('The caller went away.')
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, MoeError):
                await task


async def _gone(request: Request) -> None:
    while (await request.receive())['type'] != 'http.disconnect':
        continue


def event_stream(events: AsyncIterator[Event]) -> Response:
    """Events as text/event-stream; the last one is "result" or "error"."""
    return stream_of(events, lambda event: f'event: {event.kind}\ndata: '.encode() + plain_json(finite(event.data)),
                     lambda error: b'event: error\ndata: ' + plain_json(problem(error)))


def stream_of(items: AsyncIterator[T], write: Callable[[T], bytes], wrong: Callable[[MoeError], bytes],
              end: bytes = b'') -> Response:
    """A text/event-stream of items; what goes wrong on the way is said by `wrong`."""
    async def body() -> AsyncGenerator[bytes, None]:
        try:
            async for item in items:
                yield write(item) + b'\n\n'
        except MoeError as error:
            yield wrong(error) + b'\n\n'
        finally:
            if isinstance(items, AsyncGenerator):
                await items.aclose()
        if end:
            yield end + b'\n\n'
    return StreamingResponse(body(), media_type='text/event-stream', headers=SSE_HEADERS)


async def opened(events: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The same events; an error that comes before the first one is raised here, so it has its own status."""
    first = await anext(events)

    async def rest() -> AsyncGenerator[T, None]:
        async with contextlib.aclosing(events):
            yield first
            async for event in events:
                yield event
    return rest()
