"""What the gateway needs of the graph beyond a transport."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from pydantic import BaseModel

from moe_client.operations import Operation
from moe_client.transport import Transport, Values


class Backend(Transport, Protocol):
    """A transport that also lets one look on; moe_client.ros.transport.RosTransport is one."""

    def listening(self, kind: str, topic: str, put: Callable[[Values], None]) -> AbstractContextManager[str]:
        """Give every message of a topic to `put`, in another thread, for the time of a with block."""

    def listening_to_progress(self, name: str, put: Callable[[Values], None]) -> AbstractContextManager[str]:
        """Give the progress of every goal of an action to `put`, whoever sent it."""

    def node_names(self) -> Sequence[str]:
        """Names of the suite's nodes that are on the graph."""

    async def frame(self, timeout: float) -> tuple[bytes, str]:
        """The camera's next compressed image and its format, 'jpeg' or 'png'."""

    def request_model(self, operation: Operation, omit: frozenset[str]) -> type[BaseModel]:
        """The fields of an operation's request but those in `omit`; unknown ones are refused."""

    def result_model(self, operation: Operation) -> type[BaseModel]:
        """The fields of an operation's result."""
