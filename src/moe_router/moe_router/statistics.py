"""What the router chose since it started: by expert, by stage, how sure, and whether prompts drift away."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_router.classifier import Head
from moe_router.policy import Decision

_MEMORY = 0.005  # weight of the newest vector in the moving mean: about the last 200 prompts


class Statistics:
    """Counts decisions; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = self.abstained = 0
        self.selections: Counter[str] = Counter()
        self.stages: Counter[str] = Counter()
        self._confidences: dict[str, float] = {}
        self._latencies_s = 0.0
        self._mean: NDArray[np.float32] | None = None
        self._vectors = 0

    def add(self, decision: Decision, latency_s: float, vector: NDArray[np.float32] | None) -> None:
        """Count one decision and, where the encoder ran, its prompt's vector."""
        with self._lock:
            self.requests += 1
            self.abstained += decision.abstained
            self.selections[decision.choice] += 1
            self.stages[decision.stage] += 1
            self._confidences[decision.choice] = self._confidences.get(decision.choice, 0.0) + decision.confidence
            self._latencies_s += latency_s
            if vector is not None:
                self._vectors += 1
                rate = max(_MEMORY, 1 / self._vectors)
                self._mean = vector.copy() if self._mean is None else (1 - rate) * self._mean + rate * vector

    def mean_confidence(self, expert: str) -> float:
        """Mean confidence of the decisions for an expert; 0 where there are none."""
        return self._confidences.get(expert, 0.0) / max(1, self.selections[expert])

    def report(self, head: Head | None, experts: list[str]) -> dict[str, Any]:
        """Shares of the stages, experts that nobody asked, drift.

        `drift` is the distance between the moving mean of prompts and the mean of the samples, in the samples' mean
        distance to it; what the mean of so few prompts scatters by chance is taken off. Above about 0.3 people ask
        something else than the router learned from.
        """
        with self._lock:
            drift = None
            if head is not None and self._mean is not None and self._vectors >= 20:
                chance = 1 / np.sqrt(min(self._vectors, 2 / _MEMORY))
                away = float(np.linalg.norm(self._mean - head.centre)) / max(head.spread, 1e-6)
                drift = max(0.0, away - float(chance))
            return {
                'stages': {stage: count / self.requests for stage, count in self.stages.items()},
                'unused': [name for name in experts if not self.selections[name]],
                'mean_latency_s': self._latencies_s / max(1, self.requests), 'drift': drift}
