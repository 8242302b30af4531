"""What the SDK returns: plain values, free of ROS."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

Values = Mapping[str, Any]


class Parsed:
    """A dataclass that is made from an operation's result, by the names of its fields."""

    @classmethod
    def of(cls, values: Values) -> Self:
        """Make one; values without a field are left out."""
        return cls(**{entry.name: values[entry.name] for entry in fields(cls)  # type: ignore[arg-type]
                      if entry.name in values})


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

    @classmethod
    def of(cls, values: Values) -> Self:
        """Make one from a RouteDecision."""
        return cls(values['choice'], values['confidence'], tuple(zip(values['ranked'], values['probabilities'])),
                   values['abstained'], values['stage'], values['latency_s'])


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed answer; the first one has no text and says who answers."""

    text: str
    expert: str
    expert_version: int
    confidence: float
    abstained: bool

    @classmethod
    def of(cls, values: Values) -> Self:
        """Make one from a feedback of GenerateResponse."""
        return cls(values['partial_response']['text'], values['expert'], values['expert_version'],
                   values['confidence'], values['abstained'])

    def __str__(self) -> str:
        """The text alone, so that print(chunk) shows the answer."""
        return self.text


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
    cached: bool = False
    sources: tuple[dict[str, Any], ...] = ()

    @property
    def doubtful(self) -> bool:
        """Whether several notes were about as near, so that another than the one that was read may be meant."""
        return len(self.sources) > 1

    @classmethod
    def of(cls, values: Values) -> Self:
        """Make one from a result of GenerateResponse or of GenerateChatCompletions."""
        usage, timings = values['usage'], values['timings']
        text = values['response']['text'] if 'response' in values else values['choices'][0]['message']['content']
        return cls(
            text=text, finish_reason=values['finish_reason'], expert=values['expert'],
            expert_version=values['expert_version'], route=Route.of(values['route']),
            prompt_tokens=usage['prompt_tokens'], completion_tokens=usage['completion_tokens'],
            cached_tokens=usage['cached_tokens'], first_token_s=number(timings['first_token_s']),
            total_s=timings['total_s'], tokens_per_second=timings['tokens_per_second'],
            request_id=values['request_id'], cached=values['cached'], sources=tuple(values['sources']))


@dataclass(frozen=True)
class ExpertInfo(Parsed):
    """An expert as the registry knows it; `versions` only where they were asked for, newest first."""

    id: int
    name: str
    domain: str
    category: str
    description: str
    status: str
    fallback: bool
    champion_version: int
    routable: bool = True
    base_expert: str = ''
    aliases: tuple[dict[str, Any], ...] = ()
    system_prompt: str = ''
    max_tokens: int = 0
    row_version: int = 0
    versions: tuple[dict[str, Any], ...] = field(default=())

    @classmethod
    def with_versions(cls, values: Values, versions: list[dict[str, Any]]) -> Self:
        """Make one from an Expert and its ExpertVersions."""
        return cls.of({**values, 'versions': tuple(version(row) for row in versions)})


def version(row: Values) -> dict[str, Any]:
    """An ExpertVersion as a flat row."""
    names = {'number': 'version', 'parameter_count': 'parameters', 'artifact_path': 'artifact'}
    kept = ('number', 'kind', 'backend', 'quantization', 'size_bytes', 'base', 'parameter_count', 'sha256',
            'artifact_path', 'base_sha256', 'dataset_digest', 'parent_version', 'job_id')
    return {**{names.get(key, key): row[key] for key in kept}, 'metrics': metrics(row)}


def metrics(values: Values) -> dict[str, float]:
    """The field `metrics` of a result as a dict."""
    return {entry['name']: number(entry['value']) for entry in values.get('metrics', ())}


def number(value: float | None) -> float:
    """A float that may be absent: None is NaN."""
    return math.nan if value is None else value


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
    job_id: int = 0
    validation_loss: float = math.nan
    learning_rate: float = 0.0

    @classmethod
    def of(cls, values: Values) -> Self:
        """Make one from a feedback of TrainExpert."""
        return cls(values['phase'], values['step'], values['total_steps'], number(values['loss']),
                   number(values['tokens_per_second']), number(values['eta_s']), job_id=values['job_id'],
                   validation_loss=number(values['validation_loss']), learning_rate=number(values['learning_rate']))

    @classmethod
    def done(cls, values: Values) -> Self:
        """Make the last one from a result of TrainExpert."""
        return cls('done', 0, 0, math.nan, 0.0, 0.0, values['version'], values['artifact_path'], metrics(values),
                   values['job_id'])


@dataclass(frozen=True)
class TrainingJob(Parsed):
    """A training job as the registry knows it; times in seconds since 1970, 0 = not yet."""

    id: int
    expert: str
    status: str
    method: str
    dataset: str
    step: int
    total_steps: int
    epoch: float | None
    loss: float | None
    validation_loss: float | None
    learning_rate: float | None
    tokens_per_second: float | None
    eta_s: float | None
    error_msg: str
    host: str
    pid: int
    created_at: float
    started_at: float
    finished_at: float

    @property
    def ended(self) -> bool:
        """Nothing more will happen to it."""
        return self.status not in ('queued', 'running')


@dataclass(frozen=True)
class RouterStats(Parsed):
    """What the router has chosen so far; the lists have one entry per expert."""

    requests: int
    abstained: int
    experts: list[str]
    selections: list[int]
    mean_confidence: list[float]
    strategy: str
    router_version: int
    threshold: float
    report: str


@dataclass(frozen=True)
class AbTest(Parsed):
    """A blue-green trial; p_value None = too few outcomes."""

    id: int
    control: str
    treatment: str
    share: float
    status: str
    verdict: str
    control_outcomes: int
    treatment_outcomes: int
    p_value: float | None

    @classmethod
    def of(cls, values: Values) -> Self:
        """Make one; the share is a float32 on the wire."""
        return super().of({**values, 'share': round(values['share'], 6)})
