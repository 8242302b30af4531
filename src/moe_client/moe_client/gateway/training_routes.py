"""Training jobs that go on by themselves, their logs, and datasets that are sent here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, UploadFile
from starlette.responses import Response

from moe_client.errors import DatasetInvalid, InvalidRequest, Timeout
from moe_client.gateway.bodies import TrainBody
from moe_client.gateway.context import DAY_S, Context, need
from moe_client.gateway.envelope import Success, success
from moe_client.operations import OPERATIONS
from moe_client.training import POLL_S, START_TIMEOUT_S, ended
from moe_client.transport import Values

FILE_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.(jsonl|json|csv|parquet|txt|md)', re.ASCII)
PIECE = 1 << 20
JobId = Annotated[int, Path(ge=1, le=2 ** 31 - 1)]


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=['training'])
    job_result = context.backend.result_model(OPERATIONS['training.job'])
    running: set[asyncio.Task[None]] = set()

    @routes.post('/v1/training/jobs', status_code=202, response_model=Success[job_result],  # type: ignore[valid-type]
                 dependencies=[need('manage')])
    async def start(body: TrainBody) -> Response:
        """Begin a training job; it goes on without the caller."""
        values = body.values()
        values['expert'] = await context.expert_name(body.expert)
        return success(await _start(context, values, running), 202)

    @routes.post('/v1/training/jobs/{number}/stop', response_model=Success[job_result],  # type: ignore[valid-type]
                 dependencies=[need('manage')])
    async def stop(number: JobId) -> Response:
        """Cancel a training job; one that has ended stays as it is."""
        job = (await context.backend.acall('training.job', {'id': number}))['job']
        return success(await context.backend.acall('training.update', {'job': ended(job, 'cancelled')}))

    @routes.get('/v1/training/jobs/{number}/logs', response_model=Success[dict[str, Any]],
                dependencies=[need('inference')])
    async def logs(number: JobId, lines: Annotated[int, Query(ge=1, le=10_000)] = 200) -> Response:
        """The last lines of a job's log."""
        path = context.settings.home / 'logs' / f'training_{number}.log'
        try:
            text = path.read_text(errors='replace')
        except OSError:
            raise InvalidRequest(f'Training job {number} has no log; GET /v1/training/jobs lists the jobs.') from None
        return success({'lines': text.splitlines()[-lines:]})

    @routes.post('/v1/datasets/upload', status_code=201, response_model=Success[dict[str, Any]],
                 dependencies=[need('manage')], tags=['datasets'])
    async def upload(request: Request, file: UploadFile) -> Response:
        """Keep a dataset below MOE_HOME/datasets/uploads; its path is what training jobs are given."""
        name = file.filename or ''
        if not FILE_NAME.fullmatch(name):
            raise DatasetInvalid('The file has to be named like rows.jsonl: letters, digits, ".", "_" and "-", without '
                                 'folders, and ending in .jsonl, .json, .csv, .parquet, .txt or .md.')
        folder = context.settings.home / 'datasets' / 'uploads'
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / name
        part = folder / f'.{uuid.uuid4().hex}.part'
        size = 0
        try:
            with part.open('wb') as output:
                while piece := await file.read(PIECE):
                    size += len(piece)
                    await asyncio.to_thread(output.write, piece)
                output.flush()
                await asyncio.to_thread(os.fsync, output.fileno())
            if not size:
                raise DatasetInvalid(f'{name} is empty.')
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return success({'path': str(target), 'size_bytes': size}, 201)

    return routes


async def _start(context: Context, values: Values, running: set[asyncio.Task[None]]) -> Values:
    """Send the goal and wait until the registry knows its job; the goal is followed until its end."""
    backend, newest = context.backend, {'expert': values['expert'], 'limit': 1}
    known = [job['id'] for job in (await backend.acall('training.jobs', newest))['jobs']]

    async def follow() -> None:
        async with contextlib.aclosing(backend.astream('training.train', values, DAY_S)) as events:
            async for _event in events:
                continue

    task = asyncio.create_task(follow())
    running.add(task)
    task.add_done_callback(running.discard)
    give_up = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up:
        jobs = (await backend.acall('training.jobs', newest))['jobs']
        if jobs and jobs[0]['id'] not in known:
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            return {'job': jobs[0]}
        if task.done():
            task.result()  # raises why there is no job
            break
        await asyncio.sleep(POLL_S)
    raise Timeout(f'Request timed out: no training job was queued within {START_TIMEOUT_S:g} s.')
