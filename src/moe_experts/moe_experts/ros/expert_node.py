"""expert_node: serves the champion versions of the registry's experts.

Its endpoints stand under the node's own name: `experts/generate_response` as the suite starts it, and
`llama/generate_response` where it is started as `llama`. Replicas differ in their names.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from moe_experts.engines.engine import EngineError
from moe_experts.pool import FOREVER, Loaded, Pool
from moe_experts.response_cache import ResponseCache
from moe_experts.ros.action_client import SERVICE_QOS
from moe_experts.ros.answers import Answers
from moe_experts.ros.benchmark import Benchmark
from moe_experts.ros.champions import Champions, Version
from moe_experts.ros.model_services import ModelServices, answering
from moe_experts.ros.parameters import declare, engine_settings, limits, value
from moe_experts.ros.quick_endpoints import QuickEndpoints
from moe_experts.ros.spinning import spin
from moe_experts.ros.status import Status, expert_status
from moe_experts.weights import Weights
from moe_interfaces.msg import Expert, ExpertVersion
from moe_interfaces.srv import LoadExpert, UnloadExpert

FALLBACK = 'general'
PRELOAD_RETRY_S = 2.0
# A goal holds a thread while its worker answers, and they are made as they are needed: what an engine runs and queues.
# Services and benchmarks wait in threads, too, and the registry's replies to them need some that are free.
MOST_GOALS = THREADS = 120


class ExpertNode(Node):  # type: ignore[misc]
    """Serves generation, tokens, scores and embeddings under its own name."""

    def __init__(self) -> None:
        super().__init__('experts', enable_logger_service=True)
        declare(self)
        settings = engine_settings(self)
        self._cache = ResponseCache(
            value(self, 'inference.cache_size') if value(self, 'inference.cache_enabled') else 0)
        self._pool = Pool(value(self, 'experts.cache_size'), settings, self.get_logger().error,
                          value(self, 'experts.memory_budget_mb') * 1_000_000, limits(self), self._changed)
        self._bases: dict[str, Path] = {}
        self._stopped = threading.Event()
        self._status: Status | None = None
        prefix, goals = self.get_name(), ReentrantCallbackGroup()
        self._champions = Champions(self, self._pool.loaded, self._load_champion, self._drop_others)
        keep_alive = value(self, 'experts.keep_alive')
        self._actions = QuickEndpoints(self, 'actions', MOST_GOALS)
        self._answers = Answers(self, prefix, self._pool, self._cache, self._loaded,
                                None if keep_alive < 0 else keep_alive, self._changed, self._actions)
        self._model_services = ModelServices(self, prefix, self._pool, self._cache, self._champions,
                                             self._loaded_or_fallback, goals)
        self._benchmark = Benchmark(self, prefix, self._pool, self._loaded, goals)
        for name, interface, handle in (('load_expert', LoadExpert, self._load),
                                        ('unload_expert', UnloadExpert, self._unload)):
            self.create_service(interface, f'{prefix}/{name}', answering(handle), qos_profile=SERVICE_QOS,
                                callback_group=goals)
        self._status = Status(self, prefix, self._pool, self._cache, self._answers, settings.queue_limit)
        self._actions.start()
        threading.Thread(target=self._preload, daemon=True, name='preload').start()
        self.get_logger().info(f'Serving with {settings.threads} threads.')

    def close(self) -> None:
        """Let running answers finish or cancel them, then end the workers."""
        self._stopped.set()
        self._answers.drain(value(self, 'shutdown_grace_s'))
        self._champions.close()
        self._actions.close()
        self._pool.close()

    def _changed(self) -> None:
        if self._status is not None and not self._stopped.is_set():
            self._status.publish()

    def _preload(self) -> None:
        """Load and pin what must never be waited for, as soon as the registry knows it."""
        for name in filter(None, value(self, 'experts.preload')):
            said = ''
            while not self._stopped.is_set():
                try:
                    loaded, _expert = self._loaded(name)
                    self._pool.keep(loaded, FOREVER)
                    self._pool.give_back(loaded)
                    break
                except EngineError as error:
                    if str(error) != said:
                        said = str(error)
                        self.get_logger().warning(f'{name} is not preloaded yet: {error}')
                    self._stopped.wait(PRELOAD_RETRY_S)

    def _loaded(self, name: str, number: int = 0) -> tuple[Loaded, Expert]:
        """The loaded expert, counted as running. Raises EngineError."""
        version, expert = self._champions.find(name, number)
        if expert.status == Expert.DISABLED:
            raise EngineError(f'Expert {expert.name} is disabled.', 1001)
        loaded = self._pool.get(expert.name, version.number, self._weights(version))
        if not number and self._is_superseded(loaded):
            self._pool.keep(loaded, 0.0)
        return loaded, expert

    def _is_superseded(self, loaded: Loaded) -> bool:
        """Whether another version became champion while this one was found and loaded."""
        try:
            return self._champions.find(loaded.expert)[0].number != loaded.version
        except EngineError:  # the registry is away: what was found is what there is
            return False

    def _weights(self, version: ExpertVersion) -> Weights:
        """The files of a version; bases with one digest are one base, loaded once."""
        adapter = version.kind == ExpertVersion.ADAPTER
        path = Path(version.base_path if adapter else version.artifact_path).resolve()
        digest = version.base_sha256 if adapter else version.sha256
        key = digest or str(path)
        if not self._bases.get(key, path).exists():
            self._bases.pop(key, None)
        base = self._bases.setdefault(key, path)
        if not adapter:
            return Weights(base, digest)
        return Weights(base, digest, Path(version.artifact_path), version.sha256, version.lora_scale)

    def _load_champion(self, new: Version) -> None:
        version, expert = new
        older = self._pool.loaded(expert.name)
        if not older:
            return
        loaded = self._pool.get(expert.name, version.number, self._weights(version))
        if any(one.pinned for one in older):
            self._pool.keep(loaded, FOREVER)
        self._pool.give_back(loaded)

    def _drop_others(self, new: Version) -> None:
        """Let older versions go; running answers finish on what they began with."""
        version, expert = new
        self._pool.unload(expert.name, keep_version=version.number)
        self._cache.forget(expert.name, keep_version=version.number)
        self.get_logger().info(f'{expert.name} is served by version {version.number} now.')

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
        response.status = expert_status(loaded)
        self._changed()

    def _unload(self, request: Any, response: Any) -> None:
        self._champions.find(request.expert)
        response.freed_bytes = self._pool.unload(request.expert, force=request.force) + self._pool.close_idle_workers()
        self._changed()


def main() -> None:
    """Run the node."""
    spin(ExpertNode, THREADS)
