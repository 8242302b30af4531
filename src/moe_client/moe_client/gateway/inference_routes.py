"""/v1/inference/generate, as a whole, streamed and in batches."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from moe_client.errors import MoeError
from moe_client.gateway.bodies import BatchBody, GenerateBody
from moe_client.gateway.context import Context, event_stream, need, opened, while_connected
from moe_client.gateway.envelope import Success, finite, problem, success
from moe_client.operations import OPERATIONS
from moe_client.transport import Values

OPERATION = 'inference.generate'


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=['inference'], dependencies=[need('inference')])
    result = context.backend.result_model(OPERATIONS[OPERATION])

    async def values_of(request: Request, body: GenerateBody) -> Values:
        context.check_prompt(body.prompt + body.system_prompt)
        values = {'request_id': request.state.request_id, **body.values()}
        if body.expert:
            values['expert'] = await context.expert_name(body.expert)
        return values

    @routes.post('/v1/inference/generate', response_model=Success[result])  # type: ignore[valid-type]
    async def generate(request: Request, body: GenerateBody) -> Response:
        """Answer a prompt; with "Accept: text/event-stream" as a stream."""
        if 'text/event-stream' in request.headers.get('accept', ''):
            return await stream(request, body)
        values = await values_of(request, body)
        return success(finite(await while_connected(request, context.answer(OPERATION, values, body.timeout))))

    @routes.post('/v1/inference/generate/stream', response_class=Response, responses={200: {
        'content': {'text/event-stream': {}}, 'description': 'events "progress", then "result" or "error"'}})
    async def stream(request: Request, body: GenerateBody) -> Response:
        """Answer a prompt, token by token; a client that goes away cancels the generation."""
        values = await values_of(request, body)
        return event_stream(await opened(context.generation(OPERATION, values, body.timeout)))

    @routes.post('/v1/inference/generate/batch', response_model=Success[list[dict[str, Any]]])
    async def batch(request: Request, body: BatchBody) -> Response:
        """Answer several prompts side by side; each has its own success, data and error."""
        async def one(index: int, entry: GenerateBody) -> dict[str, Any]:
            try:
                values = await values_of(request, entry)
                values['request_id'] = entry.request_id or f'{request.state.request_id}-{index}'
                data = await context.answer(OPERATION, values, entry.timeout)
            except MoeError as error:
                return {'success': False, 'data': None, 'error': problem(error)}
            return {'success': True, 'data': finite(data), 'error': None}
        return success(await while_connected(request, asyncio.gather(
            *(one(index, entry) for index, entry in enumerate(body.requests)))))

    return routes
