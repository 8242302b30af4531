"""What the training node asks of the registry: experts, jobs, versions and the router's samples."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile

from moe_interfaces.msg import Expert, ExpertVersion, Metric, RouteSample, TrainingJob
from moe_interfaces.srv import (
    AddRouteSamples,
    CreateTrainingJob,
    GetExpert,
    ListTrainingJobs,
    RegisterVersion,
    UpdateTrainingJob,
)
from moe_training.dataset import Example
from moe_training.errors import error_of
from moe_training.job import Outcome

SERVICE_QOS = QoSProfile(depth=100)
TIMEOUT_S = 15.0
SAMPLES_A_CALL = 1000
DATABASE_UNAVAILABLE = 5000


class Registry:
    """The registry's services, called from threads that may wait.

    Every call raises TrainingError with the registry's code and sentence, or when nobody answers.
    """

    def __init__(self, node: Node) -> None:
        group = ReentrantCallbackGroup()
        self._clients = {
            interface: node.create_client(interface, f'registry/{name}', qos_profile=SERVICE_QOS, callback_group=group)
            for name, interface in (
                ('get_expert', GetExpert), ('create_training_job', CreateTrainingJob),
                ('update_training_job', UpdateTrainingJob), ('list_training_jobs', ListTrainingJobs),
                ('register_version', RegisterVersion), ('add_route_samples', AddRouteSamples))}

    def _call(self, interface: Any, request: Any) -> Any:
        client = self._clients[interface]
        if not client.wait_for_service(TIMEOUT_S):
            raise error_of(DATABASE_UNAVAILABLE, 'The registry does not answer; look at `moe status`.')
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _future: done.set())
        if not done.wait(TIMEOUT_S):
            raise error_of(DATABASE_UNAVAILABLE, f'The registry did not answer within {TIMEOUT_S:.0f} s.')
        response = future.result()
        if response.error_code:
            raise error_of(response.error_code, response.error_msg)
        return response

    def expert(self, name: str) -> Expert:
        """Get an expert by name."""
        return self._call(GetExpert, GetExpert.Request(name=name)).expert

    def create_job(self, job: TrainingJob) -> TrainingJob:
        """Record a queued job."""
        return self._call(CreateTrainingJob, CreateTrainingJob.Request(job=job)).job

    def update_job(self, job: TrainingJob) -> TrainingJob:
        """Write progress or the end of a job; returns it as stored."""
        return self._call(UpdateTrainingJob, UpdateTrainingJob.Request(job=job)).job

    def fail_lost_jobs(self) -> list[int]:
        """Mark the unfinished jobs of this host whose process is gone as failed; returns their ids."""
        lost = []
        for status in (TrainingJob.RUNNING, TrainingJob.QUEUED):
            for job in self._call(ListTrainingJobs, ListTrainingJobs.Request(status=status, limit=1000)).jobs:
                if job.host == socket.gethostname() and not (job.pid and os.path.exists(f'/proc/{job.pid}')):
                    job.status, job.error_msg = TrainingJob.FAILED, 'The training node ended before the job did.'
                    self.update_job(job)
                    lost.append(job.id)
        return lost

    def register(self, expert: str, outcome: Outcome, job_id: int, parent: int, promote: bool) -> ExpertVersion:
        """Register what a job made; with `promote` it is served from now on."""
        version = ExpertVersion(
            artifact_path=outcome.artifact_path, kind=ExpertVersion.ADAPTER, base=outcome.base,
            base_path=outcome.base_path, base_sha256=outcome.base_sha256, sha256=outcome.sha256, job_id=job_id,
            dataset_digest=outcome.dataset_digest, parent_version=parent,
            metrics=[Metric(name=name, value=float(value)) for name, value in outcome.metrics.items()])
        return self._call(RegisterVersion, RegisterVersion.Request(
            expert=expert, version=version, alias='champion' if promote else '', actor='training',
            reason=f'training job {job_id}')).version

    def add_samples(self, expert: str, examples: Iterable[Example]) -> int:
        """Teach the router the prompts of a dataset; returns how many were new."""
        samples = [RouteSample(expert=expert, intent=example.intent, text=example.prompt, source='dataset')
                   for example in examples]
        return sum(self._call(AddRouteSamples, AddRouteSamples.Request(
            samples=samples[start:start + SAMPLES_A_CALL])).written for start in range(0, len(samples), SAMPLES_A_CALL))
