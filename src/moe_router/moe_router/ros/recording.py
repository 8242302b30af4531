"""Decisions and outcomes to the registry: put down at once, sent in batches by a thread of their own."""

from __future__ import annotations

import math
import threading
from typing import Any

from rclpy.node import Node

from moe_interfaces.msg import ErrorCode, Outcome, RouteRecord
from moe_interfaces.srv import CorrectRoute
from moe_router.policy import Decision
from moe_router.records import Outbox, RecentPrompts, digest
from moe_router.ros.conversions import decision_message
from moe_router.ros.registry_link import RegistryLink
from moe_router.router import LONGEST

EVERY_S = 1.0


class Recording:
    """Keeps what happened on its way to the registry; what the registry does not take waits."""

    def __init__(self, node: Node, registry: RegistryLink, stop: threading.Event) -> None:
        self._node, self._registry, self._stop = node, registry, stop
        self.routes: Outbox[RouteRecord] = Outbox(registry.record_routes)
        self.outcomes: Outbox[Outcome] = Outbox(registry.record_outcomes)
        self._prompts = RecentPrompts()
        self._sending = threading.Lock()
        self._thread = threading.Thread(target=self._send, name='records')

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; what waits is lost with the process."""
        if self._thread.is_alive():
            self._thread.join()

    def _send(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.flush()

    def flush(self) -> None:
        """Send what waits; decisions first, outcomes refer to them."""
        with self._sending:
            if self.routes.flush():
                self.outcomes.flush()

    def decided(self, request_id: str, session: str, prompt: str, decision: Decision, latency_s: float,
                version: int) -> None:
        """Record a decision; the text itself is kept by parameter only."""
        kept = prompt[:LONGEST] if self._node.get_parameter('keep_prompts').value else ''
        self._prompts.keep(request_id, prompt)
        self.routes.add(RouteRecord(
            request_id=request_id, session=session, prompt_digest=digest(prompt), prompt=kept,
            decision=decision_message(decision, latency_s), router_version=version,
            stamp=self._node.get_clock().now().to_msg()))

    def ended(self, result: Any, session: str, trial: int, latency_s: float, first_token_s: float) -> None:
        """Record what became of a request; `result` is that of either generation action."""
        self.outcomes.add(Outcome(
            request_id=result.request_id, session=session, expert=result.expert, version=result.expert_version,
            ab_test_id=trial, success=not result.error_code, error_code=result.error_code,
            finish_reason=result.finish_reason, latency_s=latency_s, first_token_s=first_token_s or math.nan,
            completion_tokens=result.usage.completion_tokens, stamp=self._node.get_clock().now().to_msg()))

    def correct(self, request: CorrectRoute.Request, response: Any) -> Any:
        """Pass a correction on; the router knows the text of the last prompts where the registry does not keep it."""
        prompt = self._prompts.find(request.request_id)
        self.flush()  # the decision may not have been sent yet
        found = self._registry.correct(request)
        if found is None:
            response.error_code = ErrorCode.DATABASE_UNAVAILABLE
            response.error_msg = 'The registry does not answer, so the correction is not kept; look at `moe status`.'
            return response
        response.error_code, response.error_msg = found.error_code, found.error_msg
        if not found.error_code and prompt and not self._node.get_parameter('keep_prompts').value:
            self._registry.add_samples([(request.expert, '', prompt)], 'correction')
        return response
