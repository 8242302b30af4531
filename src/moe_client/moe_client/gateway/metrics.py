"""Prometheus metrics: what the gateway measures itself, and what it observes on the graph."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from moe_client.gateway.observations import Observations
from moe_client.transport import Values

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each series
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """Counters and histograms of requests and generations."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter('moe_requests', 'HTTP requests.', ('route', 'method', 'status'),
                                registry=self.registry)
        self.request_latency = Histogram('moe_request_latency_seconds', 'Arrival to the end of the response.',
                                         ('route',), buckets=SECONDS, registry=self.registry)
        self.stage_latency = Histogram(
            'moe_stage_latency_seconds', 'Stages of generations: route, queue, first_token, per_token, total.',
            ('stage',), buckets=SECONDS, registry=self.registry)
        self.tokens = Counter('moe_tokens', 'Tokens of generations by kind: prompt, completion, cached.',
                              ('expert', 'kind'), registry=self.registry)
        self.generations = Counter('moe_generations', 'Generations that ended.', ('expert', 'finish_reason'),
                                   registry=self.registry)
        self.cached_answers = Counter('moe_cached_answers', 'Answers taken from the response cache.',
                                      registry=self.registry)

    def generation(self, result: Values) -> None:
        """Count a result of GenerateResponse or GenerateChatCompletions."""
        timings, usage, expert = result['timings'], result['usage'], result['expert']
        stages = {'route': result['route']['latency_s'], 'queue': timings['queue_s'],
                  'first_token': timings['first_token_s'], 'total': timings['total_s']}
        if timings['tokens_per_second']:
            stages['per_token'] = 1.0 / timings['tokens_per_second']
        for stage, seconds in stages.items():
            if seconds is not None:
                self.stage_latency.labels(stage).observe(seconds)
        for kind in ('prompt', 'completion', 'cached'):
            self.tokens.labels(expert, kind).inc(usage[f'{kind}_tokens'])
        self.generations.labels(expert, result['finish_reason']).inc()
        if result['cached']:
            self.cached_answers.inc()

    def failed_generation(self, expert: str, kind: str) -> None:
        """Count a generation that ended with an error."""
        self.generations.labels(expert or 'auto', kind).inc()


class GraphCollector(Collector):
    """Gauges and counters of the nodes, from what they publish."""

    def __init__(self, observations: Observations) -> None:
        self._observations = observations

    def collect(self) -> Iterator[Any]:
        """All of them, as last seen."""
        yield from self._serving()
        yield from self._servos()
        yield from self._training()
        yield from self._router()
        up = GaugeMetricFamily('moe_node_up', 'Whether a node of the suite is on the graph.', labels=('node',))
        for name, alive in self._observations.nodes().items():
            up.add_metric((name,), float(alive))
        yield up

    def _serving(self) -> Iterator[Any]:
        rows = self._observations.serving()
        names = {'queue_depth': 'Requests waiting.', 'running': 'Requests in the batch.',
                 'tokens_per_second': 'Generated in the last second.'}
        for name, text in names.items():
            yield GaugeMetricFamily(f'moe_{name}', text, value=sum(row[name] or 0.0 for row in rows))
        yield GaugeMetricFamily('moe_serving_memory_bytes', 'Resident in the workers.',
                                value=sum(row['memory_bytes'] for row in rows))
        counters = {'evictions': 'Experts that made room.', 'cache_hits': 'Answers from the response cache.',
                    'worker_restarts': 'Workers that died.'}
        for name, text in counters.items():
            yield CounterMetricFamily(f'moe_{name}', text, value=sum(row[name] for row in rows))
        loaded = [expert for row in rows for expert in row['experts'] if expert['state'] in ('ready', 'busy')]
        yield GaugeMetricFamily('moe_experts_loaded', 'Experts that can answer at once.', value=len(loaded))
        memory = GaugeMetricFamily('moe_expert_memory_bytes', 'Freed by unloading it.', labels=('expert',))
        for expert in loaded:
            memory.add_metric((expert['expert'],), expert['memory_bytes'])
        yield memory

    def _servos(self) -> Iterator[Any]:
        states = self._observations.servos() or {'servos': [], 'estop': False}
        errors = CounterMetricFamily('moe_bus_errors', 'Failed transfers on the servo bus.', labels=('joint',))
        temperature = GaugeMetricFamily('moe_servo_temperature_celsius', 'Of each servo.', labels=('joint',))
        voltage = GaugeMetricFamily('moe_servo_voltage_volts', 'Of each servo.', labels=('joint',))
        for servo in states['servos']:
            errors.add_metric((servo['joint'],), servo['comm_errors'])
            temperature.add_metric((servo['joint'],), _number(servo['temperature']))
            voltage.add_metric((servo['joint'],), _number(servo['voltage']))
        yield from (errors, temperature, voltage)
        yield GaugeMetricFamily('moe_estop', 'Whether the e-stop is latched.', value=float(states['estop']))

    def _training(self) -> Iterator[Any]:
        labels = ('job',)
        gauges = {'step': GaugeMetricFamily('moe_training_step', 'Optimiser steps done.', labels=labels),
                  'loss': GaugeMetricFamily('moe_training_loss', 'Of the last step, nats per token.', labels=labels),
                  'tokens_per_second': GaugeMetricFamily('moe_training_tokens_per_second', 'Of the last step.',
                                                         labels=labels)}
        for job, progress in self._observations.training().items():
            for name, gauge in gauges.items():
                gauge.add_metric((str(job),), _number(progress[name]))
        yield from gauges.values()

    def _router(self) -> Iterator[Any]:
        stats = self._observations.router_stats()
        chosen = CounterMetricFamily('moe_router_selections', 'Prompts given to each expert.', labels=('expert',))
        for name, count in zip(stats.get('experts', ()), stats.get('selections', ())):
            chosen.add_metric((name,), count)
        yield chosen
        yield CounterMetricFamily('moe_router_requests', 'Prompts that were routed.', value=stats.get('requests', 0))
        yield CounterMetricFamily('moe_router_abstained', 'Prompts out of every domain.',
                                  value=stats.get('abstained', 0))


def scraped(metrics: Metrics | None, observations: Observations) -> CollectorRegistry:
    """The registry that /metrics shows; without `metrics` those of every worker process are merged."""
    if metrics is not None:
        registry = metrics.registry
    else:
        registry = CollectorRegistry()
        MultiProcessCollector(  # type: ignore[no-untyped-call]
            registry, os.environ['PROMETHEUS_MULTIPROC_DIR'])
    registry.register(GraphCollector(observations))
    return registry


def _number(value: float | None) -> float:
    return float('nan') if value is None else float(value)
