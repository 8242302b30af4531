"""OpenAI's API: chat completions, completions, embeddings, models."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from moe_client.errors import InvalidRequest, MoeError
from moe_client.gateway.context import Context, need, opened, stream_of, while_connected
from moe_client.gateway.envelope import FAILURES, JsonBytes, OpenAiFailure, finite, plain_json, problem
from moe_client.gateway.openai_bodies import AUTO, ChatBody, CompletionBody, EmbeddingBody, Sampled
from moe_client.transport import Event, Values

DONE = b'data: [DONE]'
STREAM: dict[int | str, dict[str, Any]] = {200: {'content': {'text/event-stream': {}}}}


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=['openai'], dependencies=[need('inference')], responses={
        status: {'model': OpenAiFailure, 'description': text} for status, text in FAILURES.items()})

    @routes.post('/v1/chat/completions', response_model=dict[str, Any], responses=STREAM)
    async def chat(request: Request, body: ChatBody) -> Response:
        """A conversation; model is "auto" (the router chooses) or an expert's name."""
        values, calls = body.goal()
        context.check_prompt(''.join(message['content'] for message in values['messages']))
        values.update(expert=expert_of(body.model), request_id=request.state.request_id)
        events = context.generation('inference.chat', values, None)
        if not body.stream:
            result = await while_connected(request, _last(events))
            return JsonBytes(finite(_chat_answer(result, calls)))
        return _stream(_chat_chunks(await opened(events), request.state.request_id, body, calls))

    @routes.post('/v1/completions', response_model=dict[str, Any], responses=STREAM)
    async def complete(request: Request, body: CompletionBody) -> Response:
        """A prompt, or several; each is put into the expert's chat template."""
        number = request.state.request_id
        goals = [{**goal, 'expert': expert_of(body.model), 'request_id': f'{number}-{index}' if index else number}
                 for index, goal in enumerate(body.goals())]
        context.check_prompt(''.join(goal['prompt'] for goal in goals))
        if not body.stream:
            results = await while_connected(request, asyncio.gather(
                *(context.answer('inference.generate', goal, None) for goal in goals)))
            return JsonBytes(_completion(number, results))
        if len(goals) > 1:
            raise InvalidRequest('A stream has one prompt and n = 1.')
        events = await opened(context.generation('inference.generate', goals[0], None))
        return _stream(_completion_chunks(events, number, body))

    @routes.post('/v1/embeddings', response_model=dict[str, Any])
    async def embed(request: Request, body: EmbeddingBody) -> Response:
        """Texts as vectors of unit length, mean over an expert's token states."""
        texts = [body.input] if isinstance(body.input, str) else body.input
        context.check_prompt(''.join(texts))
        rows, tokens = [], 0
        for index, text in enumerate(texts):
            result = await while_connected(request, context.backend.acall(
                'inference.embed', {'prompt': text, 'expert': expert_of(body.model)}))
            tokens += result['n_tokens']
            vector: Any = result['embeddings']
            if body.encoding_format == 'base64':
                vector = base64.b64encode(struct.pack(f'<{len(vector)}f', *vector)).decode()
            rows.append({'object': 'embedding', 'index': index, 'embedding': vector})
        return JsonBytes({'object': 'list', 'data': rows, 'model': body.model,
                          'usage': {'prompt_tokens': tokens, 'total_tokens': tokens}})

    @routes.get('/v1/models', response_model=dict[str, Any])
    async def models() -> Response:
        """Every expert with its state, and "auto"."""
        return JsonBytes({'object': 'list', 'data': await _models(context)})

    @routes.get('/v1/models/{model}', response_model=dict[str, Any])
    async def model(model: str) -> Response:
        """One of them."""
        for row in await _models(context):
            if row['id'] == model:
                return JsonBytes(row)
        raise MoeError(f'The model {model[:80]!r} does not exist; GET /v1/models lists them.', 1000)

    return routes


def expert_of(model: str) -> str:
    """The expert of a model's name: '' lets the router choose; a version behind "@" is left out."""
    name = model.partition('@')[0]
    return '' if name == AUTO else name


async def _models(context: Context) -> list[Values]:
    rows = (await context.backend.acall('experts.list', {'limit': 1000}))['experts']
    loaded = {entry['expert']: entry['state'] for status in context.observations.serving()
              for entry in status['experts']}
    found = [{'id': AUTO, 'object': 'model', 'created': 0, 'owned_by': 'moe', 'state': 'ready'}]
    for row in rows:
        ready = row['status'] == 'ready' and row['champion_version'] > 0
        found.append({'id': row['name'], 'object': 'model', 'created': int(row['created_at']), 'owned_by': 'moe',
                      'state': loaded.get(row['name'], 'not loaded') if ready else row['status'],
                      'domain': row['domain'], 'version': row['champion_version']})
    return found


async def _last(events: AsyncGenerator[Event, None]) -> Values:
    async for event in events:
        last = event.data
    return last


def _usage(usage: Values) -> Values:
    return {'prompt_tokens': usage['prompt_tokens'], 'completion_tokens': usage['completion_tokens'],
            'total_tokens': usage['total_tokens'], 'prompt_tokens_details': {'cached_tokens': usage['cached_tokens']}}


def _route(result: Values) -> Values:
    """What OpenAI's API has no place for: who was chosen, how sure the router was, what else there was."""
    route = result['route']
    return {'expert': result['expert'], 'version': result['expert_version'], 'confidence': route['confidence'],
            'abstained': route['abstained'], 'alternatives': dict(zip(route['ranked'], route['probabilities']))}


def _tool_call(text: str) -> Values:
    call = json.loads(text)
    return {'id': f'call_{uuid.uuid4().hex[:24]}', 'type': 'function', 'function': {
        'name': call['name'], 'arguments': json.dumps(call['arguments'])}}


def _chat_answer(result: Values, calls: bool) -> Values:
    choices = []
    for choice in result['choices']:
        text, reason = choice['message']['content'], choice['finish_reason']
        message: Values = {'role': 'assistant', 'content': text, 'refusal': None}
        if calls and reason == 'stop':
            message, reason = {**message, 'content': None, 'tool_calls': [_tool_call(text)]}, 'tool_calls'
        choices.append({'index': choice['index'], 'message': message, 'finish_reason': reason, 'logprobs': None})
    return {'id': result['id'] or f'chatcmpl-{result["request_id"]}', 'object': 'chat.completion',
            'created': result['created'] or int(time.time()), 'model': result['model'], 'choices': choices,
            'usage': _usage(result['usage']), 'moe': _route(result)}


async def _chat_chunks(events: AsyncGenerator[Event, None], number: str, body: ChatBody, calls: bool
                       ) -> AsyncGenerator[Values, None]:
    """A stream's chunks: the role, what is new, the end with its reason and, where wanted, the usage."""
    head: Values = {'id': f'chatcmpl-{number}', 'object': 'chat.completion.chunk', 'created': int(time.time()),
                    'model': body.model}

    def chunk(index: int, delta: Values, reason: str | None = None) -> Values:
        return {**head, 'choices': [{'index': index, 'delta': delta, 'finish_reason': reason, 'logprobs': None}]}

    streamed: dict[int, str] = {}
    async for event in events:
        data = event.data
        if event.kind != 'result':
            index, text = data['index'], data['partial_response']['text']
            if index not in streamed:
                head['model'] = f'{data["expert"]}@{data["expert_version"]}'
                streamed[index] = ''
                yield {**chunk(index, {'role': 'assistant', 'content': None if calls else ''}),
                       'moe': {'expert': data['expert'], 'version': data['expert_version'],
                               'confidence': data['confidence'], 'abstained': data['abstained']}}
            streamed[index] += text
            if text and not calls:
                yield chunk(index, {'content': text})
            continue
        for choice in data['choices']:
            index, text, reason = choice['index'], choice['message']['content'], choice['finish_reason']
            if calls and reason == 'stop':
                yield chunk(index, {'tool_calls': [{'index': 0, **_tool_call(text)}]})
                reason = 'tool_calls'
            elif rest := text.removeprefix('' if calls else streamed.get(index, '')):
                yield chunk(index, {'content': rest})  # the result overtook the end of the stream
            yield {**chunk(index, {}, reason), 'moe': _route(data)}
        if body.usage_wanted:
            yield {**head, 'choices': [], 'usage': _usage(data['usage'])}


def _completion(number: str, results: list[Values]) -> Values:
    totals: Values = {key: sum(result['usage'][key] for result in results) for key in results[0]['usage']}
    return {'id': f'cmpl-{number}', 'object': 'text_completion', 'created': int(time.time()),
            'model': f'{results[0]["expert"]}@{results[0]["expert_version"]}',
            'choices': [{'index': index, 'text': result['response']['text'], 'logprobs': None,
                         'finish_reason': result['finish_reason']} for index, result in enumerate(results)],
            'usage': _usage(totals), 'moe': finite(_route(results[0]))}


async def _completion_chunks(events: AsyncGenerator[Event, None], number: str, body: Sampled
                             ) -> AsyncGenerator[Values, None]:
    head: Values = {'id': f'cmpl-{number}', 'object': 'text_completion', 'created': int(time.time()),
                    'model': body.model}

    def chunk(text: str, reason: str | None = None) -> Values:
        return {**head, 'choices': [{'index': 0, 'text': text, 'finish_reason': reason, 'logprobs': None}]}

    streamed = ''
    async for event in events:
        data = event.data
        if event.kind != 'result':
            head['model'] = f'{data["expert"]}@{data["expert_version"]}'
            streamed += data['partial_response']['text']
            if data['partial_response']['text']:
                yield chunk(data['partial_response']['text'])
            continue
        yield chunk(data['response']['text'].removeprefix(streamed), data['finish_reason'])
        if body.usage_wanted:
            yield {**head, 'choices': [], 'usage': _usage(data['usage'])}


def _stream(chunks: AsyncGenerator[Values, None]) -> Response:
    def wrong(error: MoeError) -> bytes:
        told = problem(error)
        return b'data: ' + plain_json({'error': {'message': told['message'], 'type': 'server_error',
                                                 'param': None, 'code': str(told['code'])}})
    return stream_of(chunks, lambda chunk: b'data: ' + plain_json(finite(chunk)), wrong, DONE)
