"""The tables, for SQLAlchemy; rows never leave the store."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, DateTime, ForeignKey, Index, String, Text, UniqueConstraint, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Table(DeclarativeBase):
    """Root of the tables."""


class ExpertRow(Table):
    """An expert."""

    __tablename__ = 'experts'
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    status: Mapped[str] = mapped_column(String(16))
    domain: Mapped[str] = mapped_column(String(63))
    category: Mapped[str] = mapped_column(String(63), default='')
    description: Mapped[str] = mapped_column(Text, default='')
    fallback: Mapped[bool] = mapped_column(default=False)
    routable: Mapped[bool] = mapped_column(default=True)
    base_expert: Mapped[str] = mapped_column(String(63), default='')
    system_prompt: Mapped[str] = mapped_column(Text, default='')
    output_schema: Mapped[str] = mapped_column(Text, default='')
    sampling: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    max_tokens: Mapped[int] = mapped_column(default=256)
    max_seq_len: Mapped[int] = mapped_column(default=2048)
    priority: Mapped[int] = mapped_column(default=10)
    row_version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=func.now())
    versions: Mapped[list[VersionRow]] = relationship(order_by='VersionRow.number')
    aliases: Mapped[list[AliasRow]] = relationship(order_by='AliasRow.name', cascade='all, delete-orphan')
    __table_args__ = (Index('idx_experts_status', 'status'), Index('idx_experts_domain', 'domain'))


class VersionRow(Table):
    """One immutable set of weights."""

    __tablename__ = 'versions'
    id: Mapped[int] = mapped_column(primary_key=True)
    expert_id: Mapped[int] = mapped_column(ForeignKey('experts.id'))
    number: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    backend: Mapped[str] = mapped_column(String(16))
    artifact_path: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int]
    quantization: Mapped[str] = mapped_column(Text)
    base: Mapped[str] = mapped_column(Text, default='')
    base_path: Mapped[str] = mapped_column(Text, default='')
    base_sha256: Mapped[str] = mapped_column(String(64), default='')
    parameter_count: Mapped[int]
    lora_scale: Mapped[float] = mapped_column(default=1.0)
    metrics: Mapped[dict[str, float]] = mapped_column(JSON, default=dict)
    parent_version: Mapped[int] = mapped_column(default=0)
    dataset_digest: Mapped[str] = mapped_column(String(64), default='')
    job_id: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    __table_args__ = (UniqueConstraint('expert_id', 'number'),)


class AliasRow(Table):
    """A name that points at a version."""

    __tablename__ = 'aliases'
    expert_id: Mapped[int] = mapped_column(ForeignKey('experts.id'), primary_key=True)
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    version: Mapped[int]
    previous_version: Mapped[int] = mapped_column(default=0)


class EventRow(Table):
    """One transition; rows are only ever added."""

    __tablename__ = 'events'
    sequence: Mapped[int] = mapped_column(primary_key=True)
    stamp: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    kind: Mapped[str] = mapped_column(String(32))
    expert_id: Mapped[int] = mapped_column(default=0)
    expert: Mapped[str] = mapped_column(String(63), default='')
    version: Mapped[int] = mapped_column(default=0)
    alias: Mapped[str] = mapped_column(String(63), default='')
    job_id: Mapped[int] = mapped_column(default=0)
    actor: Mapped[str] = mapped_column(Text, default='')
    reason: Mapped[str] = mapped_column(Text, default='')
    __table_args__ = (Index('idx_events_expert', 'expert', 'sequence'),)


class TrainingJobRow(Table):
    """A training job."""

    __tablename__ = 'training_jobs'
    id: Mapped[int] = mapped_column(primary_key=True)
    expert_id: Mapped[int] = mapped_column(ForeignKey('experts.id'))
    status: Mapped[str] = mapped_column(String(16), default='queued')
    detail: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    heartbeat_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    __table_args__ = (Index('idx_training_jobs_expert', 'expert_id', 'id'),
                      Index('idx_training_jobs_status', 'status'))


class RouteSampleRow(Table):
    """One example from which the router learns."""

    __tablename__ = 'route_samples'
    id: Mapped[int] = mapped_column(primary_key=True)
    expert: Mapped[str] = mapped_column(String(63))
    intent: Mapped[str] = mapped_column(Text, default='')
    text: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(String(32), default='dataset')
    __table_args__ = (UniqueConstraint('expert', 'text'),)
