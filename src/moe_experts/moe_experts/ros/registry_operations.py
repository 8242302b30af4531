"""Services for training jobs, outcomes and A/B tests, API keys and upkeep."""

from __future__ import annotations

import json
from typing import Any

from moe_experts.registry.errors import RegistryError
from moe_experts.ros import registry_conversions as convert
from moe_experts.ros.registry_access import UNKNOWN, Access, Services
from moe_interfaces.srv import (
    CreateApiKey,
    CreateTrainingJob,
    Feedback,
    GetAbTest,
    GetTrainingJob,
    ListApiKeys,
    ListTrainingJobs,
    MaintainRegistry,
    RecordOutcomes,
    RevokeApiKey,
    StartAbTest,
    StopAbTest,
    UpdateTrainingJob,
)


def _create_job(access: Access, request: Any, response: Any) -> None:
    response.job = convert.job_message(access.registry.jobs.create(request.job.expert,
                                                                   convert.job_detail(request.job)))


def _update_job(access: Access, request: Any, response: Any) -> None:
    job = access.spool.update_job(request.job.id, request.job.status, convert.job_detail(request.job))
    response.job = request.job if job is None else convert.job_message(job)


def _get_job(access: Access, request: Any, response: Any) -> None:
    jobs, _total = access.registry.jobs.page(job_id=request.id) if request.id else ([], 0)
    if not jobs:
        raise RegistryError(f'Training job with id={request.id} not found')
    response.job = convert.job_message(jobs[0])


def _list_jobs(access: Access, request: Any, response: Any) -> None:
    jobs, response.total = access.registry.jobs.page(request.expert, request.status, 0, request.offset, request.limit)
    response.jobs = [convert.job_message(job) for job in jobs]


def _record_outcomes(access: Access, request: Any, response: Any) -> None:
    response.written = access.spool.record_outcomes([convert.outcome_entity(one) for one in request.outcomes])


def _rate(access: Access, request: Any, _response: Any) -> None:
    access.spool.rate(request.request_id, request.score, request.comment)


def _start_ab_test(access: Access, request: Any, response: Any) -> None:
    response.test = convert.ab_test_message(access.registry.ab_tests.start(
        request.control, request.treatment, request.share, request.auto_decide, request.actor or UNKNOWN))


def _get_ab_test(access: Access, request: Any, response: Any) -> None:
    response.test = convert.ab_test_message(access.registry.ab_tests.get(request.id, request.control))


def _stop_ab_test(access: Access, request: Any, response: Any) -> None:
    response.test = convert.ab_test_message(access.registry.ab_tests.stop(request.id, request.actor or UNKNOWN,
                                                                          request.reason))


def _create_key(access: Access, request: Any, response: Any) -> None:
    response.key, response.id = access.registry.api_keys.create(request.name, list(request.scopes),
                                                                request.actor or UNKNOWN)


def _list_keys(access: Access, _request: Any, response: Any) -> None:
    keys = access.registry.api_keys.page()
    response.ids, response.names = [key.id for key in keys], [key.name for key in keys]
    response.scopes, response.revoked = [key.scopes for key in keys], [key.revoked for key in keys]


def _revoke_key(access: Access, request: Any, _response: Any) -> None:
    access.registry.api_keys.revoke(request.id, request.actor or UNKNOWN)


def _maintain(access: Access, request: Any, response: Any) -> None:
    response.report = json.dumps(access.registry.maintenance.run(request.operation).content)


SERVICES: Services = {
    'create_training_job': (CreateTrainingJob, _create_job), 'update_training_job': (UpdateTrainingJob, _update_job),
    'get_training_job': (GetTrainingJob, _get_job), 'list_training_jobs': (ListTrainingJobs, _list_jobs),
    'record_outcomes': (RecordOutcomes, _record_outcomes), 'feedback': (Feedback, _rate),
    'start_ab_test': (StartAbTest, _start_ab_test), 'get_ab_test': (GetAbTest, _get_ab_test),
    'stop_ab_test': (StopAbTest, _stop_ab_test), 'create_api_key': (CreateApiKey, _create_key),
    'list_api_keys': (ListApiKeys, _list_keys), 'revoke_api_key': (RevokeApiKey, _revoke_key),
    'maintain_registry': (MaintainRegistry, _maintain)}
