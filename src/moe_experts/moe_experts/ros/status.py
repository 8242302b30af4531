"""What an expert node says of itself: status at 1 Hz and on change, and diagnostics."""

from __future__ import annotations

import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from moe_experts.pool import Loaded, Pool
from moe_experts.response_cache import ResponseCache
from moe_experts.ros.answers import Answers
from moe_experts.ros.diagnostics import diagnose
from moe_interfaces.msg import ExpertStatus, ServingStatus


class Status:
    """Publishes the topic status.

    Args:
        prefix: of the topic's name.
        queue_limit: of every worker's engine.
    """

    def __init__(self, node: Node, prefix: str, pool: Pool, cache: ResponseCache, answers: Answers,
                 queue_limit: int) -> None:
        self._node, self._pool, self._cache, self._answers = node, pool, cache, answers
        self._queue_limit = queue_limit
        self._replica = node.get_parameter('replica').value
        self._rate = (time.monotonic(), 0, 0.0)
        self._publisher = node.create_publisher(ServingStatus, f'{prefix}/status', 10)
        # goals block a thread each while their worker answers; what is published must not wait for them
        group = MutuallyExclusiveCallbackGroup()
        node.create_timer(1.0, self._tick, callback_group=group)
        self._diagnostics = diagnose(node, 'serving', self._diagnose, group)

    def _tick(self) -> None:
        self._pool.expire()
        self._answers.cancel_abandoned()
        now, (then, before, _rate) = time.monotonic(), self._rate
        pieces = sum(worker.pieces for worker in self._pool.workers())
        # a worker that ended takes its count with it
        self._rate = (now, pieces, max(0, pieces - before) / max(1e-3, now - then))
        self.publish()

    def publish(self) -> None:
        """Say how things are now."""
        workers, loaded = self._pool.workers(), self._pool.loaded()
        self._publisher.publish(ServingStatus(
            stamp=self._node.get_clock().now().to_msg(), node=self._node.get_fully_qualified_name(),
            replica=self._replica, experts=[expert_status(one) for one in loaded],
            running=sum(worker.running for worker in workers), queue_depth=sum(worker.waiting for worker in workers),
            queue_limit=self._queue_limit, tokens_per_second=self._rate[2],
            memory_bytes=sum(worker.resident_bytes() for worker in workers),
            worker_pids=[worker.pid for worker in workers], evictions=self._pool.evictions,
            cache_hits=self._cache.hits, worker_restarts=sum(worker.restarts for worker in workers)))

    def _diagnose(self) -> tuple[bytes, str, dict[str, str]]:
        workers = self._pool.workers()
        restarts = sum(worker.restarts for worker in workers)
        level, sentence = DiagnosticStatus.OK, 'Serving.'
        if any(worker.failed for worker in workers):
            level, sentence = DiagnosticStatus.ERROR, 'A worker cannot be started; the log says why.'
        elif restarts:
            level, sentence = DiagnosticStatus.WARN, f'Workers had to be started again {restarts} times.'
        return level, sentence, {
            'experts': ' '.join(f'{one.expert}@{one.version}' for one in self._pool.loaded()),
            'running': str(sum(worker.running for worker in workers)),
            'waiting': str(sum(worker.waiting for worker in workers)), 'restarts': str(restarts),
            'evictions': str(self._pool.evictions), 'cache_hits': str(self._cache.hits),
            'tokens_per_second': f'{self._rate[2]:.1f}'}


def expert_status(loaded: Loaded) -> Any:
    """One loaded expert."""
    state = ExpertStatus.LOADING
    if loaded.ready.done():
        state = ExpertStatus.BUSY if loaded.running else ExpertStatus.READY
    return ExpertStatus(expert=loaded.expert, version=loaded.version, memory_bytes=loaded.bytes,
                        running=loaded.running, pinned=loaded.pinned, state=state)
