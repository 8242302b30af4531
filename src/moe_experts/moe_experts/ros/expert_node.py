"""expert_node: serves the champion versions of the registry's experts."""

from __future__ import annotations

import os
import queue
import threading
import time
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from moe_experts.engines.engine import EngineError, EngineSettings, Piece, Result
from moe_experts.pool import Loaded, Pool
from moe_experts.ros import generation
from moe_experts.ros.spinning import spin
from moe_interfaces.action import GenerateChatCompletions, GenerateResponse
from moe_interfaces.msg import Expert, ExpertStatus, ExpertVersion, RegistryEvent, ServingStatus
from moe_interfaces.srv import Detokenize, GetMetadata, GetVersion, LoadExpert, Tokenize, UnloadExpert

SERVICE_QOS = QoSProfile(depth=100)
EVENTS_QOS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE,
                        durability=DurabilityPolicy.TRANSIENT_LOCAL)
REGISTRY_TIMEOUT_S = 5.0
THREADS = 20  # one per running goal (the engine runs 8) and some for the services


class ExpertNode(Node):  # type: ignore[misc]
    """Serves experts/*."""

    def __init__(self) -> None:
        super().__init__('experts')
        self.declare_parameter('cache_size', 3, ParameterDescriptor(
            description='adapters loaded at once; the least recently used idle one goes first', read_only=True,
            integer_range=[IntegerRange(from_value=1, to_value=1000, step=1)]))
        self.declare_parameter('threads', 0, ParameterDescriptor(
            description='threads that decode; 0 = one per core', read_only=True,
            integer_range=[IntegerRange(from_value=0, to_value=256, step=1)]))
        self.declare_parameter('use_kv_cache', True, ParameterDescriptor(
            description='begin prompts with what earlier ones left in the KV cache', read_only=True))
        self.declare_parameter('replica', 0, ParameterDescriptor(
            description='number of this node among those that serve the same experts', read_only=True))
        threads = self.get_parameter('threads').value or os.cpu_count() or 1
        settings = EngineSettings(threads=threads, use_kv_cache=self.get_parameter('use_kv_cache').value)
        self._pool = Pool(self.get_parameter('cache_size').value, settings, self.get_logger().error)
        self._known: dict[str, tuple[ExpertVersion, Expert]] = {}
        self._known_lock = threading.Lock()
        self._generated = 0
        self._last = (time.monotonic(), 0)
        # Goals block a thread each while their worker answers; the registry's replies need a free one.
        goals, registry = ReentrantCallbackGroup(), MutuallyExclusiveCallbackGroup()
        self._get_version = self.create_client(GetVersion, 'registry/get_version', qos_profile=SERVICE_QOS,
                                               callback_group=ReentrantCallbackGroup())
        self.create_subscription(RegistryEvent, 'registry/events', self._on_event, EVENTS_QOS,
                                 callback_group=registry)
        self._status = self.create_publisher(ServingStatus, 'experts/status', 10)
        self._actions = [
            ActionServer(self, interface, f'experts/{name}', self._execute, callback_group=goals,
                         cancel_callback=lambda _goal: CancelResponse.ACCEPT,
                         goal_service_qos_profile=SERVICE_QOS, result_service_qos_profile=SERVICE_QOS)
            for name, interface in (('generate_response', GenerateResponse),
                                    ('generate_chat_completions', GenerateChatCompletions))]
        for name, interface, handle in (
                ('tokenize', Tokenize, self._tokenize), ('detokenize', Detokenize, self._detokenize),
                ('get_metadata', GetMetadata, self._metadata), ('load_expert', LoadExpert, self._load),
                ('unload_expert', UnloadExpert, self._unload)):
            self.create_service(interface, f'experts/{name}', self._answer(handle), qos_profile=SERVICE_QOS,
                                callback_group=goals)
        self.create_timer(1.0, self._publish_status, callback_group=registry)
        self.get_logger().info(f'Serving with {threads} threads.')

    def close(self) -> None:
        """End the workers."""
        self._pool.close()

    def _on_event(self, event: RegistryEvent) -> None:
        """A moved champion or changed expert is looked up again; running answers finish on what they began with."""
        if event.expert:
            with self._known_lock:
                self._known.pop(event.expert, None)
        if event.alias == 'champion':
            self._pool.unload(event.expert, keep_version=event.version)

    def _find(self, name: str, number: int = 0) -> tuple[ExpertVersion, Expert]:
        """The version to serve, from the registry or, while it is away, as last known. Raises EngineError."""
        with self._known_lock:
            known = self._known.get(name)
        if known is not None and number in (0, known[0].number):
            return known
        if not self._get_version.wait_for_service(REGISTRY_TIMEOUT_S):
            raise EngineError('The registry does not answer; look at `moe status`.', 5000)
        done = threading.Event()
        future = self._get_version.call_async(GetVersion.Request(expert=name, number=number))
        future.add_done_callback(lambda _future: done.set())
        if not done.wait(REGISTRY_TIMEOUT_S):
            raise EngineError(f'The registry did not answer within {REGISTRY_TIMEOUT_S:.0f} s.', 5000)
        response = future.result()
        if response.error_code:
            raise EngineError(response.error_msg, response.error_code)
        found = (response.version, response.expert)
        if not number:
            with self._known_lock:
                self._known[name] = found
        return found

    def _loaded(self, name: str, number: int = 0) -> tuple[Loaded, Expert]:
        """The loaded expert, counted as running. Raises EngineError."""
        version, expert = self._find(name or 'general', number)
        if expert.status == Expert.DISABLED:
            raise EngineError(f'Expert {expert.name} is disabled.', 1001)
        adapter = version.kind == ExpertVersion.ADAPTER
        loaded = self._pool.get(
            expert.name, version.number, Path(version.base_path if adapter else version.artifact_path).resolve(),
            Path(version.artifact_path) if adapter else None, version.lora_scale)
        return loaded, expert

    def _execute(self, handle: ServerGoalHandle) -> Any:
        goal = handle.request
        chat = hasattr(goal, 'messages')
        result = (GenerateChatCompletions if chat else GenerateResponse).Result()
        try:
            for index in range(goal.n if chat else 1):
                self._generate(handle, goal, result, index)
        except EngineError as error:
            result.finish_reason, result.request_id = 'error', goal.request_id
            result.expert, result.error_code, result.error_msg = goal.expert, error.code, str(error)
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.error_code:
            handle.abort()
        else:
            handle.succeed()
        return result

    def _generate(self, handle: ServerGoalHandle, goal: Any, result: Any, index: int) -> None:
        if not goal.expert:
            raise EngineError('The goal names no expert; ask the router, or fill expert.')
        loaded, expert = self._loaded(goal.expert)
        arrivals: queue.SimpleQueue[Piece | Result] = queue.SimpleQueue()
        try:
            request = generation.request(goal, expert, loaded.adapter, self.get_clock().now(), index)
            self._feedback(handle, expert.name, loaded.version, index, None)
        except BaseException:
            self._pool.give_back(loaded)
            raise
        self._pool.submit(loaded, request, arrivals.put)
        cancelled = False
        while True:
            try:
                item = arrivals.get(timeout=0.02)
            except queue.Empty:
                if handle.is_cancel_requested and not cancelled:
                    cancelled = True
                    loaded.worker.cancel(request.id)
                continue
            if isinstance(item, Result):
                break
            self._generated += 1
            self._feedback(handle, expert.name, loaded.version, index, item)
            if handle.is_cancel_requested and not cancelled:
                cancelled = True
                loaded.worker.cancel(request.id)
        generation.fill(result, item, goal, expert, loaded.version)

    @staticmethod
    def _feedback(handle: ServerGoalHandle, expert: str, version: int, index: int, piece: Piece | None) -> None:
        chat = hasattr(handle.request, 'messages')
        message = (GenerateChatCompletions if chat else GenerateResponse).Feedback(
            expert=expert, expert_version=version, confidence=1.0)
        if chat:
            message.index = index
        if piece is not None:
            message.partial_response.text, message.partial_response.token = piece.text, piece.token
        if handle.is_active:
            handle.publish_feedback(message)

    @staticmethod
    def _answer(handle: Any) -> Any:
        """Wrap a handler: errors become code and sentence."""
        def respond(request: Any, response: Any) -> Any:
            try:
                handle(request, response)
            except EngineError as error:
                response.error_code, response.error_msg = error.code, str(error)
            return response
        return respond

    def _call(self, name: str, verb: str, **arguments: Any) -> tuple[Any, Loaded]:
        loaded, _expert = self._loaded(name)
        try:
            return loaded.worker.call(verb, **arguments), loaded
        finally:
            self._pool.give_back(loaded)

    def _tokenize(self, request: Any, response: Any) -> None:
        response.tokens, _loaded = self._call(request.expert, 'tokenize', text=request.text)

    def _detokenize(self, request: Any, response: Any) -> None:
        response.text, _loaded = self._call(request.expert, 'detokenize', tokens=list(request.tokens))

    def _metadata(self, request: Any, response: Any) -> None:
        import json
        values, loaded = self._call(request.expert, 'metadata')
        version, _expert = self._find(request.expert)
        architecture = values.get('general.architecture', '')
        response.architecture, response.base = architecture, version.base
        response.parameter_count = int(values['parameter_count'])
        response.context_length = int(values.get(f'{architecture}.context_length', 0))
        response.embedding_length = int(values.get(f'{architecture}.embedding_length', 0))
        response.n_ctx, response.vocabulary_size = int(values['n_ctx']), int(values['vocabulary_size'])
        response.quantization = version.quantization
        response.chat_template = values.get('tokenizer.chat_template', '')
        response.metadata, response.expert_version = json.dumps(values), loaded.version

    def _load(self, request: Any, response: Any) -> None:
        begin = time.monotonic()
        loaded, _expert = self._loaded(request.expert, request.version)
        self._pool.give_back(loaded)
        response.load_s = time.monotonic() - begin
        response.status = self._state(loaded)

    def _unload(self, request: Any, response: Any) -> None:
        self._find(request.expert)
        response.freed_bytes = self._pool.unload(request.expert)

    @staticmethod
    def _state(loaded: Loaded) -> ExpertStatus:
        return ExpertStatus(
            expert=loaded.expert, version=loaded.version, memory_bytes=loaded.bytes, running=loaded.running,
            state=ExpertStatus.BUSY if loaded.running else ExpertStatus.READY)

    def _publish_status(self) -> None:
        now, (then, before) = time.monotonic(), self._last
        self._last = (now, self._generated)
        workers = self._pool.workers()
        loaded = self._pool.loaded()
        self._status.publish(ServingStatus(
            stamp=self.get_clock().now().to_msg(), node=self.get_fully_qualified_name(),
            replica=self.get_parameter('replica').value, experts=[self._state(one) for one in loaded],
            running=sum(one.running for one in loaded), queue_limit=64,
            tokens_per_second=(self._generated - before) / max(1e-3, now - then),
            worker_pids=[worker.pid for worker in workers], evictions=self._pool.evictions,
            worker_restarts=sum(worker.restarts for worker in workers)))


def main() -> None:
    """Run the node."""
    spin(ExpertNode, THREADS)
