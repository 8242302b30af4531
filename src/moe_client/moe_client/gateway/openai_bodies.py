"""Requests of OpenAI's API, and what of them the experts understand."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from moe_client.errors import InvalidRequest
from moe_client.gateway.bodies import Body, Share, Text
from moe_client.transport import Values

AUTO = 'auto'
ROLES = Literal['system', 'developer', 'user', 'assistant', 'tool', 'function']
SAME = ('temperature', 'top_p', 'seed', 'frequency_penalty', 'presence_penalty')
ACCEPTED = frozenset({'user', 'metadata', 'store', 'service_tier', 'parallel_tool_calls', 'safety_identifier',
                      'prompt_cache_key', 'reasoning_effort', 'verbosity', 'logprobs', 'top_logprobs', 'best_of'})


class Sampled(Body):
    """What chats and completions share; fields of ACCEPTED are taken and change nothing."""

    model_config = ConfigDict(extra='allow')

    model: Annotated[str, Field(max_length=80)] = AUTO
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Share | None = None
    seed: Annotated[int, Field(ge=-2 ** 63, lt=2 ** 63)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    stop: Annotated[list[Text], Field(max_length=16)] | Text | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None

    def check_unknown(self) -> None:
        """Raise InvalidRequest for a field that OpenAI's API does not have."""
        unknown = sorted(set(self.model_extra or ()) - ACCEPTED)
        if unknown:
            raise InvalidRequest(f'Unknown fields: {", ".join(name[:80] for name in unknown)}.')

    def sampling(self) -> Values:
        """Options as moe_client.operations.generation_goal takes them."""
        given = {name: getattr(self, name) for name in SAME if getattr(self, name) is not None}
        if 'seed' in given:
            given['seed'] = given['seed'] % 2 ** 32
        if self.stop:
            given['stop'] = [self.stop] if isinstance(self.stop, str) else self.stop
        if self.logit_bias:
            given['logit_bias'] = [{'token': _token(key), 'bias': value} for key, value in self.logit_bias.items()]
        if self.max_tokens:
            given['max_tokens'] = self.max_tokens
        return given

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool((self.stream_options or {}).get('include_usage'))


def _token(key: str) -> int:
    if not key.isdigit() or len(key) > 9:
        raise InvalidRequest(f'logit_bias has token ids as keys, not {key[:40]!r}.')
    return int(key)


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra='allow')

    role: ROLES
    content: Text | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None

    def plain(self) -> Values:
        """As ChatMessage; calls of tools are the JSON that they were answered as."""
        role = {'developer': 'system', 'function': 'tool'}.get(self.role, self.role)
        if isinstance(self.content, list):
            return {'role': role, 'content': ''.join(_part(part) for part in self.content)}
        if self.content is None and self.tool_calls:
            calls = [call.get('function') for call in self.tool_calls]
            return {'role': role, 'content': json.dumps([_call(call) for call in calls if isinstance(call, dict)])}
        return {'role': role, 'content': self.content or ''}


def _part(part: dict[str, Any]) -> str:
    text = part.get('text')
    if part.get('type') != 'text' or not isinstance(text, str):
        raise InvalidRequest('Content has to be text; images and sound are not understood.')
    if '\0' in text:
        raise InvalidRequest('Text must not hold NUL characters.')
    return text


def _call(function: dict[str, Any]) -> Values:
    arguments = function.get('arguments')
    try:
        return {'name': function.get('name'), 'arguments': json.loads(arguments) if isinstance(arguments, str) else {}}
    except ValueError:
        return {'name': function.get('name'), 'arguments': arguments}


class ChatBody(Sampled):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    response_format: dict[str, Any] | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=64)] | None = None
    tool_choice: str | dict[str, Any] | None = None

    def goal(self) -> tuple[Values, bool]:
        """Values of inference.chat, and whether the answer is a call of a tool."""
        self.check_unknown()
        messages = [message.plain() for message in self.messages]
        values = self.sampling()
        if self.max_completion_tokens:
            values['max_tokens'] = self.max_completion_tokens
        if self.n:
            values['n'] = self.n
        tools = self._tools_to_call()
        if tools:
            values['json_schema'] = {'anyOf': [_call_schema(tool) for tool in tools]} if len(tools) > 1 \
                else _call_schema(tools[0])
            messages.insert(0, {'role': 'system', 'content': 'Answer with a call of one of these tools, as JSON: '
                                + json.dumps(tools)})
        elif self.response_format:
            values['json_schema'] = _format_schema(self.response_format)
        return {**values, 'messages': messages}, bool(tools)

    def _tools_to_call(self) -> list[Values]:
        """Those the answer has to call one of: none after a tool's result, unless one is demanded."""
        tools = [_function(tool) for tool in self.tools or ()]
        choice = self.tool_choice or 'auto'
        if isinstance(choice, dict):
            name = (choice.get('function') or {}).get('name') if isinstance(choice.get('function'), dict) else None
            tools = [tool for tool in tools if tool['name'] == name]
            if not tools:
                raise InvalidRequest(f'tool_choice names {str(name)[:80]!r}, which is not among the tools.')
            return tools
        if choice not in ('auto', 'none', 'required'):
            raise InvalidRequest('tool_choice has to be "auto", "none", "required" or a function.')
        if choice == 'none' or (choice == 'auto' and self.messages[-1].role in ('tool', 'function')):
            return []
        if choice == 'required' and not tools:
            raise InvalidRequest('tool_choice "required" needs tools.')
        return tools


def _function(tool: dict[str, Any]) -> Values:
    function = tool.get('function')
    if tool.get('type', 'function') != 'function' or not isinstance(function, dict) or not isinstance(
            function.get('name'), str) or not isinstance(function.get('parameters', {}), dict):
        raise InvalidRequest('A tool has to be {"type": "function", "function": {"name", "parameters"}}.')
    return function


def _call_schema(function: Values) -> Values:
    return {'type': 'object', 'properties': {'name': {'const': function['name']},
                                             'arguments': function.get('parameters') or {'type': 'object'}},
            'required': ['name', 'arguments'], 'additionalProperties': False}


def _format_schema(form: dict[str, Any]) -> Any:
    kind = form.get('type')
    if kind == 'json_object':
        return {'type': 'object'}
    if kind == 'json_schema':
        schema = form.get('json_schema')
        if not isinstance(schema, dict) or not isinstance(schema.get('schema'), dict):
            raise InvalidRequest('response_format needs json_schema.schema.')
        return schema['schema']
    if kind == 'text':
        return ''
    raise InvalidRequest('response_format.type has to be text, json_object or json_schema.')


class CompletionBody(Sampled):
    """POST /v1/completions; the prompt is put into the expert's chat template."""

    prompt: Annotated[list[Text], Field(min_length=1, max_length=16)] | Text
    echo: Literal[False] | None = None
    suffix: Literal[''] | None = None

    def goals(self) -> list[Values]:
        """Values of inference.generate, one per choice."""
        self.check_unknown()
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        return [{**self.sampling(), 'prompt': prompt} for prompt in prompts for _ in range(self.n or 1)]


class EmbeddingBody(Body):
    """POST /v1/embeddings."""

    model_config = ConfigDict(extra='forbid')

    input: Annotated[list[Text], Field(min_length=1, max_length=256)] | Text
    model: Annotated[str, Field(max_length=80)] = AUTO
    encoding_format: Literal['float', 'base64'] = 'float'
    user: str | None = None
