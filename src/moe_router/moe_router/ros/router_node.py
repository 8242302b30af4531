"""router_node: one place to ask; it routes, forwards, relays the stream and hands motions on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.client import ActionClient
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Duration

from moe_interfaces.action import ExecuteMotion, GenerateChatCompletions, GenerateResponse
from moe_interfaces.msg import Expert, RegistryEvent, RouteDecision
from moe_interfaces.srv import ExplainRoute, GetRouterStats, Infer, ListExperts, ListRouteSamples, RoutePrompt
from moe_router.classifier import Head
from moe_router.encoder import Encoder
from moe_router.policy import Decision, decide
from moe_router.ros.forwarding import ServerAway, forward
from moe_router.ros.spinning import spin

SERVICE_QOS = QoSProfile(depth=100)
FEEDBACK_QOS = QoSProfile(depth=1000)  # every token of every goal of an action comes on one topic
EVENTS_QOS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE,
                        durability=DurabilityPolicy.TRANSIENT_LOCAL)
EXPERT_NOT_FOUND, EXPERT_NOT_READY, INFERENCE_FAILED, INVALID_REQUEST, HARDWARE_ERROR = 1000, 1001, 3000, 3004, 4000
THREADS = 24  # one per answer that is being relayed and some for the services
LONGEST_PROMPT = 100_000  # characters that are looked at for routing


class RouteError(Exception):
    """A prompt that cannot be routed."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class RouterNode(Node):  # type: ignore[misc]
    """Serves route_prompt, infer, generate_response and generate_chat_completions."""

    def __init__(self) -> None:
        super().__init__('router')
        share = [FloatingPointRange(from_value=0.0, to_value=1.0, step=0.0)]
        self.declare_parameter('confidence_threshold', 0.5, ParameterDescriptor(
            description='confidence below it abstains', floating_point_range=share))
        self.declare_parameter('fallback_expert', 'general', ParameterDescriptor(
            description='answers what is out of every domain'))
        self.declare_parameter('expert_wait_s', 8.0, ParameterDescriptor(
            description='how long to wait for an expert node that is starting [s]'))
        self.declare_parameter('act', True, ParameterDescriptor(
            description='carry out the answers of action_experts'))
        self.declare_parameter('action_experts', ['motion'], ParameterDescriptor(
            description='experts whose answers are motion commands'))
        home = Path(os.environ.get('MOE_HOME') or '~/.local/share/moe').expanduser().absolute()
        self._encoder = Encoder(home / 'models')
        self._head_path = home / 'router' / 'head.npz'
        self._head: Head | None = None
        self._experts: dict[str, tuple[str, int, bool]] = {}
        self._stats: dict[str, list[float]] = {}
        self._stop, self._changed = threading.Event(), threading.Event()
        # Goals block a thread each; what they wait for is answered in other groups.
        goals, answers, events = ReentrantCallbackGroup(), ReentrantCallbackGroup(), MutuallyExclusiveCallbackGroup()
        self._list_samples = self.create_client(ListRouteSamples, 'registry/list_route_samples',
                                                qos_profile=SERVICE_QOS, callback_group=answers)
        self._list_experts = self.create_client(ListExperts, 'registry/list_experts', qos_profile=SERVICE_QOS,
                                                callback_group=answers)
        self.create_subscription(RegistryEvent, 'registry/events', lambda _event: self._changed.set(), EVENTS_QOS,
                                 callback_group=events)
        interfaces = {'generate_response': GenerateResponse, 'generate_chat_completions': GenerateChatCompletions}
        self._to_experts = {interface: ActionClient(self, interface, f'experts/{name}', callback_group=answers,
                                                    feedback_sub_qos_profile=FEEDBACK_QOS)
                            for name, interface in interfaces.items()}
        self._to_motion = ActionClient(self, ExecuteMotion, 'execute_motion', callback_group=answers)
        self._servers = [
            ActionServer(self, interface, name, self._execute, callback_group=goals,
                         cancel_callback=lambda _goal: CancelResponse.ACCEPT,
                         goal_service_qos_profile=SERVICE_QOS, result_service_qos_profile=SERVICE_QOS,
                         feedback_pub_qos_profile=FEEDBACK_QOS)
            for name, interface in interfaces.items()]
        for name, interface, handle in (
                ('route_prompt', RoutePrompt, self._route_prompt), ('infer', Infer, self._infer),
                ('router/explain', ExplainRoute, self._explain), ('router/stats', GetRouterStats, self._get_stats)):
            self.create_service(interface, name, handle, qos_profile=SERVICE_QOS, callback_group=goals)
        self._thread = threading.Thread(target=self._keep_fitted, name='fit')
        self._thread.start()

    def close(self) -> None:
        """Stop the fitting thread."""
        self._stop.set()
        self._changed.set()
        self._thread.join()

    def _ask(self, client: Any, request: Any, timeout_s: float = 10.0) -> Any:
        """Call a service from a thread that may wait; None when nobody answers in time, or the node closes."""
        give_up = time.monotonic() + timeout_s
        while not client.service_is_ready():
            if self._stop.wait(0.05) or time.monotonic() > give_up:
                return None
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _future: done.set())
        while not done.wait(0.1):
            if self._stop.is_set() or time.monotonic() > give_up:
                return None
        return future.result()

    def _keep_fitted(self) -> None:
        """Follow the registry: what it knows of experts at once, a new fit when its samples changed."""
        try:
            self._head = Head.load(self._head_path)
        except (OSError, ValueError, KeyError):
            self._head = None  # the first start, or a damaged file: fitted anew below
        self._changed.set()
        while not self._stop.is_set():
            self._changed.wait(5.0)
            self._changed.clear()
            if self._stop.is_set():
                return
            self._refresh()

    def _refresh(self) -> None:
        experts = self._ask(self._list_experts, ListExperts.Request(limit=1000))
        if experts is None or experts.error_code:
            return
        self._experts = {row.name: (row.status, row.champion_version, row.routable) for row in experts.experts}
        page = self._ask(self._list_samples, ListRouteSamples.Request(limit=1))
        if page is None or page.error_code or not page.total or (self._head and self._head.digest == page.digest):
            return
        samples: list[Any] = []
        while len(samples) < page.total:
            page = self._ask(self._list_samples, ListRouteSamples.Request(offset=len(samples), limit=10000))
            if page is None or page.error_code or not page.samples:
                return
            samples += page.samples
        self._fit(samples, page.digest)

    def _fit(self, samples: list[Any], digest: str) -> None:
        """Fit in a process of its own; it is ended when the node is."""
        begin = time.monotonic()
        path = self._head_path.with_name('samples.json')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({
            'digest': digest, 'samples': [[sample.expert, sample.intent, sample.text] for sample in samples]}))
        environment = dict(os.environ, OMP_WAIT_POLICY='PASSIVE', OPENBLAS_NUM_THREADS='1')
        with subprocess.Popen([sys.executable, '-m', 'moe_router.fitting', str(path), str(self._head_path)],
                              stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True) as process:
            while process.poll() is None:
                if self._stop.wait(0.1):
                    process.kill()
                    return
            assert process.stderr is not None
            if process.returncode:
                reason = (process.stderr.read().strip().splitlines() or ['no reason given'])[-1]
                self.get_logger().warning(f'The router could not be fitted: {reason}')
                return
        self._head = Head.load(self._head_path)
        self.get_logger().info(f'Fitted on {len(samples)} samples of {len(self._head.experts)} experts in '
                               f'{time.monotonic() - begin:.1f} s.')

    def _decide(self, prompt: str, named: str) -> tuple[Decision, float]:
        """The decision and the seconds it took; raises RouteError."""
        begin = time.monotonic()
        if not prompt.strip():
            raise RouteError('The prompt is empty; ask something.', INVALID_REQUEST)
        fallback = self.get_parameter('fallback_expert').value
        if named:
            if self._experts and named not in self._experts:
                raise RouteError(f'Expert with name={named} not found', EXPERT_NOT_FOUND)
            return Decision(named, 1.0, (named,), (1.0,), 0.0, False, 'named'), time.monotonic() - begin
        head = self._head
        if head is None or not self._experts:
            raise RouteError('The router is still learning from the registry\'s samples; ask again in a few seconds.',
                             EXPERT_NOT_READY)
        available = {name for name, (status, version, routable) in self._experts.items()
                     if status in (Expert.READY, Expert.TRAINING) and version and routable}
        if not available:
            waiting = ', '.join(name for name, (status, _version, _routable) in self._experts.items()
                                if status == Expert.CREATING)
            raise RouteError(f'No expert can answer yet; without a version: {waiting}.', EXPERT_NOT_READY)
        vector = self._encoder.encode([prompt[:LONGEST_PROMPT]])[0]
        decision = decide(head, head.score(vector), available, fallback,
                          self.get_parameter('confidence_threshold').value)
        return decision, time.monotonic() - begin

    @staticmethod
    def _message(decision: Decision, latency_s: float) -> RouteDecision:
        return RouteDecision(
            choice=decision.choice, confidence=decision.confidence, ranked=list(decision.ranked),
            probabilities=list(decision.probabilities), none_probability=decision.none_probability,
            abstained=decision.abstained, stage=decision.stage, latency_s=latency_s)

    def _route_prompt(self, request: Any, response: Any) -> Any:
        try:
            decision, latency_s = self._decide(request.prompt, '')
            response.decision = self._message(decision, latency_s)
            response.expert_version = self._experts.get(decision.choice, ('', 0, False))[1]
        except RouteError as error:
            response.error_code, response.error_msg = error.code, str(error)
        return response

    def _explain(self, request: Any, response: Any) -> Any:
        try:
            decision, latency_s = self._decide(request.prompt, '')
        except RouteError as error:
            response.error_code, response.error_msg = error.code, str(error)
            return response
        head = self._head
        assert head is not None  # _decide raised otherwise
        scores = head.score(self._encoder.encode([request.prompt[:LONGEST_PROMPT]])[0])
        response.decision = self._message(decision, latency_s)
        response.explanation = json.dumps({
            'probabilities': dict(zip(scores.experts, map(float, scores.probabilities), strict=True)),
            'nearness': scores.nearness, 'nearness_limit': head.nearness_limit,
            'confidence_threshold': self.get_parameter('confidence_threshold').value})
        return response

    def _get_stats(self, _request: Any, response: Any) -> Any:
        stats = {name: list(values) for name, values in self._stats.items()}
        response.experts = list(stats)
        response.selections = [len(values) for values in stats.values()]
        response.mean_confidence = [sum(values) / len(values) for values in stats.values()]
        response.requests = sum(map(len, stats.values()))
        response.abstained = len(stats.get(self.get_parameter('fallback_expert').value, ()))
        response.strategy, response.threshold = 'learned', self.get_parameter('confidence_threshold').value
        return response

    def _execute(self, handle: ServerGoalHandle) -> Any:
        goal = handle.request
        interface = GenerateChatCompletions if hasattr(goal, 'messages') else GenerateResponse
        result = self._answer(interface, goal, handle.publish_feedback,
                              lambda: handle.is_cancel_requested or self._stop.is_set())
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.error_code:
            handle.abort()
        else:
            handle.succeed()
        return result

    def _infer(self, request: Any, response: Any) -> Any:
        goal = GenerateResponse.Goal()
        for name in GenerateResponse.Goal.get_fields_and_field_types():
            if hasattr(request, name):
                setattr(goal, name, getattr(request, name))
        if request.timeout > 0.0:
            goal.deadline = (self.get_clock().now() + Duration(seconds=request.timeout)).to_msg()
        result = self._answer(GenerateResponse, goal, lambda _feedback: None, self._stop.is_set)
        for name in response.get_fields_and_field_types():
            if hasattr(result, name):
                setattr(response, name, getattr(result, name))
        response.text = result.response.text
        return response

    def _answer(self, interface: Any, goal: Any, publish: Any, cancelled: Any) -> Any:
        """Route, forward, act; errors are in the result."""
        goal.request_id = goal.request_id or uuid.uuid4().hex[:16]
        prompt = goal.prompt if interface is GenerateResponse else (goal.messages[-1].content if goal.messages else '')
        result = interface.Result(request_id=goal.request_id, finish_reason='error')
        try:
            decision, latency_s = self._decide(prompt, goal.expert)
        except RouteError as error:
            result.error_code, result.error_msg = error.code, str(error)
            return result
        goal.expert = decision.choice
        self._stats.setdefault(decision.choice, []).append(decision.confidence)
        streamed = False

        def relay(feedback: Any) -> None:
            nonlocal streamed
            streamed = streamed or bool(feedback.partial_response.text)
            feedback.confidence, feedback.abstained = decision.confidence, decision.abstained
            publish(feedback)

        client = self._to_experts[interface]
        for last in (False, True):
            try:
                result = forward(client, goal, relay, cancelled, self.get_parameter('expert_wait_s').value,
                                 client.server_is_ready)
                break
            except ServerAway as error:
                # Only what nobody has seen yet may be asked twice.
                if last or streamed or cancelled():
                    result.error_code = INFERENCE_FAILED if streamed else EXPERT_NOT_READY
                    result.error_msg = f'The expert node did not answer: {error}.'
                    break
        result.route, result.request_id = self._message(decision, latency_s), goal.request_id
        result.expert = result.expert or decision.choice
        if not result.error_code and self.get_parameter('act').value and interface is GenerateResponse \
                and decision.choice in self.get_parameter('action_experts').value:
            self._act(result, cancelled)
        return result

    def _act(self, result: Any, cancelled: Any) -> None:
        """Carry out a motion command; its error becomes the result's."""
        goal = ExecuteMotion.Goal(command=result.response.text, request_id=result.request_id)
        try:
            done = forward(self._to_motion, goal, lambda _feedback: None, cancelled, 2.0,
                           self._to_motion.server_is_ready)
            result.error_code, result.error_msg = done.error_code, done.error_msg
        except ServerAway as error:
            result.error_code, result.error_msg = HARDWARE_ERROR, f'The motion node did not answer: {error}.'


def main() -> None:
    """Run the node."""
    spin(RouterNode, THREADS)
