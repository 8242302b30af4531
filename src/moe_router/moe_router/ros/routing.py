"""Decisions of the node: the core's router with what parameters, registry and expert nodes say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node

from moe_interfaces.msg import ErrorCode
from moe_router.policy import Decision, Limits, certain
from moe_router.ros.conversions import decision_message
from moe_router.ros.expert_links import ExpertLinks
from moe_router.ros.registry_link import RegistryLink
from moe_router.ros.retraining import Retraining
from moe_router.router import NotFitted, Router, blank
from moe_router.sessions import side
from moe_router.statistics import Statistics


class RouteError(Exception):
    """A prompt that cannot be routed."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Chosen:
    """A decision, the seconds it took, the prompt's vector where there is one, the trial it belongs to (0 = none)."""

    decision: Decision
    latency_s: float
    vector: NDArray[np.float32] | None = None
    trial: int = 0


class Routing:
    """Decides for every endpoint."""

    def __init__(self, node: Node, router: Router, registry: RegistryLink, retraining: Retraining,
                 links: ExpertLinks) -> None:
        self._node, self._router, self._registry = node, router, registry
        self._retraining, self._links = retraining, links
        self.statistics = Statistics()

    def limits(self) -> Limits:
        """The thresholds that are set now."""
        get = self._node.get_parameter
        return Limits(get('fallback_expert').value, get('confidence_threshold').value, get('margin').value)

    def version(self) -> int:
        """Number of the fit that decides."""
        return self._retraining.number

    def role(self, name: str) -> str:
        """The expert that one stands for: a candidate for its base, every other for itself."""
        return self._registry.table.role(name)

    def bases(self) -> dict[str, str]:
        """Digest of the base that each expert stands on; '' = not known yet."""
        return {name: row.base for name, row in self._registry.table.experts.items()}

    def encode(self, text: str) -> NDArray[np.float32]:
        """Unit vector (384,) of a text."""
        return self._router.encoder.encode([text])[0]

    def available(self) -> set[str]:
        """Experts that the router may choose now: they can answer, and some node that is there can load them."""
        found = self._registry.table.routable()
        usable = self._links.replicas.usable
        # without any node the request waits for one; only what all of them failed to load is passed over
        return {name for name in found if usable(name)} or found

    def choose(self, prompt: str, named: str = '', key: str = '', favoured: str = '') -> Chosen:
        """Decide.

        Args:
            named: the caller wants this expert.
            key: session or request, which decides the side of a trial.
            favoured: expert that the conversation is with.
        Raises RouteError.
        """
        if blank(prompt):
            raise RouteError('The prompt is empty; ask something.', ErrorCode.INVALID_REQUEST)
        table = self._registry.table
        if named:
            if table.experts and named not in table.experts:
                raise RouteError(f'Expert with name={named} not found', ErrorCode.EXPERT_NOT_FOUND)
            return Chosen(certain(named, 'named'), 0.0)
        available = self.available()
        if not available:
            if not table.experts:
                raise RouteError('The registry has not named its experts yet; ask again in a few seconds.',
                                 ErrorCode.EXPERT_NOT_READY)
            loading = sorted(self._links.replicas.loading() | set(table.waiting()))
            raise RouteError(f'No expert can answer yet; loading or without a version: {", ".join(loading) or "none"}.',
                             ErrorCode.EXPERT_NOT_READY)
        try:
            routed = self._router.route(prompt, available, self.limits(),
                                        self._node.get_parameter('router.strategy').value, table.categories(), favoured)
        except NotFitted:
            raise RouteError('The router is still learning from the registry\'s samples; ask again in a few seconds.',
                             ErrorCode.EXPERT_NOT_READY) from None
        decision, trial = self._assign(routed.decision, key)
        self.statistics.add(decision, routed.latency_s, routed.vector)
        return Chosen(decision, routed.latency_s, routed.vector, trial)

    def _assign(self, decision: Decision, key: str) -> tuple[Decision, int]:
        """Apply a running trial of the chosen expert; the id of the trial, 0 = none."""
        trial = self._registry.table.trials.get(decision.choice)
        if trial is None or not key:
            return decision, 0
        chosen = side(trial, key)
        row = self._registry.table.experts.get(chosen)
        if chosen != trial.control and (row is None or not row.answers):
            return decision, 0  # the candidate cannot answer now, so this request is no part of the trial
        return replace(decision, choice=chosen), trial.id

    def route_prompt(self, request: Any, response: Any) -> Any:
        """Serve RoutePrompt."""
        try:
            chosen = self.choose(request.prompt, '', request.session or request.request_id)
            response.decision = decision_message(chosen.decision, chosen.latency_s)
            row = self._registry.table.experts.get(chosen.decision.choice)
            response.expert_version = row.version if row is not None else 0
        except RouteError as error:
            response.error_code, response.error_msg = error.code, str(error)
        return response

    def explain(self, request: Any, response: Any) -> Any:
        """Serve ExplainRoute."""
        if blank(request.prompt):
            response.error_code, response.error_msg = ErrorCode.INVALID_REQUEST, 'The prompt is empty; ask something.'
            return response
        table, limits = self._registry.table, self.limits()
        strategy = self._node.get_parameter('router.strategy').value
        try:
            routed = self._router.route(request.prompt, self.available(), limits, strategy, table.categories())
        except NotFitted:
            response.error_code = ErrorCode.EXPERT_NOT_READY
            response.error_msg = 'The router has not learned yet; ask again in a few seconds.'
            return response
        response.decision = decision_message(routed.decision, routed.latency_s)
        response.explanation = json.dumps({
            **self._router.explain(request.prompt, routed, limits), 'strategy': strategy,
            'router_version': self.version(), 'available': sorted(self.available())})
        return response

    def stats(self, _request: Any, response: Any) -> Any:
        """Serve GetRouterStats."""
        found, table, head = self.statistics, self._registry.table, self._router.head
        names = sorted(found.selections)
        response.requests, response.abstained = found.requests, found.abstained
        response.experts, response.selections = names, [found.selections[name] for name in names]
        response.mean_confidence = [found.mean_confidence(name) for name in names]
        response.strategy = self._node.get_parameter('router.strategy').value
        response.router_version, response.threshold = self.version(), self.limits().threshold
        report = found.report(head, sorted(table.routable()))
        labelled: Sequence[Any] = self._registry.corrected()
        report['labelled'] = len(labelled)
        report['accuracy'] = sum(row.corrected == row.decision.choice for row in labelled) / len(labelled) \
            if labelled else None
        report['registry_away'] = self._registry.away
        report['nodes'] = dict(self._links.replicas.state())
        if head is not None:
            fit = json.loads(head.report)
            report['fit'] = {name: fit[name] for name in ('samples', 'accuracy', 'macro_f1', 'ece', 'ood_recall',
                                                          'domains') if fit.get(name) == fit.get(name)}
        response.report = json.dumps(report)
        return response
