"""All sensors in one answer, and the camera's image."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from moe_client.errors import MoeError
from moe_client.gateway.context import Context, need
from moe_client.gateway.envelope import Success, finite, problem, success

SENSORS = {'joints': 'hardware.joints', 'servos': 'hardware.servos', 'imu': 'hardware.imu'}
SENSOR_TIMEOUT_S = 2.0


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=['hardware'], dependencies=[need('hardware')])

    @routes.get('/v1/hardware/sensors', response_model=Success[dict[str, Any]])
    async def sensors() -> Response:
        """The newest message of joints, servos and IMU; a silent one has an "error" instead."""
        async def read(operation: str) -> Any:
            try:
                return finite(await context.backend.acall(operation, {}, SENSOR_TIMEOUT_S))
            except MoeError as error:
                return {'error': problem(error)}
        values = await asyncio.gather(*(read(operation) for operation in SENSORS.values()))
        return success(dict(zip(SENSORS, values)))

    @routes.get('/v1/hardware/camera', response_class=Response,
                responses={200: {'content': {'image/jpeg': {}, 'image/png': {}}, 'description': 'the newest image'}})
    async def camera() -> Response:
        """The camera's next image."""
        data, form = await context.backend.frame(SENSOR_TIMEOUT_S)
        return Response(data, media_type=f'image/{form}', headers={'Cache-Control': 'no-store'})

    return routes
