"""Generation goals: routed, put together, forwarded to a node, relayed, tried elsewhere where that is harmless."""

from __future__ import annotations

import copy
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rclpy.node import Node
from rclpy.time import Time

from moe_interfaces.action import ExecuteMotion, GenerateResponse
from moe_interfaces.msg import Choice, ErrorCode, PartialResponse
from moe_router import mixture
from moe_router.attempts import NEVER, Attempts
from moe_router.mixture import Part
from moe_router.notes import Note, NoteIndex, block, read_of, word_for_word
from moe_router.policy import Decision
from moe_router.ros.action_client import MeetingActionClient
from moe_router.ros.conversions import bind, decision_message, note_messages, put_before, question
from moe_router.ros.expert_links import ExpertLinks
from moe_router.ros.forwarding import ServerAway, forward
from moe_router.ros.recording import Recording
from moe_router.ros.robot_topics import RobotTopics
from moe_router.ros.routing import Chosen, RouteError, Routing
from moe_router.router import LONGEST
from moe_router.sessions import Session, Sessions

ELSEWHERE = (ErrorCode.INFERENCE_FAILED, ErrorCode.OVERLOADED)  # another node may do better
LATE_S = 1.0  # how long after its deadline an engine may take to say that it is over
ASK_S = 0.05
CLOSE_S = 6.0
RETRY_AFTER_S = 1.0
# Each answer holds a thread of the executor; what it waits for needs some as well, or nobody would be answered.
MOST_AT_ONCE = 112
LLM_PROMPT = 1000  # characters of a prompt that the choosing expert reads
LLM_S = 10.0


@dataclass
class Job:
    """One goal on its way: what it asks, who was chosen, what was streamed."""

    interface: Any
    goal: Any
    publish: Callable[[Any], None]
    cancelled: Callable[[], bool]
    deadline_s: float = NEVER  # ROS time
    begin: float = field(default_factory=time.monotonic)
    chosen: Chosen | None = None
    first_s: float = 0.0
    notes: list[Note] = field(default_factory=list)


class Answering:
    """Answers goals of both generation actions."""

    def __init__(self, node: Node, routing: Routing, links: ExpertLinks, recording: Recording, notes: NoteIndex,
                 robot: RobotTopics, to_motion: MeetingActionClient) -> None:
        self._node, self._routing, self._links, self._recording = node, routing, links, recording
        self._notes, self._robot, self._to_motion = notes, robot, to_motion
        self._sessions = Sessions()
        self._running, self._idle = 0, threading.Condition()

    def _now(self) -> float:
        """ROS time [s]."""
        return float(self._node.get_clock().now().nanoseconds / 1e9)

    def _value(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def _plays(self, expert: str, parameter: str) -> bool:
        """Whether a parameter names the expert, or that whose candidate it is."""
        return self._routing.role(expert) in self._value(parameter)

    def close(self) -> None:
        """Wait for the answers that are being cancelled."""
        with self._idle:
            self._idle.wait_for(lambda: not self._running, CLOSE_S)

    def answer(self, interface: Any, goal: Any, publish: Callable[[Any], None], cancelled: Callable[[], bool]) -> Any:
        """Route, forward, act; errors are in the result."""
        with self._idle:
            full = self._running >= MOST_AT_ONCE
            self._running += 1
        try:
            if full:
                return self._overloaded(interface, goal, f'The router relays {MOST_AT_ONCE} answers already')
            return self._answer(interface, goal, publish, cancelled)
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def _answer(self, interface: Any, goal: Any, publish: Callable[[Any], None], cancelled: Callable[[], bool]) -> Any:
        goal.request_id = goal.request_id or uuid.uuid4().hex[:16]
        deadline_s = Time.from_msg(goal.deadline).nanoseconds / 1e9 or NEVER
        job = Job(interface, goal, publish, lambda: cancelled() or self._now() > deadline_s + LATE_S, deadline_s)
        if self._now() >= deadline_s:
            return self._failure(job, ErrorCode.TIMEOUT, 'The deadline had passed when the request arrived.')
        prompt = question(goal)
        try:
            job.chosen = self._choose(goal, prompt)
        except RouteError as error:
            return self._failure(job, error.code, str(error))
        chosen = job.chosen
        self._recording.decided(goal.request_id, goal.session, prompt, chosen.decision, chosen.latency_s,
                                self._routing.version())
        goal.expert = chosen.decision.choice
        parts = self._parts(chosen.decision)
        # a command is carried out by one; two of them signed would be none
        if goal.experts or len(parts) == 1 or self._plays(goal.expert, 'action_experts'):
            result = self._ask_node(job, goal, prompt)
        elif self._value('mixture') == 'logits':
            goal.experts, goal.weights = [name for name, _weight in parts], [weight for _name, weight in parts]
            result = self._ask_node(job, goal, prompt)
        else:
            result = self._ask_all(job, prompt, parts)
        self._finish(job, result)
        return result

    def _parts(self, decision: Decision) -> list[tuple[str, float]]:
        """Who answers, with weights that sum to 1."""
        count, available = self._value('mixture_k'), self._routing.available()
        if self._value('mixture') == 'logits':
            return mixture.blended(decision, count, available, self._routing.bases())
        return mixture.members(decision, count, available)

    def _choose(self, goal: Any, prompt: str) -> Chosen:
        """The decision on a goal; one that names a mixture needs none. Raises RouteError."""
        if goal.experts and not goal.expert:
            goal.expert = goal.experts[0]
        return self._routing.choose(prompt, goal.expert, goal.session or goal.request_id,
                                    self._routing.role(self._sessions.find(goal.session).expert))

    @staticmethod
    def _failure(job: Job, code: int, sentence: str) -> Any:
        """A result that says why there is no answer."""
        return job.interface.Result(request_id=job.goal.request_id, finish_reason='error', error_code=code,
                                    error_msg=sentence)

    @staticmethod
    def _overloaded(interface: Any, goal: Any, reason: str) -> Any:
        return interface.Result(
            request_id=goal.request_id, finish_reason='error', error_code=ErrorCode.OVERLOADED,
            error_msg=f'{reason}; come back in {RETRY_AFTER_S:.0f} s.', retry_after=RETRY_AFTER_S)

    def _prepared(self, job: Job, goal: Any, prompt: str) -> Any:
        """The goal with the expert's notes and the robot's state in front of what it asks."""
        # a candidate reads what its base reads, unless it has notes of its own
        reads = goal.expert if self._notes.count(goal.expert) else self._routing.role(goal.expert)
        if self._notes.count(reads) and (most := self._value('notes_most')):
            vector = job.chosen.vector if job.chosen is not None else None
            if vector is None:
                vector = self._routing.encode(prompt[:LONGEST])
            found = self._notes.find(reads, vector, most, self._value('notes_bytes'),
                                     self._value('notes_margin'))
            if found:
                put_before(goal, block(read_of(found)))
                job.notes += found
                sure = found[0].questions and found[0].score >= self._value('notes_sure')
                # a command is no text; and a trial compares what its two sides say themselves
                if sure and not self._plays(goal.expert, 'action_experts') and not (job.chosen and job.chosen.trial):
                    bind(goal, word_for_word(found[0]))
        if goal.ground or self._plays(goal.expert, 'ground_experts'):
            put_before(goal, self._robot.block(self._value('max_age_s')))
            goal.ground = False  # done here; the expert node has no topics
        return goal

    def _ask_node(self, job: Job, goal: Any, prompt: str, relay: bool = True) -> Any:
        """Give a goal to a node, and to another one while nobody has seen a word of the answer."""
        goal = self._prepared(job, goal, prompt)
        replicas = self._links.replicas
        attempts = Attempts(len(replicas.names) + 1, job.deadline_s, self._value('expert_wait_s'))
        preferred = self._sessions.find(goal.session).node
        result = None
        while True:
            name = self._wait_for_node(job, goal.expert, preferred, attempts)
            if name is None:
                return result or self._nobody(job, attempts)
            attempts.tried.append(name)
            text: list[str] = []
            replicas.began(name)
            try:
                result = self._forward(job, name, goal, text, relay)
            except ServerAway as error:
                replicas.ended(name, failed=True)
                code = ErrorCode.INFERENCE_FAILED if text else ErrorCode.EXPERT_NOT_READY
                result = self._failure(job, code, f'The expert node {name} did not answer: {error}.'
                                       + (' What was streamed is incomplete.' if text else ''))
                self._keep_text(result, ''.join(text))
                result.expert = goal.expert
                if not attempts.may_ask(self._now(), bool(text), job.cancelled()):
                    return result
                continue
            replicas.ended(name, failed=result.error_code == ErrorCode.INFERENCE_FAILED)
            if result.error_code in ELSEWHERE and attempts.may_ask(self._now(), bool(text), job.cancelled()) \
                    and set(replicas.usable(goal.expert)) - set(attempts.tried):
                continue
            if not result.error_code:
                self._sessions.remember(goal.session, Session(goal.expert, name))
            return result

    def _wait_for_node(self, job: Job, expert: str, preferred: str, attempts: Attempts) -> str | None:
        """A node that can be asked; one that was asked already counts again once it is back."""
        since, replicas = self._now(), self._links.replicas
        while True:
            if job.cancelled() or attempts.expired(self._now()):
                return None
            name = replicas.choose(expert, preferred, without=attempts.tried) or (
                replicas.choose(expert, preferred) if attempts.tried else None)
            if name is not None or replicas.overloaded() or not attempts.may_wait(since, self._now()):
                return name
            time.sleep(ASK_S)

    def _nobody(self, job: Job, attempts: Attempts) -> Any:
        """The result of a goal that no node could be given to."""
        if attempts.expired(self._now()):
            return self._failure(job, ErrorCode.TIMEOUT, 'The deadline passed before an expert node could be asked.')
        if job.cancelled():
            return self._failure(job, ErrorCode.CANCELLED, 'Cancelled before an expert node was asked.')
        if self._links.replicas.overloaded():
            return self._overloaded(job.interface, job.goal, 'Every expert node has a full queue')
        state = ', '.join(f'{name}: {how}' for name, how in self._links.replicas.state().items())
        return self._failure(job, ErrorCode.EXPERT_NOT_READY,
                             f'No expert node can be asked ({state}); look at `moe status`.')

    def _forward(self, job: Job, name: str, goal: Any, text: list[str], relay: bool) -> Any:
        """Send to one node; raises ServerAway."""
        last = time.monotonic()

        def on_feedback(feedback: Any) -> None:
            nonlocal last
            last = time.monotonic()
            if not relay or job.chosen is None:
                return  # nobody sees it, so it may be asked again
            if feedback.partial_response.text:
                job.first_s = job.first_s or last - job.begin
                text.append(feedback.partial_response.text)
            feedback.confidence = job.chosen.decision.confidence
            feedback.abstained = job.chosen.decision.abstained
            job.publish(feedback)

        client = self._links.action(name, job.interface)

        def alive() -> bool:
            quiet = time.monotonic() - last > self._value('silence_s')
            return not (quiet and self._links.silent(name))

        return forward(client, goal, on_feedback, job.cancelled, self._value('expert_wait_s'), alive)

    def _ask_all(self, job: Job, prompt: str, members: list[tuple[str, float]]) -> Any:
        """Ask several experts one after the other; their answers become the best of them, or all signed."""
        joined = self._value('mixture') == 'concat'
        parts: list[tuple[Part, Any]] = []
        failed = None
        for name, weight in members:
            goal = copy.deepcopy(job.goal)
            goal.expert = name
            result = self._ask_node(job, goal, prompt, relay=False)
            if result.error_code:
                failed = failed or result
                continue
            text = self._text(result)
            part = Part(name, text, weight)
            if joined:
                self._stream(job, result, ('\n\n' if parts else '') + mixture.signed(part))
            else:
                node = self._sessions.find(job.goal.session).node or next(iter(self._links.replicas.usable(name)), '')
                if node:
                    part = Part(name, text, weight, self._links.likelihood(node, name, prompt, text))
            parts.append((part, result))
        if not parts:
            return failed
        if joined:
            result = parts[0][1]
            self._set_text(result, mixture.joined([part for part, _result in parts]))
            result.usage.completion_tokens = sum(one.usage.completion_tokens for _part, one in parts)
            return result
        best = mixture.best([part for part, _result in parts])
        result = next(found for part, found in parts if part is best)
        self._stream(job, result, best.text)
        return result

    def _stream(self, job: Job, result: Any, text: str) -> None:
        """Publish a piece of text that was held back."""
        job.first_s = job.first_s or time.monotonic() - job.begin
        assert job.chosen is not None
        job.publish(job.interface.Feedback(
            partial_response=PartialResponse(text=text), expert=result.expert, expert_version=result.expert_version,
            confidence=job.chosen.decision.confidence, abstained=job.chosen.decision.abstained))

    @staticmethod
    def _text(result: Any) -> str:
        if hasattr(result, 'response'):
            return str(result.response.text)
        return str(result.choices[0].message.content) if result.choices else ''

    @staticmethod
    def _set_text(result: Any, text: str) -> None:
        if hasattr(result, 'response'):
            result.response.text, result.response.tokens = text, []
        elif result.choices:
            result.choices = result.choices[:1]
            result.choices[0].message.content = text

    @staticmethod
    def _keep_text(result: Any, text: str) -> None:
        """Put what was streamed into a result that says that it is incomplete."""
        if not text:
            return
        if hasattr(result, 'response'):
            result.response.text = text
        else:
            choice = Choice(finish_reason='error')
            choice.message.role, choice.message.content = 'assistant', text
            result.choices = [choice]

    def _finish(self, job: Job, result: Any) -> None:
        """What every result carries; a motion is carried out; the outcome is put down."""
        chosen, goal = job.chosen, job.goal
        assert chosen is not None
        result.route, result.request_id = decision_message(chosen.decision, chosen.latency_s), goal.request_id
        result.expert = result.expert or chosen.decision.choice
        result.sources = note_messages(job.notes)
        if not result.error_code and self._value('act') and job.interface is GenerateResponse \
                and self._plays(result.expert, 'action_experts'):
            self._act(result, job.cancelled)
        self._recording.ended(result, goal.session, chosen.trial, time.monotonic() - job.begin, job.first_s)
        self._node.get_logger().info(
            f'Routed: request_id={result.request_id} expert={result.expert} version={result.expert_version} '
            f'{chosen.decision.stage}, confidence {chosen.decision.confidence:.2f}, {result.finish_reason}'
            + (f', error {result.error_code}: {result.error_msg}' if result.error_code else ''))

    def _act(self, result: Any, cancelled: Callable[[], bool]) -> None:
        """Carry out a motion command; its error becomes the result's."""
        goal = ExecuteMotion.Goal(command=result.response.text, request_id=result.request_id)
        try:
            done = forward(self._to_motion, goal, lambda _feedback: None, cancelled, 2.0)
            result.error_code, result.error_msg = done.error_code, done.error_msg
        except ServerAway as error:
            result.error_code, result.error_msg = ErrorCode.HARDWARE_ERROR, f'The motion node did not answer: {error}.'

    def choose_by_model(self, prompt: str, names: tuple[str, ...]) -> str:
        """Ask an expert which expert should answer (strategy `llm`); the grammar leaves it no other words."""
        goal = GenerateResponse.Goal(
            request_id=uuid.uuid4().hex[:16], expert=self._value('llm_expert') or self._value('fallback_expert'),
            prompt=f'Which of these topics is the question about: {", ".join(names)}, none?\n'
                   f'Question: {prompt[:LLM_PROMPT]}\nTopic:', max_tokens=24)
        goal.sampling_config.temp = 0.0
        goal.sampling_config.regex = '|'.join(map(re.escape, (*names, 'none')))
        job = Job(GenerateResponse, goal, lambda _feedback: None, lambda: False)
        name = self._wait_for_node(job, goal.expert, '', Attempts(1, wait_s=1.0))
        if name is None:
            return ''
        try:
            result = forward(self._links.action(name, GenerateResponse), goal, lambda _feedback: None,
                             lambda: time.monotonic() - job.begin > LLM_S, 1.0, lambda: not self._links.silent(name))
        except ServerAway:
            return ''
        return '' if result.error_code else str(result.response.text)

