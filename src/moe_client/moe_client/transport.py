"""What a way into the suite has to offer; ROS and HTTP both do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from typing import Any, Protocol

Values = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """A sign of life of an action: "progress", once or more or never, then "result"."""

    kind: str
    data: Values


class Transport(Protocol):
    """Carries operations of moe_client.operations out; every method raises a class of moe_client.errors.

    Timeouts are in seconds. Closing a stream before its end, or cancelling the task that reads it, cancels the
    operation.
    """

    def call(self, name: str, values: Values, timeout: float = 0.0) -> Values:
        """Carry out an operation and wait for its result; timeout 0 = the operation's own."""

    async def acall(self, name: str, values: Values, timeout: float = 0.0) -> Values:
        """As call()."""

    def stream(self, name: str, values: Values, timeout: float) -> Generator[Event, None, None]:
        """Carry out an action; yields its progress and its result."""

    def astream(self, name: str, values: Values, timeout: float) -> AsyncGenerator[Event, None]:
        """As stream()."""

    def close(self) -> None:
        """Let go of connections and threads."""
