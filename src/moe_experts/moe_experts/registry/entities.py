"""What the store returns: plain frozen values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from moe_experts.registry.tables import (
    AbTestRow,
    EventRow,
    ExpertRow,
    RouteRow,
    RouterVersionRow,
    TrainingJobRow,
    VersionRow,
)


@dataclass(frozen=True)
class Expert:
    """An expert; fields as in moe_interfaces/Expert."""

    id: int
    name: str
    domain: str
    category: str
    description: str
    status: str
    fallback: bool
    routable: bool
    base_expert: str
    system_prompt: str
    output_schema: str
    sampling: dict[str, Any]
    max_tokens: int
    max_seq_len: int
    priority: int
    row_version: int
    created_at: datetime
    updated_at: datetime
    aliases: dict[str, int]

    @classmethod
    def columns(cls) -> list[Any]:
        """The columns that hold the fields, in order; aliases come from another table."""
        return [ExpertRow.__table__.c[name] for name in cls.__dataclass_fields__ if name != 'aliases']

    @classmethod
    def of_columns(cls, values: Sequence[Any], aliases: dict[str, int] | None) -> Expert:
        """Put together what columns() selected, and aliases; None = it has none."""
        return cls(*values, dict(sorted((aliases or {}).items())))  # type: ignore[call-arg]

    @classmethod
    def of(cls, row: ExpertRow) -> Expert:
        """Copy a row."""
        return cls.of_columns([getattr(row, name) for name in cls.__dataclass_fields__ if name != 'aliases'],
                              {alias.name: alias.version for alias in row.aliases})


@dataclass(frozen=True)
class Version:
    """A version; fields as in moe_interfaces/ExpertVersion. For a new one only the path and lineage matter."""

    artifact_path: str
    base: str = ''
    base_path: str = ''
    base_sha256: str = ''
    lora_scale: float = 1.0
    metrics: dict[str, float] = field(default_factory=dict)
    parent_version: int = 0
    dataset_digest: str = ''
    job_id: int = 0
    sha256: str = ''
    id: int = 0
    expert_id: int = 0
    expert: str = ''
    number: int = 0
    kind: str = ''
    backend: str = ''
    size_bytes: int = 0
    quantization: str = ''
    parameter_count: int = 0
    created_at: datetime | None = None

    @classmethod
    def of(cls, row: VersionRow, expert: str, artifacts: Path) -> Version:
        """Copy a row."""
        return cls.of_columns([expert if name == 'expert' else getattr(row, name) for name in cls.__dataclass_fields__],
                              artifacts)

    @classmethod
    def columns(cls) -> list[Any]:
        """The columns that hold the fields, in order, with the expert's name among them."""
        return [ExpertRow.__table__.c.name if name == 'expert' else VersionRow.__table__.c[name]
                for name in cls.__dataclass_fields__]

    @classmethod
    def of_columns(cls, values: Sequence[Any], artifacts: Path) -> Version:
        """Put together what columns() selected; the path becomes absolute (rows of before were)."""
        path, *others = values
        return cls(str(artifacts / path) if path else '', *others)


@dataclass(frozen=True)
class Event:
    """A transition; fields as in moe_interfaces/RegistryEvent."""

    sequence: int
    stamp: datetime
    kind: str
    expert_id: int
    expert: str
    version: int
    alias: str
    job_id: int
    actor: str
    reason: str

    @classmethod
    def of(cls, row: EventRow) -> Event:
        """Copy a row."""
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Sample:
    """An example for the router."""

    expert: str
    intent: str
    text: str
    source: str = 'dataset'


@dataclass(frozen=True)
class Job:
    """A training job; `detail` holds the progress fields of moe_interfaces/TrainingJob."""

    id: int
    expert_id: int
    expert: str
    status: str
    detail: dict[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    heartbeat_at: datetime | None

    @classmethod
    def of(cls, row: TrainingJobRow, expert: str) -> Job:
        """Copy a row."""
        return cls(row.id, row.expert_id, expert, row.status, dict(row.detail), row.created_at, row.started_at,
                   row.finished_at, row.heartbeat_at)


@dataclass(frozen=True)
class Route:
    """A decision of the router; fields as in moe_interfaces/RouteRecord and its RouteDecision."""

    request_id: str
    session: str
    prompt_digest: str
    prompt: str
    choice: str
    confidence: float
    ranked: list[str]
    probabilities: list[float]
    none_probability: float
    abstained: bool
    stage: str
    latency_s: float
    router_version: int = 0
    corrected: str = ''
    stamp: datetime | None = None

    @classmethod
    def of(cls, row: RouteRow) -> Route:
        """Copy a row."""
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class RouterVersion:
    """A fit of the router; fields as in moe_interfaces/RouterVersion."""

    artifact_path: str
    sha256: str = ''
    samples: int = 0
    threshold: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    active: bool = True
    number: int = 0
    created_at: datetime | None = None

    @classmethod
    def of(cls, row: RouterVersionRow) -> RouterVersion:
        """Copy a row."""
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Outcome:
    """What became of a request; fields as in moe_interfaces/Outcome. first_token_s is None where none came."""

    request_id: str
    session: str
    expert: str
    version: int
    ab_test_id: int
    success: bool
    error_code: int
    finish_reason: str
    latency_s: float
    first_token_s: float | None
    completion_tokens: int
    stamp: datetime | None = None


@dataclass(frozen=True)
class AbTest:
    """An A/B test; fields as in moe_interfaces/AbTest. p_value is None before there are enough outcomes."""

    id: int
    control: str
    treatment: str
    share: float
    status: str
    auto_decide: bool
    verdict: str
    started_at: datetime
    finished_at: datetime | None
    control_outcomes: int = 0
    treatment_outcomes: int = 0
    p_value: float | None = None

    @classmethod
    def of(cls, row: AbTestRow, control: int, treatment: int, p_value: float | None) -> AbTest:
        """Copy a row beside what was counted."""
        names = ('id', 'control', 'treatment', 'share', 'status', 'auto_decide', 'verdict', 'started_at', 'finished_at')
        return cls(**{name: getattr(row, name) for name in names}, control_outcomes=control,
                   treatment_outcomes=treatment, p_value=p_value)


@dataclass(frozen=True)
class Note:
    """A text that an expert may read; fields as in moe_interfaces/Note."""

    expert: str
    source: str
    text: str
    id: int = 0
    digest: str = ''
    created_at: datetime | None = None
    questions: tuple[str, ...] = ()


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key; never the key."""

    id: int
    name: str
    scopes: str
    salt: str
    digest: str
    revoked: bool
