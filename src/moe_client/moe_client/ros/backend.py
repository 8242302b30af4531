"""The graph as the gateway needs it: a transport that also looks on, and the interfaces as models of HTTP."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from enum import Enum
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, create_model
from rclpy.qos import qos_profile_sensor_data

from moe_client.gateway.bodies import Text
from moe_client.operations import Kind, Operation
from moe_client.ros import messages
from moe_client.ros.action_client import FEEDBACK_QOS
from moe_client.ros.transport import RosTransport
from moe_client.transport import Values


class Place(Enum):
    """Where a message's fields stand."""

    BODY = 'JSON of a request'
    QUERY = 'text in the URL of a request'
    RESULT = 'JSON of an answer'


class RosBackend(RosTransport):
    """See moe_client.gateway.backend.Backend."""

    def listening(self, kind: str, topic: str, put: Callable[[Values], None]
                  ) -> contextlib.AbstractContextManager[str]:
        """See Backend."""
        return self.graph.listening(messages.interface('msg', kind), topic,
                                    lambda message: put(messages.to_plain(message)), qos_profile_sensor_data)

    def listening_to_progress(self, name: str, put: Callable[[Values], None]
                              ) -> contextlib.AbstractContextManager[str]:
        """See Backend."""
        operation, interface = self.resolve(name)
        return self.graph.listening(interface.Impl.FeedbackMessage, f'{operation.endpoint}/_action/feedback',
                                    lambda message: put(messages.to_plain(message.feedback)), FEEDBACK_QOS)

    def node_names(self) -> Sequence[str]:
        """See Backend."""
        namespace = self.graph.node.get_namespace()
        return [name for name, where in self.graph.node.get_node_names_and_namespaces() if where == namespace]

    async def frame(self, timeout: float) -> tuple[bytes, str]:
        """See Backend."""
        image = await self.graph.alatest(messages.interface('msg', 'sensor_msgs/CompressedImage'),
                                         'image_raw/compressed', timeout)
        return bytes(image.data), 'png' if 'png' in image.format else 'jpeg'

    def request_model(self, operation: Operation, omit: frozenset[str]) -> type[BaseModel]:
        """See Backend."""
        _operation, interface = self.resolve(operation.name)
        part = interface.Goal if operation.kind is Kind.ACTION else interface.Request
        place = Place.QUERY if operation.in_query else Place.BODY
        return _model(part, _title(operation, 'Request'), omit, place)

    def result_model(self, operation: Operation) -> type[BaseModel]:
        """See Backend."""
        _operation, interface = self.resolve(operation.name)
        if operation.kind is Kind.TOPIC:
            return _model(interface, interface.__name__, frozenset(), Place.RESULT)
        part = interface.Result if operation.kind is Kind.ACTION else interface.Response
        return _model(part, _title(operation, 'Result'), frozenset(messages.ERROR_FIELDS), Place.RESULT)


def _title(operation: Operation, part: str) -> str:
    return ''.join(word.title() for word in re.split(r'[._]', operation.name)) + part


@cache
def _model(kind: Any, title: str, omit: frozenset[str], place: Place) -> type[BaseModel]:
    """Fields of a message as a model; each has the message's own default."""
    example = kind()
    fields: dict[str, Any] = {
        name: (_type(field, place), ... if place is Place.RESULT else _default(field, getattr(example, name)))
        for name, field in kind.get_fields_and_field_types().items() if name not in omit}
    others = 'ignore' if place is Place.RESULT else 'forbid'
    return create_model(title, __config__=ConfigDict(extra=others, strict=False), **fields)


def _default(field: str, value: Any) -> Any:
    inner, count = messages.element(field)
    if count is not None:
        return Field(default_factory=list) if count < 0 else None
    return None if '/' in inner else value


def _type(field: str, place: Place) -> Any:
    inner, count = messages.element(field)
    if count is not None:
        entry = list[_type(inner, place)]  # type: ignore[misc]
        return entry if count < 0 else Annotated[entry, Field(min_length=count, max_length=count)]
    if inner == 'builtin_interfaces/Time':
        return Annotated[float, Field(ge=0, lt=2 ** 31, description='seconds since 1970')]
    if '/' in inner:
        part = messages.interface('msg', inner.replace('moe_interfaces/', ''))
        return _model(part, part.__name__ + ('' if place is Place.RESULT else 'Input'), frozenset(), place)
    if inner in ('float', 'double'):
        number = Annotated[float, Field(allow_inf_nan=False, le=1e38, ge=-1e38)]
        return number | None if place is Place.RESULT else number
    if limits := messages.integer_range(inner):
        return Annotated[int, Field(ge=limits[0], le=limits[1])]
    if inner == 'boolean':
        return StrictBool if place is Place.BODY else bool  # a query is text
    return str if place is Place.RESULT else Text
