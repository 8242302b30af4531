"""The expert nodes: their actions, scores and what they say of themselves."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node

from moe_interfaces.action import GenerateChatCompletions, GenerateResponse
from moe_interfaces.msg import ExpertStatus, ServingStatus
from moe_interfaces.srv import Score
from moe_router.replicas import Replicas, Report
from moe_router.ros.action_client import SERVICE_QOS, MeetingActionClient
from moe_router.ros.calls import ask
from moe_router.ros.quick_endpoints import QuickEndpoints

STALE_S = 5.0  # an expert node reports once a second
ACTIONS = {'generate_response': GenerateResponse, 'generate_chat_completions': GenerateChatCompletions}


class ExpertLinks:
    """Clients of every expert node.

    Args:
        endpoints: where goals are sent from.
        names: prefixes of the nodes' endpoints, for example "experts" or "arm/experts".
        rest_s: how long a node that failed is left alone [s].
    """

    def __init__(self, node: Node, endpoints: QuickEndpoints, names: Sequence[str], rest_s: float,
                 stop: threading.Event) -> None:
        self._stop = stop
        self._heard: dict[str, float] = {}
        answers, status = ReentrantCallbackGroup(), MutuallyExclusiveCallbackGroup()
        self._actions = {(prefix, interface): endpoints.action_client(f'{prefix}/{action}', interface)
                         for prefix in names for action, interface in ACTIONS.items()}
        self._scores = {prefix: node.create_client(Score, f'{prefix}/score', qos_profile=SERVICE_QOS,
                                                   callback_group=answers) for prefix in names}
        self.replicas = Replicas(names, self._reachable, time.monotonic, STALE_S, rest_s)
        for prefix in names:
            node.create_subscription(
                ServingStatus, f'{prefix}/status',
                lambda message, prefix=prefix: self._on_status(prefix, message), 10, callback_group=status)

    def action(self, prefix: str, interface: Any) -> MeetingActionClient:
        """The client of an action of a node."""
        return self._actions[prefix, interface]

    def _reachable(self, prefix: str) -> bool:
        return bool(self._actions[prefix, GenerateResponse].server_is_ready())

    def silent(self, prefix: str) -> bool:
        """Whether a node has not reported of late."""
        return time.monotonic() - self._heard.get(prefix, 0.0) > STALE_S

    def _on_status(self, prefix: str, message: ServingStatus) -> None:
        now = time.monotonic()
        self._heard[prefix] = now
        self.replicas.hear(prefix, Report(
            message.running, message.queue_depth, message.queue_limit, now,
            frozenset(one.expert for one in message.experts if one.state == ExpertStatus.FAILED),
            frozenset(one.expert for one in message.experts if one.state == ExpertStatus.LOADING)))

    def likelihood(self, prefix: str, expert: str, prompt: str, text: str) -> float:
        """Mean log-likelihood of an expert's answer per token [nats]; NaN where it cannot be had."""
        response = ask(self._scores[prefix], Score.Request(expert=expert, prompt=prompt, texts=[text]), self._stop)
        if response is None or response.error_code or not response.n_tokens or not response.n_tokens[0]:
            return float('nan')
        return float(response.log_likelihoods[0] / response.n_tokens[0])
