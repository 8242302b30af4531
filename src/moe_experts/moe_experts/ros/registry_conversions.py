"""Entities of the registry to messages and back."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from builtin_interfaces.msg import Time

from moe_experts.registry import entities
from moe_interfaces.msg import (
    AbTest,
    Alias,
    Expert,
    ExpertVersion,
    Metric,
    Note,
    Outcome,
    RegistryEvent,
    RouteDecision,
    RouteRecord,
    RouterVersion,
    RouteSample,
    SamplingConfig,
    TrainingJob,
)

_EXPERT = ('id', 'name', 'domain', 'category', 'description', 'status', 'fallback', 'routable', 'base_expert',
           'system_prompt', 'output_schema', 'max_tokens', 'max_seq_len', 'priority', 'row_version')
_DEFINITION = ('name', 'domain', 'category', 'description', 'fallback', 'routable', 'base_expert', 'system_prompt',
               'output_schema', 'max_tokens', 'max_seq_len', 'priority')
_VERSION = ('id', 'expert_id', 'expert', 'number', 'kind', 'backend', 'artifact_path', 'sha256', 'size_bytes',
            'quantization', 'base', 'base_path', 'base_sha256', 'parameter_count', 'parent_version', 'dataset_digest',
            'job_id')
_EVENT = ('sequence', 'kind', 'expert_id', 'expert', 'version', 'alias', 'job_id', 'actor', 'reason')
_JOB_TEXT = ('method', 'dataset', 'dataset_digest', 'config', 'host', 'error_msg')
_JOB_INT = ('pid', 'step', 'total_steps', 'version_id')
_JOB_FLOAT = ('epoch', 'loss', 'validation_loss', 'learning_rate', 'tokens_per_second', 'eta_s')
_ROUTE = ('request_id', 'session', 'prompt_digest', 'prompt', 'router_version', 'corrected')
_DECISION = ('choice', 'confidence', 'none_probability', 'abstained', 'stage', 'latency_s')
_FIT = ('number', 'artifact_path', 'sha256', 'samples', 'threshold', 'active')
_OUTCOME = ('request_id', 'session', 'expert', 'version', 'ab_test_id', 'success', 'error_code', 'finish_reason',
            'latency_s', 'completion_tokens')
_AB_TEST = ('id', 'control', 'treatment', 'share', 'status', 'verdict', 'control_outcomes', 'treatment_outcomes')


def stamp(value: datetime | None) -> Time:
    """A moment; None is zero."""
    if value is None:
        return Time()
    seconds = value.timestamp()
    return Time(sec=math.floor(seconds), nanosec=int((seconds - math.floor(seconds)) * 1e9))


def moment(value: Time) -> datetime | None:
    """A stamp; zero is None."""
    if not value.sec and not value.nanosec:
        return None
    return datetime.fromtimestamp(value.sec + value.nanosec / 1e9, UTC)


def metrics_message(values: dict[str, float]) -> list[Metric]:
    """Measured values by name."""
    return [Metric(name=name, value=float(value)) for name, value in values.items()]


def metrics_values(messages: list[Metric]) -> dict[str, float]:
    """Measured values by name; JSON has no NaN."""
    return {metric.name: metric.value for metric in messages if math.isfinite(metric.value)}


def sampling_message(values: dict[str, Any]) -> SamplingConfig:
    """Stored sampling settings; what is not stored keeps its sentinel."""
    message = SamplingConfig()
    for name, value in values.items():
        if hasattr(message, name):
            setattr(message, name, type(getattr(message, name))(value))
    return message


def sampling_values(message: SamplingConfig) -> dict[str, Any]:
    """The settings that differ from their sentinels."""
    blank = SamplingConfig()
    return {name: getattr(message, name) for name, kind in SamplingConfig.get_fields_and_field_types().items()
            if not kind.startswith('sequence') and getattr(message, name) != getattr(blank, name)}


def expert_message(entity: entities.Expert) -> Expert:
    """Convert an expert."""
    return Expert(
        **{name: getattr(entity, name) for name in _EXPERT},
        sampling_config=sampling_message(entity.sampling),
        aliases=[Alias(name=name, version=number) for name, number in entity.aliases.items()],
        champion_version=entity.aliases.get('champion', 0),
        created_at=stamp(entity.created_at), updated_at=stamp(entity.updated_at))


def definition(message: Expert) -> dict[str, Any]:
    """What a create request defines."""
    return {**{name: getattr(message, name) for name in _DEFINITION},
            'sampling': sampling_values(message.sampling_config)}


def changes(message: Expert, fields: list[str]) -> dict[str, Any]:
    """The named fields of an update request; what Expert has no such field of is left to be refused."""
    values = {name: getattr(message, name, None) for name in fields}
    if 'sampling_config' in values:
        del values['sampling_config']
        values['sampling'] = sampling_values(message.sampling_config)
    return values


def version_message(entity: entities.Version) -> ExpertVersion:
    """Convert a version."""
    return ExpertVersion(
        **{name: getattr(entity, name) for name in _VERSION}, lora_scale=float(entity.lora_scale),
        metrics=metrics_message(entity.metrics),
        created_at=stamp(entity.created_at))


def version_entity(message: ExpertVersion) -> entities.Version:
    """What a register request brings along."""
    return entities.Version(
        artifact_path=message.artifact_path, base=message.base, base_path=message.base_path,
        base_sha256=message.base_sha256, lora_scale=message.lora_scale,
        metrics=metrics_values(message.metrics), parent_version=message.parent_version,
        dataset_digest=message.dataset_digest, job_id=message.job_id, sha256=message.sha256)


def event_message(entity: entities.Event) -> RegistryEvent:
    """Convert a transition."""
    return RegistryEvent(**{name: getattr(entity, name) for name in _EVENT}, stamp=stamp(entity.stamp))


def sample_message(entity: entities.Sample) -> RouteSample:
    """Convert a route sample."""
    return RouteSample(expert=entity.expert, intent=entity.intent, text=entity.text, source=entity.source)


def sample_entity(message: RouteSample) -> entities.Sample:
    """Convert a route sample."""
    return entities.Sample(message.expert, message.intent, message.text, message.source or 'dataset')


def job_message(entity: entities.Job) -> TrainingJob:
    """Convert a training job."""
    message = TrainingJob(
        id=entity.id, expert_id=entity.expert_id, expert=entity.expert, status=entity.status,
        created_at=stamp(entity.created_at), started_at=stamp(entity.started_at),
        finished_at=stamp(entity.finished_at), heartbeat_at=stamp(entity.heartbeat_at))
    for names, kind in ((_JOB_TEXT, str), (_JOB_INT, int), (_JOB_FLOAT, float)):
        for name in names:
            if entity.detail.get(name) is not None:
                setattr(message, name, kind(entity.detail[name]))
    return message


def job_detail(message: TrainingJob) -> dict[str, Any]:
    """The progress fields of a job; NaN is no JSON and becomes null."""
    detail = {name: getattr(message, name) for name in (*_JOB_TEXT, *_JOB_INT, *_JOB_FLOAT)}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in detail.items()}


def route_message(entity: entities.Route) -> RouteRecord:
    """Convert a decision of the router."""
    decision = RouteDecision(**{name: getattr(entity, name) for name in _DECISION}, ranked=entity.ranked,
                             probabilities=entity.probabilities)
    return RouteRecord(**{name: getattr(entity, name) for name in _ROUTE}, decision=decision,
                       stamp=stamp(entity.stamp))


def route_entity(message: RouteRecord) -> entities.Route:
    """Convert a decision of the router."""
    decision = message.decision
    return entities.Route(
        **{name: getattr(message, name) for name in _ROUTE}, **{name: getattr(decision, name) for name in _DECISION},
        ranked=list(decision.ranked), probabilities=[float(value) for value in decision.probabilities],
        stamp=moment(message.stamp))


def fit_message(entity: entities.RouterVersion) -> RouterVersion:
    """Convert a fit of the router."""
    return RouterVersion(**{name: getattr(entity, name) for name in _FIT}, metrics=metrics_message(entity.metrics),
                         created_at=stamp(entity.created_at))


def fit_entity(message: RouterVersion) -> entities.RouterVersion:
    """Convert a fit of the router."""
    return entities.RouterVersion(**{name: getattr(message, name) for name in _FIT},
                                  metrics=metrics_values(message.metrics))


def outcome_entity(message: Outcome) -> entities.Outcome:
    """Convert an outcome."""
    first = None if math.isnan(message.first_token_s) else message.first_token_s
    return entities.Outcome(**{name: getattr(message, name) for name in _OUTCOME}, first_token_s=first,
                            stamp=moment(message.stamp))


def ab_test_message(entity: entities.AbTest) -> AbTest:
    """Convert an A/B test."""
    return AbTest(**{name: getattr(entity, name) for name in _AB_TEST},
                  p_value=math.nan if entity.p_value is None else entity.p_value,
                  started_at=stamp(entity.started_at), finished_at=stamp(entity.finished_at))


def note_message(entity: entities.Note) -> Note:
    """Convert a note."""
    return Note(id=entity.id, expert=entity.expert, source=entity.source, text=entity.text, digest=entity.digest,
                questions=list(entity.questions), created_at=stamp(entity.created_at))


def note_entity(message: Note) -> entities.Note:
    """Convert a note."""
    return entities.Note(message.expert, message.source, message.text, questions=tuple(message.questions))
