"""A route for every operation of moe_client.operations, with the fields of its ROS interface."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from moe_client.gateway.bodies import MoveBody
from moe_client.gateway.context import DAY_S, Context, event_stream, need, opened, while_connected
from moe_client.gateway.envelope import Success, finite, success
from moe_client.operations import OPERATIONS, Kind, Operation
from moe_client.transport import Values

OTHERWISE = ('inference.generate', 'inference.chat')  # have routes of their own
IN_PATH = re.compile(r'\{(\w+)\}')
PATH_TYPES: dict[str, Any] = {
    'id': Annotated[int, Path(ge=0, le=2 ** 31 - 1)],
    'number': Annotated[int, Path(ge=0, le=2 ** 31 - 1, description='0 = the active one')],
    'expert': Annotated[str, Path(pattern=r'^[\w-]{1,64}$', description='id or name')],
    'id_or_name': Annotated[str, Path(pattern=r'^[\w-]{1,64}$')]}
BODIES: dict[str, type[BaseModel]] = {'hardware.move': MoveBody}


def router(context: Context) -> APIRouter:
    """All of them."""
    routes = APIRouter()
    for operation in OPERATIONS.values():
        if operation.name in OTHERWISE:
            continue
        routes.add_api_route(
            operation.path, _endpoint(context, operation), methods=[operation.method],
            tags=[operation.name.split('.')[0]], operation_id=operation.name,
            summary=f'{operation.interface} of the {operation.node} node',
            dependencies=[need(operation.scope)],
            response_model=Success[context.backend.result_model(operation)])  # type: ignore[misc]
    return routes


def _endpoint(context: Context, operation: Operation) -> Callable[..., Any]:
    in_path = IN_PATH.findall(operation.path)

    async def endpoint(request: Request, **given: Any) -> Response:
        fields = given.pop('fields', None)
        values: Values = {**(fields.model_dump(exclude_unset=True) if fields is not None else {}), **given}
        if 'expert' in given:
            values['expert'] = await context.expert_name(given['expert'])
        if operation.kind is Kind.ACTION and 'text/event-stream' in request.headers.get('accept', ''):
            return event_stream(await opened(context.backend.astream(operation.name, values, DAY_S)))
        return success(finite(await while_connected(request, context.backend.acall(operation.name, values))))

    parameters = [inspect.Parameter('request', inspect.Parameter.KEYWORD_ONLY, annotation=Request)]
    parameters += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=PATH_TYPES[name])
                   for name in in_path]
    if operation.kind is not Kind.TOPIC:
        omit = frozenset(in_path) | ({'id', 'name'} if 'id_or_name' in in_path else frozenset())
        model = BODIES.get(operation.name) or context.backend.request_model(operation, omit)
        where = Query() if operation.in_query else Body()
        if model.model_fields:
            parameters.append(inspect.Parameter('fields', inspect.Parameter.KEYWORD_ONLY,
                                                annotation=Annotated[model, where]))
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return endpoint
