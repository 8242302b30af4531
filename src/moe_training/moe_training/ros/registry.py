"""What the training node asks of the registry: experts, jobs, versions and the router's samples."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from pathlib import Path
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile

from moe_interfaces.msg import Expert, ExpertVersion, Metric, Note, RouteSample, TrainingJob
from moe_interfaces.srv import (
    AddNotes,
    AddRouteSamples,
    CreateTrainingJob,
    GetExpert,
    GetVersion,
    ListTrainingJobs,
    RegisterVersion,
    UpdateTrainingJob,
)
from moe_training.errors import error_of

SERVICE_QOS = QoSProfile(depth=100)
TIMEOUT_S = 15.0
ANSWER_S = 2.0  # then a read is asked anew: the answer of a server that has just discovered the asker may be lost
READS = (GetExpert, GetVersion, ListTrainingJobs)
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
                ('get_expert', GetExpert), ('get_version', GetVersion),
                ('create_training_job', CreateTrainingJob),
                ('update_training_job', UpdateTrainingJob), ('list_training_jobs', ListTrainingJobs),
                ('register_version', RegisterVersion), ('add_route_samples', AddRouteSamples), ('add_notes', AddNotes))}

    def _call(self, interface: Any, request: Any) -> Any:
        client = self._clients[interface]
        if not client.wait_for_service(TIMEOUT_S):
            raise error_of(DATABASE_UNAVAILABLE, 'The registry does not answer; look at `moe status`.')
        patience_s = ANSWER_S if interface in READS else TIMEOUT_S
        for _ in range(round(TIMEOUT_S / patience_s)):
            done = threading.Event()
            future = client.call_async(request)
            future.add_done_callback(lambda _future, done=done: done.set())
            if done.wait(patience_s):
                response = future.result()
                if response.error_code:
                    raise error_of(response.error_code, response.error_msg)
                return response
            client.remove_pending_request(future)
        raise error_of(DATABASE_UNAVAILABLE, f'The registry did not answer within {TIMEOUT_S:.0f} s.')

    def expert(self, name: str) -> Expert:
        """Get an expert by name."""
        return self._call(GetExpert, GetExpert.Request(name=name)).expert

    def expert_to_train(self, name: str) -> tuple[Expert, str]:
        """An expert, and the size of its newest version where that is a model without weights yet; '' = it is not."""
        found = self._call(GetExpert, GetExpert.Request(name=name))
        newest = max(found.versions, key=lambda version: version.number, default=None)
        untrained = newest is not None and any(metric.name == 'needs_training' for metric in newest.metrics)
        return found.expert, str(newest.base) if untrained else ''

    def create_job(self, job: TrainingJob) -> TrainingJob:
        """Record a queued job."""
        return self._call(CreateTrainingJob, CreateTrainingJob.Request(job=job)).job

    def update_job(self, job: TrainingJob) -> TrainingJob:
        """Write progress or the end of a job; returns it as stored."""
        return self._call(UpdateTrainingJob, UpdateTrainingJob.Request(job=job)).job

    def unfinished_jobs(self) -> list[TrainingJob]:
        """Queued and running jobs of this host, oldest first."""
        found = [job for status in (TrainingJob.RUNNING, TrainingJob.QUEUED)
                 for job in self._call(ListTrainingJobs, ListTrainingJobs.Request(status=status, limit=1000)).jobs
                 if job.host == socket.gethostname()]
        return sorted(found, key=lambda job: job.id)

    def jobs_of(self, expert: str) -> list[TrainingJob]:
        """Jobs of an expert, newest first."""
        return list(self._call(ListTrainingJobs, ListTrainingJobs.Request(expert=expert, limit=1000)).jobs)

    def version(self, expert: str, number: int = 0) -> ExpertVersion:
        """Get a version by its number; 0 = the champion."""
        return self._call(GetVersion, GetVersion.Request(expert=expert, number=number)).version

    def register(self, expert: str, version: ExpertVersion, promote: bool, reason: str) -> ExpertVersion:
        """Register a version; with `promote` it is served from now on."""
        return self._call(RegisterVersion, RegisterVersion.Request(
            expert=expert, version=version, alias='champion' if promote else '', actor='training',
            reason=reason)).version

    def add_samples(self, expert: str, path: Path) -> int:
        """Teach the router the prompts of a job's samples.jsonl; returns how many were new."""
        written = 0
        with path.open(encoding='utf-8') as lines:
            while part := list(itertools.islice(lines, SAMPLES_A_CALL)):
                samples = [RouteSample(expert=expert, source='dataset', **json.loads(line)) for line in part]
                written += self._call(AddRouteSamples, AddRouteSamples.Request(samples=samples)).written
        return written

    def replace_notes(self, expert: str, source: str, path: Path) -> None:
        """Let an expert read the answers in a job's notes.jsonl instead of those that it had of this source."""
        notes = [Note(expert=expert, source=source, **json.loads(line))
                 for line in path.read_text(encoding='utf-8').splitlines()]
        self._call(AddNotes, AddNotes.Request(notes=notes, replace=True, actor='training'))


def metrics_of(values: dict[str, float]) -> list[Metric]:
    """Metrics of the interfaces."""
    return [Metric(name=name, value=float(value)) for name, value in values.items()]
