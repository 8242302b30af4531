"""The generation actions: one goal from its acceptance to its result."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile

from moe_experts.engines.engine import EngineError, Piece, Result
from moe_experts.pool import Loaded, Pool
from moe_experts.ros import generation
from moe_experts.ros.champions import SERVICE_QOS
from moe_interfaces.action import GenerateChatCompletions, GenerateResponse
from moe_interfaces.msg import Expert

CANCEL_TIMEOUT_S = 1.0
CLOSE_TIMEOUT_S = 2.0
FEEDBACK_QOS = QoSProfile(depth=1000)  # a grammar may force many tokens in one step
Load = Callable[[str], tuple[Loaded, Expert]]
Arrivals = queue.SimpleQueue[Piece | Result | None]


class Answers:
    """Serves experts/generate_response and experts/generate_chat_completions.

    A goal holds one executor thread, which sleeps until its worker says something or None asks to cancel.

    Args:
        load: the loaded expert of a name, counted as running.
    """

    def __init__(self, node: Node, pool: Pool, load: Load, group: CallbackGroup) -> None:
        self._node, self._pool, self._load = node, pool, load
        self._lock = threading.Lock()
        self._goals: dict[bytes, Arrivals] = {}
        self._servers = [
            ActionServer(node, interface, f'experts/{name}', self._execute, callback_group=group,
                         cancel_callback=self._cancel, goal_service_qos_profile=SERVICE_QOS,
                         result_service_qos_profile=SERVICE_QOS, feedback_pub_qos_profile=FEEDBACK_QOS)
            for name, interface in (('generate_response', GenerateResponse),
                                    ('generate_chat_completions', GenerateChatCompletions))]

    def close(self) -> None:
        """Wait until every goal has its result; what answers them has ended."""
        give_up = time.monotonic() + CLOSE_TIMEOUT_S
        while self._goals and time.monotonic() < give_up:
            time.sleep(0.01)

    def _cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        with self._lock:
            arrivals = self._goals.get(bytes(handle.goal_id.uuid))
        if arrivals is not None:
            arrivals.put(None)
        return CancelResponse.ACCEPT

    def _execute(self, handle: ServerGoalHandle) -> Any:
        goal = handle.request
        chat = hasattr(goal, 'messages')
        result = (GenerateChatCompletions if chat else GenerateResponse).Result()
        arrivals: Arrivals = queue.SimpleQueue()
        with self._lock:
            self._goals[bytes(handle.goal_id.uuid)] = arrivals
        try:
            generation.check(goal)
            for index in range(goal.n if chat else 1):
                self._generate(handle, result, index, arrivals)
                if result.error_code:
                    break
        except EngineError as error:
            result.finish_reason = 'cancelled' if error.code == 3003 else 'error'
            result.request_id, result.expert = goal.request_id, goal.expert
            result.error_code, result.error_msg, result.retry_after = error.code, str(error), error.retry_after_s
        self._conclude(handle, result)
        with self._lock:
            del self._goals[bytes(handle.goal_id.uuid)]
        return result

    @staticmethod
    def _conclude(handle: ServerGoalHandle, result: Any) -> None:
        give_up = time.monotonic() + CANCEL_TIMEOUT_S
        while result.finish_reason == 'cancelled' and not handle.is_cancel_requested and time.monotonic() < give_up:
            time.sleep(0.001)  # the cancel callback asked the worker before rclpy moved the goal to CANCELING
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.error_code:
            handle.abort()
        else:
            handle.succeed()

    def _generate(self, handle: ServerGoalHandle, result: Any, index: int, arrivals: Arrivals) -> None:
        """One answer; raises EngineError where none begins."""
        goal = handle.request
        loaded, expert = self._load(goal.expert)
        try:
            request = generation.request(goal, expert, loaded.adapter, self._node.get_clock().now(), index)
            if handle.is_cancel_requested:
                raise EngineError('Cancelled.', 3003)
            self._feedback(handle, loaded, index, None)
        except BaseException:
            self._pool.give_back(loaded)
            raise
        self._pool.submit(loaded, request, arrivals.put)
        while not isinstance(item := arrivals.get(), Result):
            if item is None:
                loaded.worker.cancel(request.id)
            else:
                self._feedback(handle, loaded, index, item)
        generation.fill(result, item, goal, expert, loaded.version)
        keep_alive = generation.keep_alive(goal)
        if keep_alive is not None:
            self._pool.keep(loaded, keep_alive)

    @staticmethod
    def _feedback(handle: ServerGoalHandle, loaded: Loaded, index: int, piece: Piece | None) -> None:
        chat = hasattr(handle.request, 'messages')
        message = (GenerateChatCompletions if chat else GenerateResponse).Feedback(
            expert=loaded.expert, expert_version=loaded.version, confidence=1.0)
        if chat:
            message.index = index
        if piece is not None:
            message.partial_response.text, message.partial_response.token = piece.text, piece.token
        if handle.is_active:
            handle.publish_feedback(message)
