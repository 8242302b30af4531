"""The way into the suite over ROS."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator
from typing import Any

from moe_client.errors import HardwareError, raise_for
from moe_client.operations import Kind, Operation, find
from moe_client.ros import messages
from moe_client.ros.graph import Graph
from moe_client.transport import Event, Values


class RosTransport:
    """Carries operations out as services, actions and topics.

    Args:
        graph: left open when it was given, closed with the transport when it was made here.
    """

    def __init__(self, namespace: str = 'moe', graph: Graph | None = None) -> None:
        self.graph = graph or Graph(namespace)
        self._own = graph is None

    def close(self) -> None:
        """Leave the graph."""
        if self._own:
            self.graph.close()

    def call(self, name: str, values: Values, timeout: float = 0.0) -> Values:
        """See Transport."""
        operation, interface = self.resolve(name)
        if operation.kind is Kind.ACTION:
            *_, last = self.stream(name, values, timeout or 24 * 3600.0)
            return last.data
        limit = timeout or operation.timeout_s
        if operation.kind is Kind.TOPIC:
            return messages.to_plain(self.graph.latest(interface, operation.endpoint, limit))
        return _result(self.graph.call(interface, operation.endpoint, _request(operation, interface, values),
                                       limit, operation.again, operation.node))

    async def acall(self, name: str, values: Values, timeout: float = 0.0) -> Values:
        """See Transport."""
        operation, interface = self.resolve(name)
        if operation.kind is Kind.ACTION:
            async with contextlib.aclosing(self.astream(name, values, timeout or 24 * 3600.0)) as events:
                async for event in events:
                    last = event
            return last.data
        limit = timeout or operation.timeout_s
        if operation.kind is Kind.TOPIC:
            return messages.to_plain(await self.graph.alatest(interface, operation.endpoint, limit))
        return _result(await self.graph.acall(interface, operation.endpoint, _request(operation, interface, values),
                                              limit, operation.again, operation.node))

    def stream(self, name: str, values: Values, timeout: float) -> Generator[Event, None, None]:
        """See Transport."""
        operation, interface = self.resolve(name)
        goal = _goal(operation, interface, values)
        with contextlib.closing(self.graph.stream(interface, operation.endpoint, goal, timeout,
                                                  operation.node)) as arrivals:
            for kind, message in arrivals:
                yield _event(kind, message)

    async def astream(self, name: str, values: Values, timeout: float) -> AsyncGenerator[Event, None]:
        """See Transport."""
        operation, interface = self.resolve(name)
        goal = _goal(operation, interface, values)
        async with contextlib.aclosing(self.graph.astream(
                interface, operation.endpoint, goal, timeout, operation.node)) as arrivals:
            async for kind, message in arrivals:
                yield _event(kind, message)

    @staticmethod
    def resolve(name: str) -> tuple[Operation, Any]:
        """An operation and its interface class."""
        operation = find(name)
        return operation, messages.interface(operation.kind.value, operation.interface)


def _fields(operation: Operation, values: Values) -> Values:
    return operation.adapt(values) if operation.adapt else values


def _request(operation: Operation, interface: Any, values: Values) -> Any:
    return messages.from_plain(interface.Request, _fields(operation, values))


def _goal(operation: Operation, interface: Any, values: Values) -> Any:
    return messages.from_plain(interface.Goal, _fields(operation, values))


def _result(message: Any) -> Values:
    """Raise the error of a response, or convert it."""
    if hasattr(message, 'error_code'):
        raise_for(message.error_code, message.error_msg, getattr(message, 'retry_after', 0.0))
    elif not getattr(message, 'success', True):  # std_srvs
        raise HardwareError(message.message)
    return messages.to_plain(message)


def _event(kind: str, message: Any) -> Event:
    return Event('progress', messages.to_plain(message)) if kind == 'feedback' else Event('result', _result(message))
