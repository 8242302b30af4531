"""Bodies of the suite's own API that are not those of a ROS interface."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from moe_client.transport import Values


def _sendable(text: str) -> str:
    if '\0' in text:
        raise ValueError('must not hold NUL characters')
    if not text.isascii() and any('\ud800' <= character <= '\udfff' for character in text):
        raise ValueError('must not hold halves of surrogate pairs')
    return text


Text = Annotated[str, AfterValidator(_sendable), Field(json_schema_extra={'pattern': r'^[^\u0000]*$'})]
Name = Annotated[str, StringConstraints(pattern=r'^[\w@.-]{0,80}$')]
Share = Annotated[float, Field(ge=0, le=1)]


class Body(BaseModel):
    """A body without fields that nobody knows."""

    model_config = ConfigDict(extra='forbid')

    def values(self) -> Values:
        """Only what was given."""
        return self.model_dump(exclude_unset=True, exclude_none=True)


class GenerateBody(Body):
    """A prompt, and how to answer it; what is absent is the expert's own."""

    prompt: Text
    expert: Name = ''
    session: Text = ''
    system_prompt: Text = ''
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    min_p: Share | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    stop: Annotated[list[Text], Field(max_length=16)] | Text | None = None
    seed: Annotated[int, Field(ge=0, lt=2 ** 32)] | None = None
    json_schema: dict[str, Any] | Text | None = None
    grammar: Text | None = None
    regex: Text | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    experts: Annotated[list[Name], Field(max_length=16)] | None = None
    weights: Annotated[list[Annotated[float, Field(ge=0, le=1e6)]], Field(max_length=16)] | None = None
    lora_scales: Annotated[list[Annotated[float, Field(ge=-1e3, le=1e3)]], Field(max_length=16)] | None = None
    ground: StrictBool | None = None
    reset: StrictBool | None = None
    truncate: Annotated[str, StringConstraints(pattern='^(left|middle)?$')] | None = None
    priority: Annotated[int, Field(ge=0, le=100)] | None = None
    keep_alive: Annotated[float, Field(ge=-2, le=1e9)] | None = None
    request_id: Annotated[str, StringConstraints(pattern=r'^[\w.:-]{0,64}$')] | None = None
    timeout: Annotated[float, Field(gt=0, le=3600, description='seconds')] | None = None

    def values(self) -> Values:
        """Only what was given, `stop` as a list."""
        given = super().values()
        if isinstance(given.get('stop'), str):
            given['stop'] = [given['stop']]
        return given


class BatchBody(Body):
    """Generations that run side by side."""

    requests: Annotated[list[GenerateBody], Field(min_length=1, max_length=64)]


class MoveBody(Body):
    """A joint and an angle in degrees: where to, or by how much."""

    joint: Annotated[str, StringConstraints(pattern=r'^\w{1,40}$')]
    degrees: Annotated[float, Field(ge=-360, le=360)]
    relative: StrictBool = False


class TrainBody(Body):
    """The fields of TrainExpert that training jobs are usually begun with."""

    expert: Name
    dataset: Text
    method: Name = 'lora'
    epochs: Annotated[float, Field(gt=0, le=10_000)] | None = None
    max_steps: Annotated[int, Field(ge=0, le=2 ** 31 - 1)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    gradient_accumulation: Annotated[int, Field(ge=1, le=65536)] | None = None
    learning_rate: Annotated[float, Field(ge=0, le=10)] | None = None
    lora_rank: Annotated[int, Field(ge=1, le=4096)] | None = None
    lora_alpha: Annotated[float, Field(gt=0, le=1e6)] | None = None
    max_seq_len: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    precision: Name | None = None
    gradient_checkpointing: StrictBool | None = None
    early_stopping_patience: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    notes: Annotated[int, Field(ge=0, le=20)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2 ** 63)] | None = None
    heldout: Text | None = None
    resume: Text | None = None
    promote: StrictBool | None = None
    gate: StrictBool | None = None
    force: StrictBool | None = None
