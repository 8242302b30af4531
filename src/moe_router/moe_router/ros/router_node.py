"""router_node: one place to ask; it routes, forwards, relays the stream and hands motions on."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.action import CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.time import Duration

from moe_interfaces.action import ExecuteMotion, GenerateChatCompletions, GenerateResponse
from moe_interfaces.srv import CorrectRoute, ExplainRoute, GetRouterStats, Infer, RoutePrompt
from moe_router.encoder import Encoder
from moe_router.kept_notes import KeptNotes
from moe_router.kept_vectors import KeptVectors
from moe_router.notes import NoteIndex
from moe_router.ros.action_client import SERVICE_QOS
from moe_router.ros.answering import MOST_AT_ONCE, Answering
from moe_router.ros.diagnostics import diagnose
from moe_router.ros.expert_links import ACTIONS, ExpertLinks
from moe_router.ros.parameters import declare, refusal
from moe_router.ros.quick_endpoints import QuickEndpoints
from moe_router.ros.recording import Recording
from moe_router.ros.registry_link import RegistryLink
from moe_router.ros.retraining import Retraining
from moe_router.ros.robot_topics import RobotTopics
from moe_router.ros.routing import Routing
from moe_router.ros.spinning import spin
from moe_router.router import Router
from moe_router.rules import Rules

# Threads are made as they are needed: one per answer that is relayed, some for what it waits for.
MOST_GOALS = THREADS = MOST_AT_ONCE + 16


class RouterNode(Node):  # type: ignore[misc]
    """Serves route_prompt, infer, both generation actions, retrain_router, correct_route and router/*."""

    def __init__(self) -> None:
        super().__init__('router', enable_logger_service=True)
        declare(self)
        self.add_on_set_parameters_callback(refusal)
        home = Path(os.environ.get('MOE_HOME') or '~/.local/share/moe').expanduser().absolute()
        self._stop = threading.Event()
        # Services that wait for an answer block a thread each.
        waiting, timers = ReentrantCallbackGroup(), MutuallyExclusiveCallbackGroup()
        # apart from each other, because a decision may wait for a model's answer
        self._decisions = QuickEndpoints(self, 'quick')
        self._actions = QuickEndpoints(self, 'actions', MOST_GOALS)
        # one thread a prompt: two take a third more of the cores for the same, and the experts want them
        self._router = Router(Encoder(home / 'models', threads=1),
                              lambda prompt, names: self._answering.choose_by_model(prompt, names))
        if path := self.get_parameter('routes_file').value:
            try:
                self._router.rules = Rules.load(Path(path))
            except OSError as error:
                raise ValueError(f'routes_file cannot be read: {error}') from error
        kept = KeptVectors(self._router.encoder.encode, home / 'router' / 'note_vectors.npz',
                           self._router.encoder.name, self._stop.is_set)
        notes = NoteIndex(kept.encode)
        self._registry = RegistryLink(self, home / 'router' / 'table.json', self._stop,
                                      lambda: self._retraining.refresh(),
                                      KeptNotes(notes, home / 'router' / 'notes', kept.knows))
        self._links = ExpertLinks(self, self._actions, self.get_parameter('expert_nodes').value,
                                  self.get_parameter('cool_down_s').value, self._stop)
        self._retraining = Retraining(self, self._router, self._registry, home / 'router', self._stop)
        self._routing = Routing(self, self._router, self._registry, self._retraining, self._links)
        self._recording = Recording(self, self._registry, self._stop)
        self._robot = RobotTopics(self)
        self._answering = Answering(self, self._routing, self._links, self._recording, notes, self._robot,
                                    self._actions.action_client('execute_motion', ExecuteMotion))
        for name, interface in ACTIONS.items():
            self._actions.action(name, interface, self._execute, lambda _goal: CancelResponse.ACCEPT)
        for name, interface, handle in (
                ('infer', Infer, self._infer),
                ('correct_route', CorrectRoute, self._recording.correct),
                ('router/explain', ExplainRoute, self._routing.explain),
                ('router/stats', GetRouterStats, self._routing.stats)):
            self.create_service(interface, name, handle, qos_profile=SERVICE_QOS, callback_group=waiting)
        self._decisions.service('route_prompt', RoutePrompt, self._routing.route_prompt)
        self._decisions.start()
        self._actions.start()
        self._diagnostics = diagnose(self, 'routing', self._diagnose, timers)
        self._retraining.start()
        self._registry.start()
        self._recording.start()

    def close(self) -> None:
        """Stop the threads; a running fit ends with them."""
        self._stop.set()
        self._answering.close()
        self._actions.close()
        self._decisions.close()
        self._registry.close()
        self._retraining.close()
        self._recording.close()
        self._robot.close()

    def _execute(self, handle: ServerGoalHandle) -> Any:
        goal = handle.request
        interface = GenerateChatCompletions if hasattr(goal, 'messages') else GenerateResponse
        result = self._answering.answer(interface, goal, handle.publish_feedback,
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
        result = self._answering.answer(GenerateResponse, goal, lambda _feedback: None, self._stop.is_set)
        for name in response.get_fields_and_field_types():
            if hasattr(result, name):
                setattr(response, name, getattr(result, name))
        response.text = result.response.text
        return response

    def _diagnose(self) -> tuple[bytes, str, dict[str, str]]:
        head = self._router.head
        level, sentence = DiagnosticStatus.OK, 'Routing.'
        if head is None:
            level, sentence = DiagnosticStatus.ERROR, 'The router has learned from no samples yet.'
        elif self._registry.away:
            level, sentence = DiagnosticStatus.WARN, 'The registry is away; the last known table of experts serves on.'
        elif not self._links.replicas.usable():
            level, sentence = DiagnosticStatus.WARN, 'No expert node can be asked.'
        lost = self._recording.routes.lost + self._recording.outcomes.lost
        return level, sentence, {
            'router_version': str(self._routing.version()), 'requests': str(self._routing.statistics.requests),
            'experts': ' '.join(sorted(self._registry.table.routable())),
            'records_waiting': str(len(self._recording.routes) + len(self._recording.outcomes)),
            'records_lost': str(lost), **{f'node {name}': how for name, how in self._links.replicas.state().items()}}


def main() -> None:
    """Run the node."""
    spin(RouterNode, THREADS)
