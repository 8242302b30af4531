"""expert_node: serves the champion versions of the registry's experts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node

from moe_experts.engines.engine import EngineError, EngineSettings
from moe_experts.pool import FOREVER, Loaded, Pool
from moe_experts.ros.answers import Answers
from moe_experts.ros.champions import SERVICE_QOS, Champions
from moe_experts.ros.diagnostics import diagnose
from moe_experts.ros.model_services import ModelServices, answering
from moe_experts.ros.spinning import spin
from moe_interfaces.msg import Expert, ExpertStatus, ExpertVersion, ServingStatus
from moe_interfaces.srv import LoadExpert, UnloadExpert

FALLBACK = 'general'
# A goal holds a thread while its worker answers, and they are made as they are needed: what an engine
# runs and queues, and some for services and the registry's replies.
THREADS = 96


class ExpertNode(Node):  # type: ignore[misc]
    """Serves experts/*."""

    def __init__(self) -> None:
        super().__init__('experts')
        self._declare()
        threads = self.get_parameter('threads').value or os.cpu_count() or 1
        self._settings = EngineSettings(threads=threads, use_kv_cache=self.get_parameter('use_kv_cache').value)
        self._pool = Pool(self.get_parameter('cache_size').value, self._settings, self.get_logger().error)
        self._bases: dict[str, Path] = {}
        self._champions = Champions(self, self._pool)
        self._rate = (time.monotonic(), 0, 0.0)
        # Goals block a thread each while their worker answers; what is published must not wait for them.
        goals, timers = ReentrantCallbackGroup(), MutuallyExclusiveCallbackGroup()
        self._answers = Answers(self, self._pool, self._loaded, goals)
        self._model_services = ModelServices(self, self._pool, self._champions, self._loaded_or_fallback, goals)
        for name, interface, handle in (('load_expert', LoadExpert, self._load),
                                        ('unload_expert', UnloadExpert, self._unload)):
            self.create_service(interface, f'experts/{name}', answering(handle), qos_profile=SERVICE_QOS,
                                callback_group=goals)
        self._status = self.create_publisher(ServingStatus, 'experts/status', 10)
        self.create_timer(1.0, self._tick, callback_group=timers)
        self._diagnostics = diagnose(self, 'serving', self._diagnose, timers)
        self.get_logger().info(f'Serving with {threads} threads.')

    def _declare(self) -> None:
        self.declare_parameter('cache_size', 3, ParameterDescriptor(
            description='adapters loaded at once; the least recently used idle one goes first', read_only=True,
            integer_range=[IntegerRange(from_value=1, to_value=1000, step=1)]))
        self.declare_parameter('threads', 0, ParameterDescriptor(
            description='threads that decode at most, fewer while others use the cores; 0 = one per core',
            read_only=True,
            integer_range=[IntegerRange(from_value=0, to_value=256, step=1)]))
        self.declare_parameter('use_kv_cache', True, ParameterDescriptor(
            description='begin prompts with what earlier ones left in the KV cache', read_only=True))
        self.declare_parameter('replica', 0, ParameterDescriptor(
            description='number of this node among those that serve the same experts', read_only=True))

    def close(self) -> None:
        """End the workers; the goals that they answered are told."""
        self._pool.close()
        self._answers.close()

    def _loaded(self, name: str, number: int = 0) -> tuple[Loaded, Expert]:
        """The loaded expert, counted as running. Raises EngineError."""
        version, expert = self._champions.find(name, number)
        if expert.status == Expert.DISABLED:
            raise EngineError(f'Expert {expert.name} is disabled.', 1001)
        adapter = Path(version.artifact_path) if version.kind == ExpertVersion.ADAPTER else None
        return self._pool.get(expert.name, version.number, self._base(version), adapter, version.lora_scale), expert

    def _base(self, version: ExpertVersion) -> Path:
        """Path of the model behind a version; files with one digest are one base, loaded once."""
        adapter = version.kind == ExpertVersion.ADAPTER
        path = Path(version.base_path if adapter else version.artifact_path).resolve()
        digest = (version.base_sha256 if adapter else version.sha256) or str(path)
        if not self._bases.get(digest, path).is_file():
            self._bases.pop(digest, None)
        return self._bases.setdefault(digest, path)

    def _loaded_or_fallback(self, name: str) -> tuple[Loaded, Expert]:
        return self._loaded(name or FALLBACK)

    def _load(self, request: Any, response: Any) -> None:
        begin = time.monotonic()
        known = {(one.expert, one.version) for one in self._pool.loaded()}
        loaded, _expert = self._loaded(request.expert, request.version)
        self._pool.give_back(loaded)
        if request.pin:
            self._pool.keep(loaded, FOREVER)
        response.load_s = 0.0 if (loaded.expert, loaded.version) in known else time.monotonic() - begin
        response.status = self._state(loaded)
        self._publish_status()

    def _unload(self, request: Any, response: Any) -> None:
        self._champions.find(request.expert)
        response.freed_bytes = self._pool.unload(request.expert, force=request.force) + self._pool.close_idle_workers()
        self._publish_status()

    @staticmethod
    def _state(loaded: Loaded) -> ExpertStatus:
        state = ExpertStatus.LOADING
        if loaded.ready.done():
            state = ExpertStatus.BUSY if loaded.running else ExpertStatus.READY
        return ExpertStatus(expert=loaded.expert, version=loaded.version, memory_bytes=loaded.bytes,
                            running=loaded.running, pinned=loaded.pinned, state=state)

    def _tick(self) -> None:
        self._pool.expire()
        now, (then, before, _rate) = time.monotonic(), self._rate
        pieces = sum(worker.pieces for worker in self._pool.workers())
        # a worker that ended takes its count with it
        self._rate = (now, pieces, max(0, pieces - before) / max(1e-3, now - then))
        self._publish_status()

    def _publish_status(self) -> None:
        workers, loaded = self._pool.workers(), self._pool.loaded()
        self._status.publish(ServingStatus(
            stamp=self.get_clock().now().to_msg(), node=self.get_fully_qualified_name(),
            replica=self.get_parameter('replica').value, experts=[self._state(one) for one in loaded],
            running=sum(worker.running for worker in workers), queue_depth=sum(worker.waiting for worker in workers),
            queue_limit=self._settings.queue_limit, tokens_per_second=self._rate[2],
            memory_bytes=sum(worker.resident_bytes() for worker in workers),
            worker_pids=[worker.pid for worker in workers], evictions=self._pool.evictions,
            worker_restarts=sum(worker.restarts for worker in workers)))

    def _diagnose(self) -> tuple[bytes, str, dict[str, str]]:
        workers = self._pool.workers()
        restarts = sum(worker.restarts for worker in workers)
        level, sentence = DiagnosticStatus.OK, 'Serving.'
        if any(worker.failed for worker in workers):
            level, sentence = DiagnosticStatus.ERROR, 'A worker cannot be started; the log says why.'
        elif restarts:
            level, sentence = DiagnosticStatus.WARN, f'Workers had to be started again {restarts} times.'
        return level, sentence, {
            'experts': ' '.join(f'{one.expert}@{one.version}' for one in self._pool.loaded()),
            'running': str(sum(worker.running for worker in workers)),
            'waiting': str(sum(worker.waiting for worker in workers)), 'restarts': str(restarts),
            'evictions': str(self._pool.evictions), 'tokens_per_second': f'{self._rate[2]:.1f}'}


def main() -> None:
    """Run the node."""
    spin(ExpertNode, THREADS)
