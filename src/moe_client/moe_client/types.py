"""What the SDK returns: plain values, free of ROS."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Route:
    """Which expert should answer.

    Attributes:
        confidence: calibrated probability of the best expert, 0..1.
        ranked: (expert, probability) of every routable expert, best first.
        abstained: nobody is sure enough; `choice` is the fallback expert.
    """

    choice: str
    confidence: float
    ranked: tuple[tuple[str, float], ...]
    abstained: bool
    stage: str
    latency_s: float


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed answer; the first one has no text and says who answers."""

    text: str
    expert: str
    expert_version: int
    confidence: float
    abstained: bool


@dataclass(frozen=True)
class Generation:
    """A whole answer. Durations in seconds, counts in tokens."""

    text: str
    finish_reason: str
    expert: str
    expert_version: int
    route: Route
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    first_token_s: float
    total_s: float
    tokens_per_second: float
    request_id: str


@dataclass(frozen=True)
class ExpertInfo:
    """An expert as the registry knows it."""

    id: int
    name: str
    domain: str
    category: str
    description: str
    status: str
    fallback: bool
    champion_version: int
    versions: tuple[dict[str, Any], ...] = field(default=())


@dataclass(frozen=True)
class TrainingProgress:
    """A sign of life of a training job; the last one has phase "done" and the version."""

    phase: str
    step: int
    total_steps: int
    loss: float
    tokens_per_second: float
    eta_s: float
    version: int = 0
    artifact_path: str = ''
    metrics: dict[str, float] = field(default_factory=dict)
