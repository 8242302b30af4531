"""Messages of moe_interfaces to the SDK's values."""

from __future__ import annotations

from typing import Any

from moe_client.types import Chunk, ExpertInfo, Generation, Route
from moe_interfaces.action import GenerateResponse
from moe_interfaces.msg import Expert, ExpertVersion, RouteDecision


def route(message: RouteDecision) -> Route:
    """Convert a decision."""
    return Route(message.choice, message.confidence, tuple(zip(message.ranked, message.probabilities)),
                 message.abstained, message.stage, message.latency_s)


def chunk(feedback: GenerateResponse.Feedback) -> Chunk:
    """Convert a feedback."""
    return Chunk(feedback.partial_response.text, feedback.expert, feedback.expert_version, feedback.confidence,
                 feedback.abstained)


def generation(result: GenerateResponse.Result) -> Generation:
    """Convert a result."""
    return Generation(
        text=result.response.text, finish_reason=result.finish_reason, expert=result.expert,
        expert_version=result.expert_version, route=route(result.route),
        prompt_tokens=result.usage.prompt_tokens, completion_tokens=result.usage.completion_tokens,
        cached_tokens=result.usage.cached_tokens, first_token_s=result.timings.first_token_s,
        total_s=result.timings.total_s, tokens_per_second=result.timings.tokens_per_second,
        request_id=result.request_id)


def version(message: ExpertVersion) -> dict[str, Any]:
    """Convert a version to a plain row."""
    return {
        'version': message.number, 'kind': message.kind, 'backend': message.backend,
        'quantization': message.quantization, 'size_bytes': message.size_bytes, 'base': message.base,
        'parameters': message.parameter_count, 'sha256': message.sha256, 'artifact': message.artifact_path,
        'base_sha256': message.base_sha256, 'dataset_digest': message.dataset_digest,
        'metrics': {metric.name: metric.value for metric in message.metrics},
    }


def expert(message: Expert, versions: list[ExpertVersion] | None = None) -> ExpertInfo:
    """Convert an expert and, where given, its versions."""
    return ExpertInfo(
        id=message.id, name=message.name, domain=message.domain, category=message.category,
        description=message.description, status=message.status, fallback=message.fallback,
        champion_version=message.champion_version, versions=tuple(version(row) for row in versions or ()))
