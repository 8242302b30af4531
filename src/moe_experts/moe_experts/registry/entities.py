"""What the store returns: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from moe_experts.registry.tables import EventRow, ExpertRow, TrainingJobRow, VersionRow


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
    def of(cls, row: ExpertRow) -> Expert:
        """Copy a row."""
        values = {name: getattr(row, name) for name in cls.__dataclass_fields__ if name != 'aliases'}
        return cls(**values, aliases={alias.name: alias.version for alias in row.aliases})


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
    def of(cls, row: VersionRow, expert: str) -> Version:
        """Copy a row."""
        values = {name: getattr(row, name) for name in cls.__dataclass_fields__ if name != 'expert'}
        return cls(**values, expert=expert)


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
