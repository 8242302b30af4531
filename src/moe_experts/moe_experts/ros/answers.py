"""The generation actions: one goal from its acceptance to its result."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from rclpy.action import CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node

from moe_experts.engines.engine import EngineError, Piece, Request, Result
from moe_experts.pool import Loaded, Pool
from moe_experts.response_cache import ResponseCache, key_of
from moe_experts.ros import generation
from moe_experts.ros.quick_endpoints import QuickEndpoints
from moe_interfaces.action import GenerateChatCompletions, GenerateResponse
from moe_interfaces.msg import Expert

CANCEL_TIMEOUT_S = 1.0
CLOSE_TIMEOUT_S = 2.0
Load = Callable[[str], tuple[Loaded, Expert]]
Arrivals = queue.SimpleQueue[tuple[int, Piece | Result] | None]


class Answers:
    """Serves generate_response and generate_chat_completions.

    A goal holds one thread of the endpoints' pool, which sleeps until its worker says something or None asks to cancel.

    Args:
        prefix: of the actions' names.
        cache: of answers given before.
        load: the loaded expert of a name, counted as running.
        keep_alive: how long [s] experts stay loaded where a goal does not say; None = until evicted.
        changed: called when a goal begins or ends.
    """

    def __init__(self, node: Node, prefix: str, pool: Pool, cache: ResponseCache, load: Load,
                 keep_alive: float | None, changed: Callable[[], None], endpoints: QuickEndpoints) -> None:
        self._node, self._pool, self._cache, self._load = node, pool, cache, load
        self._keep_alive, self._changed = keep_alive, changed
        self._default = node.get_parameter('experts.default').value
        self._interval_s = node.get_parameter('inference.stream_interval_ms').value / 1000
        self._lock = threading.Lock()
        self._goals: dict[bytes, tuple[type, Arrivals]] = {}
        self._abandoned: set[bytes] = set()
        self._stopping = False
        self._names = {GenerateResponse: f'{prefix}/generate_response',
                       GenerateChatCompletions: f'{prefix}/generate_chat_completions'}
        for interface, name in self._names.items():
            endpoints.action(name, interface, self._execute, self._cancel)

    def drain(self, grace_s: float) -> None:
        """Begin nothing more, let what runs finish for so long, then cancel it; returns when all have their result."""
        self._stopping = True
        self._wait(grace_s)
        with self._lock:
            for _interface, arrivals in self._goals.values():
                arrivals.put(None)
        self._wait(CLOSE_TIMEOUT_S)

    def cancel_abandoned(self) -> None:
        """Cancel goals that nobody listens to any more: every client of their action is gone, seen twice in a row.

        A client that is killed is gone when DDS's lease on it ends. Called once a second.
        """
        with self._lock:
            goals = dict(self._goals)
        deaf = {interface for interface in {kind for kind, _arrivals in goals.values()}
                if not self._node.count_subscribers(f'{self._names[interface]}/_action/feedback')}
        lonely = {key for key, (interface, _arrivals) in goals.items() if interface in deaf}
        if gone := lonely & self._abandoned:
            self._node.get_logger().warning(f'Nobody listens to {len(gone)} answers any more; they are cancelled.')
        for key in gone:
            goals[key][1].put(None)
        self._abandoned = lonely

    def _wait(self, seconds: float) -> None:
        give_up = time.monotonic() + seconds
        while self._goals and time.monotonic() < give_up:
            time.sleep(0.01)

    def _cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        with self._lock:
            found = self._goals.get(bytes(handle.goal_id.uuid))
        if found is not None:
            found[1].put(None)
        return CancelResponse.ACCEPT

    def _execute(self, handle: ServerGoalHandle) -> Any:
        goal = handle.request
        interface = GenerateChatCompletions if hasattr(goal, 'messages') else GenerateResponse
        result = interface.Result()
        arrivals: Arrivals = queue.SimpleQueue()
        with self._lock:
            self._goals[bytes(handle.goal_id.uuid)] = interface, arrivals
        try:
            if self._stopping:
                raise EngineError('The expert node is stopping.', 1001)
            goal.expert = goal.expert or ('' if goal.experts else self._default)
            generation.check(goal)
            self._generate(handle, result, arrivals)
        except EngineError as error:
            result.finish_reason = 'cancelled' if error.code == 3003 else 'timeout' if error.code == 3001 else 'error'
            result.request_id, result.expert = goal.request_id, goal.expert
            result.error_code, result.error_msg, result.retry_after = error.code, str(error), error.retry_after_s
        self._conclude(handle, result)
        self._node.get_logger().info(generation.event(result))
        with self._lock:
            del self._goals[bytes(handle.goal_id.uuid)]
        self._changed()
        return result

    def _conclude(self, handle: ServerGoalHandle, result: Any) -> None:
        asked = not self._stopping and bytes(handle.goal_id.uuid) not in self._abandoned
        give_up = time.monotonic() + (CANCEL_TIMEOUT_S if asked else 0.0)
        while result.error_code == 3003 and not handle.is_cancel_requested and time.monotonic() < give_up:
            time.sleep(0.001)  # the cancel callback asked the worker before rclpy moved the goal to CANCELING
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.error_code:
            handle.abort()
        else:
            handle.succeed()

    def _generate(self, handle: ServerGoalHandle, result: Any, arrivals: Arrivals) -> None:
        """All answers of a goal, side by side; raises EngineError where none begins."""
        goal = handle.request
        experts = self._load_all(list(goal.experts) or [goal.expert])
        loads = [loaded for loaded, _expert in experts]
        try:
            requests = [generation.request(goal, experts, self._node.get_clock().now(), index)
                        for index in range(goal.n if hasattr(goal, 'messages') else 1)]
            if handle.is_cancel_requested:
                raise EngineError('Cancelled.', 3003)
            for index, request in enumerate(requests):
                self._begin(loads, request, index, arrivals)
                self._feedback(handle, loads[0], index, None)
            self._changed()
            for item, cached in self._collect(handle, loads, requests, arrivals):
                generation.fill(result, item, goal, experts[0][1], loads[0].version, cached)
        finally:
            for loaded in loads:
                self._pool.give_back(loaded)
        self._keep_loaded(goal, loads)

    def _load_all(self, names: list[str]) -> list[tuple[Loaded, Expert]]:
        found: list[tuple[Loaded, Expert]] = []
        with ExitStack() as undo:
            for name in names:
                found.append(self._load(name))
                undo.callback(self._pool.give_back, found[-1][0])
            if len({loaded.base for loaded, _expert in found}) > 1:
                raise EngineError(f'A mixture needs experts on one base; {", ".join(names)} stand on several.')
            undo.pop_all()
        return found

    def _begin(self, loads: list[Loaded], request: Request, index: int, arrivals: Arrivals) -> None:
        """Ask the worker, or answer at once what was answered before."""
        key = key_of(loads[0].weights, request) if loads[0].scale == loads[0].weights.scale else ''
        known = self._cache.find(key) if key else None
        if known is not None:
            if known.text:
                arrivals.put((index, Piece(request.id, known.text, -1)))
            arrivals.put((index, known))
            return

        def arrive(item: Piece | Result) -> None:
            if isinstance(item, Result) and not request.mixture:
                self._cache.keep(key, loads[0].expert, loads[0].version, item)
            arrivals.put((index, item))
        try:
            loads[0].worker.submit(request, arrive)
        except EngineError as error:
            arrivals.put((index, Result(request.id, '', (), 'error', 0, error_code=error.code, error_msg=str(error))))

    def _collect(self, handle: ServerGoalHandle, loads: list[Loaded], requests: list[Request],
                 arrivals: Arrivals) -> list[tuple[Result, bool]]:
        """Relay the streams until every answer has ended; returns each with whether it came from the cache.

        The first text goes out at once. What follows within the interval goes out together: a message for each token
        would cost the cores a fifth of the time in which they could decode.
        """
        found: dict[int, tuple[Result, bool]] = {}
        held: dict[int, list[Piece]] = {}
        due = 0.0
        while len(found) < len(requests):
            try:
                arrival = arrivals.get(timeout=max(0.0, due - time.monotonic()) if held else None)
            except queue.Empty:
                due = self._tell(handle, loads[0], held)
                continue
            if arrival is None:
                for request in requests:
                    loads[0].worker.cancel(request.id)
                continue
            index, item = arrival
            if isinstance(item, Result):
                found[index] = item, item.id != requests[index].id
                continue
            held.setdefault(index, []).append(item)
            if time.monotonic() >= due:
                due = self._tell(handle, loads[0], held)
        self._tell(handle, loads[0], held)
        return [found[index] for index in range(len(requests))]

    def _tell(self, handle: ServerGoalHandle, loaded: Loaded, held: dict[int, list[Piece]]) -> float:
        """Publish what was held back; returns when the next message may follow [s, monotonic]."""
        for index, pieces in held.items():
            if len(pieces) > 1 and not pieces[0].probs:  # probabilities belong to one token
                pieces = [Piece(pieces[0].id, ''.join(piece.text for piece in pieces), -1)]
            for piece in pieces:
                self._feedback(handle, loaded, index, piece)
        held.clear()
        return time.monotonic() + self._interval_s

    def _keep_loaded(self, goal: Any, loads: list[Loaded]) -> None:
        seconds = generation.keep_alive(goal, self._keep_alive)
        if seconds is not None:
            for loaded in loads:
                self._pool.keep(loaded, seconds)

    @staticmethod
    def _feedback(handle: ServerGoalHandle, loaded: Loaded, index: int, piece: Piece | None) -> None:
        chat = hasattr(handle.request, 'messages')
        message = (GenerateChatCompletions if chat else GenerateResponse).Feedback(
            expert=loaded.expert, expert_version=loaded.version, confidence=1.0)
        if chat:
            message.index = index
        if piece is not None:
            message.partial_response.text, message.partial_response.token = piece.text, piece.token
            if piece.probs:
                message.partial_response.probs = generation.probabilities(piece.token, piece.probs)
        if handle.is_active:
            handle.publish_feedback(message)
