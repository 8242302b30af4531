"""registry_node: the registry's services and its latched events. The only node that opens the database."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from moe_experts.registry.catalogue import seed
from moe_experts.registry.database import Database
from moe_experts.registry.entities import Version
from moe_experts.registry.errors import DatabaseUnavailable, RegistryError
from moe_experts.registry.store import Store
from moe_experts.ros import registry_conversions as convert
from moe_experts.ros.spinning import spin
from moe_interfaces.msg import RegistryEvent
from moe_interfaces.srv import (
    AddRouteSamples,
    CreateExpert,
    CreateTrainingJob,
    GetExpert,
    GetTrainingJob,
    GetVersion,
    ListEvents,
    ListExperts,
    ListRouteSamples,
    ListTrainingJobs,
    ListVersions,
    RegisterVersion,
    Rollback,
    SetAlias,
    UpdateTrainingJob,
)

EVENTS_QOS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE,
                        durability=DurabilityPolicy.TRANSIENT_LOCAL)
SERVICE_QOS = QoSProfile(depth=100)  # rcl's default of 10 loses calls that arrive together
EVENT_POLL_S = 0.05
RETRY_LIMIT_S = 10.0
THREADS = 4


class RegistryNode(Node):  # type: ignore[misc]
    """Serves registry/*; stays up, and says why, while the database is away."""

    def __init__(self) -> None:
        super().__init__('registry')
        self.declare_parameter('catalogue', '', ParameterDescriptor(
            description='experts.yaml with the built-in experts; "" = none', read_only=True))
        self.declare_parameter('database.timeout', 30.0, ParameterDescriptor(
            description='connect and statement timeout [s]', read_only=True,
            floating_point_range=[FloatingPointRange(from_value=1.0, to_value=600.0, step=0.0)]))
        self._home = Path(os.environ.get('MOE_HOME') or '~/.local/share/moe').expanduser().absolute()
        self._store: Store | None = None
        self._database: Database | None = None
        self._unavailable = 'The registry is still starting.'
        self._stop = threading.Event()
        self._events = self.create_publisher(RegistryEvent, 'registry/events', EVENTS_QOS)
        self._serve()
        self._thread = threading.Thread(target=self._keep_open, name='database')
        self._thread.start()

    def close(self) -> None:
        """Stop the event thread and the embedded server."""
        self._stop.set()
        self._thread.join()
        if self._database is not None:
            self._database.close()

    def _keep_open(self) -> None:
        """Open the database, with back-off; then publish every event as it is committed."""
        delay = 0.5
        while not self._stop.is_set():
            try:
                self._database = Database(self._home, os.environ.get('MOE_DATABASE_URL', ''),
                                          self.get_parameter('database.timeout').value)
                store = Store(self._database, self._home / 'artifacts')
                self._store = store
                if catalogue := self.get_parameter('catalogue').value:
                    seed(store, Path(catalogue), self._home, self.get_logger().warning)
                self.get_logger().info('The registry is ready.')
                break
            except RegistryError as error:
                self._unavailable = str(error)
                self.get_logger().error(f'{error} Trying again in {delay:.0f} s.')
                if not isinstance(error, DatabaseUnavailable):
                    break
            self._stop.wait(delay)
            delay = min(RETRY_LIMIT_S, 2 * delay)
        last = 0
        while not self._stop.wait(EVENT_POLL_S) and self._store is not None:
            try:
                events, _newest = self._store.events(last)
            except DatabaseUnavailable as error:
                self.get_logger().error(str(error), throttle_duration_sec=5.0)
                continue
            for event in events:
                self._events.publish(convert.event_message(event))
                last = event.sequence

    def _serve(self) -> None:
        # Each call is one short transaction on a pooled connection, so any number may run at once.
        group = ReentrantCallbackGroup()
        services: dict[str, tuple[Any, Callable[[Store, Any, Any], None]]] = {
            'create_expert': (CreateExpert, self._create), 'get_expert': (GetExpert, self._get),
            'list_experts': (ListExperts, self._list), 'register_version': (RegisterVersion, self._register),
            'get_version': (GetVersion, self._get_version), 'list_versions': (ListVersions, self._list_versions),
            'set_alias': (SetAlias, self._set_alias), 'rollback': (Rollback, self._rollback),
            'list_events': (ListEvents, self._list_events),
            'add_route_samples': (AddRouteSamples, self._add_samples),
            'list_route_samples': (ListRouteSamples, self._list_samples),
            'create_training_job': (CreateTrainingJob, self._create_job),
            'update_training_job': (UpdateTrainingJob, self._update_job),
            'get_training_job': (GetTrainingJob, self._get_job),
            'list_training_jobs': (ListTrainingJobs, self._list_jobs)}
        for name, (interface, handle) in services.items():
            self.create_service(interface, f'registry/{name}', self._answer(handle), qos_profile=SERVICE_QOS,
                                callback_group=group)

    def _answer(self, handle: Callable[[Store, Any, Any], None]) -> Callable[[Any, Any], Any]:
        """Wrap a handler: errors become code and sentence, nothing is raised into rclpy."""
        def respond(request: Any, response: Any) -> Any:
            try:
                if self._store is None:
                    raise DatabaseUnavailable(self._unavailable)
                handle(self._store, request, response)
            except RegistryError as error:
                response.error_code, response.error_msg = error.code, str(error)
            return response
        return respond

    def _create(self, store: Store, request: Any, response: Any) -> None:
        actor = request.actor or 'unknown'
        entity = store.create(convert.definition(request.expert), actor, request.reason)
        if request.artifact_path:
            store.register(entity.name, Version(request.artifact_path), 'champion', actor)
            entity, _versions = store.get(entity.id)
        response.expert = convert.expert_message(entity)

    def _get(self, store: Store, request: Any, response: Any) -> None:
        entity, versions = store.get(request.id, request.name)
        response.expert = convert.expert_message(entity)
        response.versions = [convert.version_message(version) for version in versions]

    def _list(self, store: Store, request: Any, response: Any) -> None:
        page, response.total = store.list_experts(
            request.domain, request.category, request.status, request.sort or 'name', request.offset, request.limit)
        response.experts = [convert.expert_message(entity) for entity in page]

    def _register(self, store: Store, request: Any, response: Any) -> None:
        version = store.register(request.expert, convert.version_entity(request.version), request.alias,
                                 request.actor or 'unknown', request.reason)
        response.version = convert.version_message(version)

    def _get_version(self, store: Store, request: Any, response: Any) -> None:
        version, expert = store.version(request.expert, request.number, request.alias or 'champion')
        response.version, response.expert = convert.version_message(version), convert.expert_message(expert)

    def _list_versions(self, store: Store, request: Any, response: Any) -> None:
        response.versions = [convert.version_message(version) for version in store.get(name=request.expert)[1]]

    def _set_alias(self, store: Store, request: Any, response: Any) -> None:
        entity, response.previous_version = store.set_alias(
            request.expert, request.alias, request.version, request.expected_version, request.actor or 'unknown',
            request.reason)
        response.expert = convert.expert_message(entity)

    def _rollback(self, store: Store, request: Any, response: Any) -> None:
        entity, response.version, response.previous_version = store.rollback(
            request.expert, request.actor or 'unknown', request.reason)
        response.expert = convert.expert_message(entity)

    def _list_events(self, store: Store, request: Any, response: Any) -> None:
        events, response.last_sequence = store.events(request.after_sequence, request.expert, request.limit or 100)
        response.events = [convert.event_message(event) for event in events]

    def _add_samples(self, store: Store, request: Any, response: Any) -> None:
        response.written = store.add_samples(map(convert.sample_entity, request.samples), 'unknown')

    def _list_samples(self, store: Store, request: Any, response: Any) -> None:
        page, response.total, response.digest = store.samples(request.expert, request.offset, request.limit or 10000)
        response.samples = [convert.sample_message(sample) for sample in page]

    def _create_job(self, store: Store, request: Any, response: Any) -> None:
        response.job = convert.job_message(store.create_job(request.job.expert, convert.job_detail(request.job)))

    def _update_job(self, store: Store, request: Any, response: Any) -> None:
        job = store.update_job(request.job.id, request.job.status, convert.job_detail(request.job))
        response.job = convert.job_message(job)

    def _get_job(self, store: Store, request: Any, response: Any) -> None:
        jobs, _total = store.jobs(job_id=request.id)
        if not jobs:
            raise RegistryError(f'Training job with id={request.id} not found')
        response.job = convert.job_message(jobs[0])

    def _list_jobs(self, store: Store, request: Any, response: Any) -> None:
        jobs, response.total = store.jobs(request.expert, request.status, 0, request.offset, request.limit or 100)
        response.jobs = [convert.job_message(job) for job in jobs]


def main() -> None:
    """Run the node."""
    spin(RegistryNode, THREADS)
