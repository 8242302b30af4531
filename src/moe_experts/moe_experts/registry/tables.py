"""The tables, for SQLAlchemy; rows never leave the registry. The schema itself is made by `migrations`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Double,
    FetchedValue,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    Numeric,
    String,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

NOW = func.now()


def _moment() -> Mapped[datetime]:
    return mapped_column(DateTime(timezone=True), server_default=NOW)


class Table(DeclarativeBase):
    """Root of the tables."""

    type_annotation_map = {datetime: DateTime(timezone=True)}


class ExpertRow(Table):
    """An expert; a trigger renews row_version and updated_at with every change."""

    __tablename__ = 'experts'
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(63))
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
    row_version: Mapped[int] = mapped_column(default=1, server_onupdate=FetchedValue())
    created_at: Mapped[datetime] = _moment()
    updated_at: Mapped[datetime] = mapped_column(server_default=NOW, server_onupdate=FetchedValue())
    deleted_at: Mapped[datetime | None]
    aliases: Mapped[list[AliasRow]] = relationship(order_by='AliasRow.name', cascade='all, delete-orphan')
    __table_args__ = (
        Index('idx_experts_name', 'name', unique=True, postgresql_where=sql('deleted_at IS NULL')),
        Index('idx_experts_fallback', 'fallback', unique=True,
              postgresql_where=sql('fallback AND deleted_at IS NULL')),
        Index('idx_experts_status', 'status', 'name'), Index('idx_experts_domain', 'domain', 'name'),
        Index('idx_experts_category', 'category', 'name'), Index('idx_experts_updated_at', 'updated_at'),
        Index('idx_experts_base_expert', 'base_expert', postgresql_where=sql("base_expert <> ''")))


class ExpertTallyRow(Table):
    """How many experts there are of each kind; triggers keep it, so a list need not count."""

    __tablename__ = 'expert_tallies'
    domain: Mapped[str] = mapped_column(String(63), primary_key=True)
    category: Mapped[str] = mapped_column(String(63), primary_key=True)
    status: Mapped[str] = mapped_column(String(16), primary_key=True)
    n: Mapped[int] = mapped_column(BigInteger)


class VersionRow(Table):
    """One immutable set of weights; a trigger refuses changes. artifact_path is relative to the artifact folder."""

    __tablename__ = 'versions'
    id: Mapped[int] = mapped_column(primary_key=True)
    expert_id: Mapped[int] = mapped_column(ForeignKey('experts.id'))
    number: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    backend: Mapped[str] = mapped_column(String(16))
    artifact_path: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    quantization: Mapped[str] = mapped_column(Text)
    base: Mapped[str] = mapped_column(Text, default='')
    base_path: Mapped[str] = mapped_column(Text, default='')
    base_sha256: Mapped[str] = mapped_column(String(64), default='')
    parameter_count: Mapped[int] = mapped_column(BigInteger)
    lora_scale: Mapped[float] = mapped_column(default=1.0)
    metrics: Mapped[dict[str, float]] = mapped_column(JSON, default=dict)
    parent_version: Mapped[int] = mapped_column(default=0)
    dataset_digest: Mapped[str] = mapped_column(String(64), default='')
    job_id: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = _moment()
    __table_args__ = (UniqueConstraint('expert_id', 'number'),)


class AliasRow(Table):
    """A name that points at a version."""

    __tablename__ = 'aliases'
    expert_id: Mapped[int] = mapped_column(ForeignKey('experts.id'), primary_key=True)
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    version: Mapped[int]
    previous_version: Mapped[int] = mapped_column(default=0)
    __table_args__ = (ForeignKeyConstraint(
        ['expert_id', 'version'], ['versions.expert_id', 'versions.number'], name='aliases_point_at_versions'),)


class EventRow(Table):
    """One transition; triggers add rows, nobody changes or removes them."""

    __tablename__ = 'events'
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    stamp: Mapped[datetime] = _moment()
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
    created_at: Mapped[datetime] = _moment()
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    __table_args__ = (Index('idx_training_jobs_expert', 'expert_id', 'id'),
                      Index('idx_training_jobs_status', 'status', 'id'))


class JobMetricRow(Table):
    """What a training job measured at one step."""

    __tablename__ = 'job_metrics'
    job_id: Mapped[int] = mapped_column(ForeignKey('training_jobs.id', ondelete='CASCADE'), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[float | None] = mapped_column(Double)
    loss: Mapped[float | None] = mapped_column(Double)
    validation_loss: Mapped[float | None] = mapped_column(Double)
    learning_rate: Mapped[float | None] = mapped_column(Double)
    tokens_per_second: Mapped[float | None] = mapped_column(Double)
    stamp: Mapped[datetime] = _moment()


class RouteSampleRow(Table):
    """One example from which the router learns."""

    __tablename__ = 'route_samples'
    id: Mapped[int] = mapped_column(primary_key=True)
    expert: Mapped[str] = mapped_column(String(63))
    intent: Mapped[str] = mapped_column(Text, default='')
    text: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(String(32), default='dataset')
    __table_args__ = (Index('idx_route_samples_text', 'expert', sql('md5(text)'), unique=True),
                      Index('idx_route_samples_expert', 'expert', 'id'))


class SampleTallyRow(Table):
    """Number of an expert's samples and the sum of their hashes; triggers keep both."""

    __tablename__ = 'sample_tallies'
    expert: Mapped[str] = mapped_column(String(63), primary_key=True)
    n: Mapped[int] = mapped_column(BigInteger)
    hashes: Mapped[int] = mapped_column(Numeric)


class RouteRow(Table):
    """One decision of the router."""

    __tablename__ = 'routes'
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    request_id: Mapped[str] = mapped_column(Text, unique=True)
    session: Mapped[str] = mapped_column(Text, default='')
    prompt_digest: Mapped[str] = mapped_column(Text, default='')
    prompt: Mapped[str] = mapped_column(Text, default='')
    choice: Mapped[str] = mapped_column(Text)
    confidence: Mapped[float] = mapped_column(Double)
    ranked: Mapped[list[str]] = mapped_column(ARRAY(Text))
    probabilities: Mapped[list[float]] = mapped_column(ARRAY(Double))
    none_probability: Mapped[float] = mapped_column(Double)
    abstained: Mapped[bool] = mapped_column(Boolean)
    stage: Mapped[str] = mapped_column(Text)
    latency_s: Mapped[float] = mapped_column(Double)
    router_version: Mapped[int] = mapped_column(default=0)
    corrected: Mapped[str] = mapped_column(Text, default='')
    stamp: Mapped[datetime] = _moment()
    __table_args__ = (Index('idx_routes_choice', 'choice', 'id'),
                      Index('idx_routes_corrected', 'id', postgresql_where=sql("corrected <> ''")))


class RouteTallyRow(Table):
    """How many decisions there are of each kind; triggers keep it."""

    __tablename__ = 'route_tallies'
    choice: Mapped[str] = mapped_column(Text, primary_key=True)
    corrected: Mapped[bool] = mapped_column(primary_key=True)
    n: Mapped[int] = mapped_column(BigInteger)


class RouterVersionRow(Table):
    """One fit of the router."""

    __tablename__ = 'router_versions'
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    artifact_path: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(Text, default='')
    samples: Mapped[int] = mapped_column(default=0)
    threshold: Mapped[float] = mapped_column(Double, default=0.0)
    metrics: Mapped[dict[str, float]] = mapped_column(JSON, default=dict)
    active: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = _moment()
    __table_args__ = (Index('idx_router_versions_active', 'active', unique=True, postgresql_where=sql('active')),)


class OutcomeRow(Table):
    """What became of one request."""

    __tablename__ = 'outcomes'
    request_id: Mapped[str] = mapped_column(Text, primary_key=True)
    session: Mapped[str] = mapped_column(Text, default='')
    expert: Mapped[str] = mapped_column(Text)
    version: Mapped[int] = mapped_column(default=0)
    ab_test_id: Mapped[int] = mapped_column(default=0)
    success: Mapped[bool]
    error_code: Mapped[int] = mapped_column(default=0)
    finish_reason: Mapped[str] = mapped_column(Text, default='')
    latency_s: Mapped[float] = mapped_column(Double)
    first_token_s: Mapped[float | None] = mapped_column(Double)
    completion_tokens: Mapped[int] = mapped_column(default=0)
    stamp: Mapped[datetime] = _moment()
    score: Mapped[float | None] = mapped_column(Double)
    comment: Mapped[str] = mapped_column(Text, default='', server_default='')
    __table_args__ = (Index('idx_outcomes_expert', 'expert', 'stamp'),)


class AbTestRow(Table):
    """A control and a treatment that share the sessions of one expert."""

    __tablename__ = 'ab_tests'
    id: Mapped[int] = mapped_column(primary_key=True)
    control: Mapped[str] = mapped_column(String(63))
    treatment: Mapped[str] = mapped_column(String(63))
    share: Mapped[float] = mapped_column(Double)
    status: Mapped[str] = mapped_column(String(16), default='running')
    auto_decide: Mapped[bool] = mapped_column(default=False)
    verdict: Mapped[str] = mapped_column(Text, default='')
    evidence: Mapped[float] = mapped_column(Double, default=0.0)
    started_at: Mapped[datetime] = _moment()
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        Index('idx_ab_tests_control', 'control', unique=True, postgresql_where=sql("status = 'running'")),
        Index('idx_ab_tests_treatment', 'treatment', unique=True, postgresql_where=sql("status = 'running'")))


class AbUnitRow(Table):
    """One session (or request without a session) of an A/B test, and its first outcome and rating."""

    __tablename__ = 'ab_units'
    ab_test_id: Mapped[int] = mapped_column(ForeignKey('ab_tests.id', ondelete='CASCADE'), primary_key=True)
    unit: Mapped[str] = mapped_column(Text, primary_key=True)
    treated: Mapped[bool]
    assigned_at: Mapped[datetime] = _moment()
    success: Mapped[bool | None]
    latency_s: Mapped[float | None] = mapped_column(Double)
    liked: Mapped[bool | None]
    __table_args__ = (Index('idx_ab_units_open', 'ab_test_id', 'assigned_at', postgresql_where=sql(
        'success IS NULL')),)


class NoteRow(Table):
    """A text that an expert may read before it answers."""

    __tablename__ = 'notes'
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    expert_id: Mapped[int] = mapped_column(Integer, ForeignKey('experts.id'))
    source: Mapped[str] = mapped_column(Text, default='')
    text: Mapped[str] = mapped_column(Text)
    questions: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    digest: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = _moment()
    __table_args__ = (UniqueConstraint('expert_id', 'digest'), Index('idx_notes_expert', 'expert_id', 'id'))


class ApiKeyRow(Table):
    """A salted hash of a key; the key itself is shown once and stored nowhere."""

    __tablename__ = 'api_keys'
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(63))
    scopes: Mapped[str] = mapped_column(Text)
    salt: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))
    actor: Mapped[str] = mapped_column(Text, default='')
    created_at: Mapped[datetime] = _moment()
    revoked_at: Mapped[datetime | None]
