"""The FastAPI application: every route, the dashboard, and how what goes wrong is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from moe_client.errors import MoeError
from moe_client.gateway import inference_routes, live, openai_routes, operation_routes, robot_routes, training_routes
from moe_client.gateway.backend import Backend
from moe_client.gateway.context import Context
from moe_client.gateway.envelope import (
    FAILURES,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    Failure,
    failure,
    failure_of,
    now,
    plain_json,
)
from moe_client.gateway.guard import Guard
from moe_client.gateway.keys import KeyRing
from moe_client.gateway.limits import RateLimiter
from moe_client.gateway.live import Channels
from moe_client.gateway.metrics import Metrics
from moe_client.gateway.observations import Observations
from moe_client.gateway.settings import Settings

DASHBOARD = Path(__file__).parents[1] / 'dashboard'
CODES = {401: 6000, 403: 6001, 429: 6002}
HEALTH_PERIOD_S = 0.5
DESCRIPTION = '''Domain-specific mixture of experts: OpenAI's API under /v1/chat/completions, /v1/completions,
/v1/embeddings and /v1/models; everything else answers {"success", "data", "error": {code, message, details},
"timestamp"}. Actions (train, quantize, ...) stream their progress to callers that accept text/event-stream.'''
log = logging.getLogger('moe.gateway')


class Health:
    """The suite's health as bytes, made anew now and then; asking for it costs next to nothing."""

    def __init__(self, observations: Observations) -> None:
        self._observations = observations
        self.status, self.body = 503, b''

    def look(self) -> None:
        """Make it anew."""
        health = self._observations.health()
        self.status = 503 if health['status'] == 'down' else 200
        error = {'code': 5000, 'message': f'These nodes are away: {", ".join(health["down"])}.', 'details': {}}
        self.body = plain_json({'success': self.status == 200, 'data': health,
                                'error': None if self.status == 200 else error, 'timestamp': now()})

    async def keep(self) -> None:
        """Look for as long as the gateway runs."""
        while True:
            self.look()
            await asyncio.sleep(HEALTH_PERIOD_S)


def application(settings: Settings, backend: Backend, metrics: Metrics) -> ASGIApp:
    """Make the application; `backend` is closed by whoever made it."""
    channels = Channels()
    keys = KeyRing(settings.home / 'run' / 'api_keys.json', settings.needs_key)
    shared = settings.home / 'run' / 'gateway_limits.sqlite' if settings.workers > 1 else None
    limiter = RateLimiter(settings.rate_limit, shared)
    observations = Observations(backend, channels.tell)
    health = Health(observations)
    context = Context(settings, backend, observations, channels, metrics, keys)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None, None]:
        channels.open()
        watching = asyncio.create_task(health.keep())
        yield
        watching.cancel()
        observations.close()
        limiter.close()

    app = FastAPI(title='moe gateway', version='1', description=DESCRIPTION, lifespan=lifespan, docs_url=None,
                  redoc_url=None,
                  responses={status: {'model': Failure, 'description': text} for status, text in FAILURES.items()})

    @app.get('/', include_in_schema=False)
    async def dashboard() -> Response:
        return FileResponse(DASHBOARD / 'index.html')

    @app.get('/docs', include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(DASHBOARD / 'docs.html')

    @app.get('/health', tags=['health'], response_model=dict[str, Any], responses={503: {'model': dict[str, Any]}})
    async def get_health() -> Response:
        """The suite's health and each component's; 503 where nothing can be answered."""
        return Response(health.body, health.status, media_type='application/json')

    @app.websocket('/ws')
    async def websocket(socket: WebSocket) -> None:
        await live.serve(socket, context)

    app.mount('/static', StaticFiles(directory=DASHBOARD), name='static')
    for module in (openai_routes, inference_routes, training_routes, robot_routes, operation_routes):
        app.include_router(module.router(context))
    _tell_errors(app)
    return Guard(app, settings, keys, limiter, metrics)


def _tell_errors(app: FastAPI) -> None:
    @app.exception_handler(MoeError)
    async def on_moe_error(request: Request, error: MoeError) -> Response:
        return failure_of(request.url.path, error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        problems = [{'field': '.'.join(str(part) for part in row['loc'] if part not in ('body', 'query', 'path')),
                     'message': row['msg']} for row in error.errors()]
        status = 400 if any(row['type'] == 'json_invalid' for row in error.errors()) else 422
        first = problems[0]
        where = f'{first["field"]}: ' if first['field'] else ''
        return failure(request.url.path, INVALID_REQUEST, f'{where}{first["message"]}.', status,
                       {'problems': problems[:20], 'field': first['field']})

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        return failure(request.url.path, CODES.get(error.status_code, INVALID_REQUEST), f'{error.detail}',
                       error.status_code, headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def on_fault(request: Request, error: Exception) -> Response:
        log.error('%s %s failed: %s', request.method, request.url.path, type(error).__name__, exc_info=error)
        return failure(request.url.path, INTERNAL_ERROR,
                       'The gateway failed at this request; its log has the cause under the request\'s id.', 500)


