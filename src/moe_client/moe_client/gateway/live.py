"""/ws: what happens in the suite, as it happens, by channels."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from moe_client.errors import MoeError
from moe_client.gateway.envelope import finite, now, plain_json
from moe_client.gateway.keys import Identity
from moe_client.transport import Values

if TYPE_CHECKING:
    from moe_client.gateway.context import Context

SCOPE_OF = {'training': 'inference', 'inference': 'inference', 'hardware': 'hardware'}
BACKLOG = 200  # events that a slow reader may be behind; then the oldest are lost
POLICY_VIOLATION = 1008
FIRST_MESSAGE_S = 10.0


class Channels:
    """Gives events to whoever subscribed to their channel."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readers: dict[asyncio.Queue[bytes], set[str]] = {}

    def open(self) -> None:
        """Begin, within the running loop."""
        self._loop = asyncio.get_running_loop()

    def tell(self, channel: str, event: str, data: Values) -> None:
        """Give an event to its readers; from any thread."""
        if self._loop is not None and any(channel in wanted for wanted in list(self._readers.values())):
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._spread, channel, event, data)

    def _spread(self, channel: str, event: str, data: Values) -> None:
        line = plain_json({'channel': channel, 'event': event, 'data': finite(data), 'timestamp': now()})
        for queue, wanted in self._readers.items():
            if channel in wanted:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(line)

    @contextlib.contextmanager
    def reader(self) -> Any:
        """A queue and the set of its channels, which may be changed, for the time of a with block."""
        queue: asyncio.Queue[bytes] = asyncio.Queue(BACKLOG)
        wanted = self._readers[queue] = set()
        try:
            yield queue, wanted
        finally:
            del self._readers[queue]


async def serve(socket: WebSocket, context: Context) -> None:
    """Talk to one client: {"subscribe": [channels], "unsubscribe": [channels], "api_key": "..."} as often as it likes.

    The key, where one is needed, stands in the first message and not in the address, which ends up in logs.
    """
    await socket.accept()
    with context.channels.reader() as (queue, wanted):
        sending = asyncio.create_task(_send(socket, queue))
        try:
            identity: Identity | None = None
            while True:
                async with asyncio.timeout(FIRST_MESSAGE_S if identity is None else None):
                    text = await socket.receive_text()
                try:
                    message = _message(text)
                    if identity is None or 'api_key' in message:
                        identity = context.keys.check('', str(message.get('api_key') or ''))
                    for channel in message.get('subscribe', ()):
                        identity.demand(SCOPE_OF[channel])
                except (MoeError, ValueError) as error:
                    await socket.close(POLICY_VIOLATION, str(error)[:120])
                    return
                wanted |= set(message.get('subscribe', ()))
                wanted -= set(message.get('unsubscribe', ()))
                queue.put_nowait(plain_json({'channel': 'ws', 'event': 'subscribed',
                                             'data': {'channels': sorted(wanted)}, 'timestamp': now()}))
        except (WebSocketDisconnect, KeyError):  # KeyError: a binary message
            return
        except TimeoutError:
            await socket.close(POLICY_VIOLATION, f'Nothing was subscribed to within {FIRST_MESSAGE_S:g} s.')
        finally:
            sending.cancel()


async def _send(socket: WebSocket, queue: asyncio.Queue[bytes]) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await socket.send_text((await queue.get()).decode())


def _message(text: str) -> dict[str, Any]:
    """Parse a message; raises ValueError with what is wrong."""
    message = json.loads(text)
    if not isinstance(message, dict):
        raise ValueError('A message has to be a JSON object.')
    for key in ('subscribe', 'unsubscribe'):
        channels = message.get(key, [])
        if not isinstance(channels, list) or any(name not in SCOPE_OF for name in map(str, channels)):
            raise ValueError(f'"{key}" has to be a list of {", ".join(SCOPE_OF)}.')
    return message
