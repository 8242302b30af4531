"""The action benchmark_expert."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from moe_experts.benchmarking import PERCENTILES, Load, held_out_score, measure_load, verdict
from moe_experts.engines.engine import EngineError, Request, Sampling
from moe_experts.pool import Loaded, Pool
from moe_interfaces.action import BenchmarkExpert
from moe_interfaces.msg import Expert, Metric

STREAMS = (1, 2, 4, 8)
_MOST = {'prompt_tokens': 1024, 'max_tokens': 512, 'repeats': 1000}


class Benchmark:
    """Serves benchmark_expert.

    Args:
        prefix: of the action's name.
        load: the loaded expert of a name, counted as running.
    """

    def __init__(self, node: Node, prefix: str, pool: Pool, load: Callable[[str], tuple[Loaded, Expert]],
                 group: CallbackGroup) -> None:
        self._pool, self._load = pool, load
        name = node.resolve_service_name(f'{prefix}/benchmark_expert')  # Jazzy remaps no topics of an action
        self._server = ActionServer(
            node, BenchmarkExpert, name, self._execute, callback_group=group,
            cancel_callback=lambda _handle: CancelResponse.ACCEPT)

    def _execute(self, handle: Any) -> Any:
        result = BenchmarkExpert.Result()
        try:
            loaded, expert = self._load(handle.request.expert)
            try:
                self._measure(handle, result, loaded, expert)
            finally:
                self._pool.give_back(loaded)
        except EngineError as error:
            result.error_code, result.error_msg = error.code, str(error)
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.error_code:
            handle.abort()
        else:
            handle.succeed()
        return result

    def _measure(self, handle: Any, result: Any, loaded: Loaded, expert: Expert) -> None:
        goal = handle.request
        for name, most in _MOST.items():
            if not 1 <= getattr(goal, name) <= most:
                raise EngineError(f'{name} is {getattr(goal, name)}; it must be 1..{most}.')
        streams = list(goal.streams) or list(STREAMS)
        if not all(1 <= count <= 64 for count in streams):
            raise EngineError(f'streams are {streams}; each must be 1..64.')
        system = (('system', expert.system_prompt),) if expert.system_prompt else ()
        like = Request(uuid.uuid4().hex, (*system, ('user', '')), adapter=loaded.adapter, max_tokens=goal.max_tokens,
                       json_schema=expert.output_schema, sampling=Sampling(temp=0.0), deadline=0.0)
        loads: list[Load] = []
        for index, count in enumerate(streams):
            self._tell(handle, f'{count} streams', index / (len(streams) + 1))
            loads.append(measure_load(loaded.worker, like, count, goal.prompt_tokens, goal.repeats))
        report: dict[str, Any] = {
            'expert': loaded.expert, 'version': loaded.version, 'prompt_tokens': goal.prompt_tokens,
            'max_tokens': goal.max_tokens, 'repeats': goal.repeats, 'loads': [asdict(load) for load in loads],
            'worker_resident_bytes': loaded.worker.resident_bytes(), 'adapter_bytes': loaded.bytes}
        result.metrics = [metric for load in loads for metric in _metrics(load)]
        result.metrics.append(Metric(name='worker_resident_mb', value=report['worker_resident_bytes'] / 1e6))
        if goal.heldout:
            share, rows = held_out_score(
                loaded.worker, like, Path(goal.heldout),
                lambda part: self._tell(handle, 'held-out', (len(streams) + part) / (len(streams) + 1)))
            report['exact'], report['heldout_rows'] = share, rows
            result.metrics.append(Metric(name='exact', value=share))
        result.verdict = report['verdict'] = verdict(min(loads, key=lambda load: load.streams).tokens_per_s)
        result.report = json.dumps(report)

    @staticmethod
    def _tell(handle: Any, phase: str, progress: float) -> None:
        """Report progress; raises EngineError (3003) when nobody wants to know any more."""
        if handle.is_cancel_requested:
            raise EngineError('Cancelled.', 3003)
        handle.publish_feedback(BenchmarkExpert.Feedback(phase=phase, progress=progress))


def _metrics(load: Load) -> list[Metric]:
    """A load as metrics, durations in seconds."""
    found = [Metric(name=f'tokens_per_s_{load.streams}', value=load.tokens_per_s)]
    for name in ('first_token_s', 'answer_s'):
        found += [Metric(name=f'{name}_p{percent}_{load.streams}', value=value)
                  for percent, value in zip(PERCENTILES, getattr(load, name), strict=True)]
    return found
