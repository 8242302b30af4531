"""OpenAI's API with OpenAI's own package, and with curl."""

import asyncio
import json
import shutil
import subprocess

import openai
import pytest

QUESTION = [{'role': 'user', 'content': 'What is the capital of France?'}]
SCHEMA = {'type': 'object', 'properties': {'city': {'type': 'string', 'maxLength': 12}}, 'required': ['city'],
          'additionalProperties': False}


@pytest.fixture(scope='module')
def client(gateway):
    with openai.OpenAI(base_url=f'{gateway.url}/v1', api_key='none-needed', max_retries=0) as client:
        yield client


def test_a_chat_is_answered_by_the_expert_that_is_named(client):
    answer = client.chat.completions.create(model='general', messages=QUESTION, temperature=0)
    assert 'Paris' in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == 'stop'
    assert answer.model == 'general@1'
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


def test_auto_lets_the_router_choose_and_says_whom(client):
    answer = client.chat.completions.create(model='auto', messages=[
        {'role': 'user', 'content': 'How do I read a JSON file in Python?'}])
    assert answer.model == 'python@1'
    assert answer.moe['expert'] == 'python'
    assert answer.moe['confidence'] > 0.5
    assert 'linux' in answer.moe['alternatives']


def test_a_stream_is_what_the_whole_answer_is(client):
    asked = [{'role': 'user', 'content': 'What is the capital of Italy, and of Spain?'}]
    # streamed first: what was answered before is streamed in one piece
    chunks = list(client.chat.completions.create(
        model='general', messages=asked, temperature=0, stream=True, stream_options={'include_usage': True}))
    whole = client.chat.completions.create(model='general', messages=asked, temperature=0)
    text = ''.join(chunk.choices[0].delta.content or '' for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) > 3
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_a_tool_is_called_with_arguments_of_its_schema(client):
    tools = [{'type': 'function', 'function': {'name': 'find_city', 'parameters': SCHEMA}}]
    answer = client.chat.completions.create(model='general', messages=QUESTION, tools=tools, temperature=0)
    choice = answer.choices[0]
    assert choice.finish_reason == 'tool_calls'
    call = choice.message.tool_calls[0]
    assert call.function.name == 'find_city'
    assert set(json.loads(call.function.arguments)) == {'city'}
    messages = [*QUESTION, choice.message.model_dump(exclude_none=True),
                {'role': 'tool', 'tool_call_id': call.id, 'content': 'Paris'}]
    after = client.chat.completions.create(model='general', messages=messages, tools=tools, temperature=0)
    assert after.choices[0].finish_reason in ('stop', 'length')
    assert after.choices[0].message.content


def test_a_streamed_call_of_a_tool(client):
    tools = [{'type': 'function', 'function': {'name': name, 'parameters': SCHEMA}} for name in ('first', 'second')]
    chunks = list(client.chat.completions.create(model='general', messages=QUESTION, tools=tools, stream=True,
                                                 tool_choice={'type': 'function', 'function': {'name': 'second'}}))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert [call.function.name for call in calls] == ['second']
    assert chunks[-1].choices[0].finish_reason == 'tool_calls'


def test_an_answer_of_a_schema(client):
    answer = client.chat.completions.create(model='general', messages=QUESTION, temperature=0, response_format={
        'type': 'json_schema', 'json_schema': {'name': 'city', 'schema': SCHEMA}})
    assert set(json.loads(answer.choices[0].message.content)) == {'city'}


def test_several_choices_stop_and_max_tokens(client):
    answer = client.chat.completions.create(model='general', messages=QUESTION, n=2, max_tokens=3)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert {choice.finish_reason for choice in answer.choices} == {'length'}
    stopped = client.chat.completions.create(model='general', messages=QUESTION, stop=['Paris'], temperature=0)
    assert 'Paris' not in stopped.choices[0].message.content


def test_completions(client):
    answer = client.completions.create(model='general', prompt=['What is the capital of France?'] * 2, temperature=0)
    assert len(answer.choices) == 2
    assert 'Paris' in answer.choices[0].text
    streamed = ''.join(chunk.choices[0].text for chunk in client.completions.create(
        model='general', prompt='What is the capital of France?', temperature=0, stream=True))
    assert streamed == answer.choices[0].text


def test_embeddings_have_unit_length(client):
    answer = client.embeddings.create(model='general', input=['a robot arm', 'a robotic arm'])
    first, second = (row.embedding for row in answer.data)
    assert sum(value * value for value in first) == pytest.approx(1.0, abs=1e-3)
    assert sum(one * two for one, two in zip(first, second)) > 0.8
    assert answer.usage.prompt_tokens > 0


def test_models_have_states(client):
    states = {model.id: model.state for model in client.models.list()}
    assert states['auto'] == 'ready'
    assert {'general', 'python', 'linux'} <= set(states)
    assert client.models.retrieve('general').owned_by == 'moe'


@pytest.mark.parametrize(('options', 'kind', 'words'), [
    ({'model': 'nobody'}, openai.NotFoundError, 'nobody'),
    ({'model': 'general', 'extra_body': {'frobnicate': 1}}, openai.BadRequestError, 'frobnicate'),
    ({'model': 'general', 'temperature': 7}, openai.UnprocessableEntityError, 'temperature'),
    ({'model': 'general', 'tool_choice': 'required'}, openai.BadRequestError, 'tools'),
    ({'model': 'general', 'response_format': {'type': 'xml'}}, openai.BadRequestError, 'response_format'),
])
def test_errors_are_openais_own(client, options, kind, words):
    with pytest.raises(kind, match=words):
        client.chat.completions.create(messages=QUESTION, **options)


def test_images_are_refused(client):
    content = [{'type': 'image_url', 'image_url': {'url': 'data:,'}}]
    with pytest.raises(openai.BadRequestError, match='images'):
        client.chat.completions.create(model='general', messages=[{'role': 'user', 'content': content}])


def test_sixteen_streams_at_once(gateway):
    async def one(client, number):
        stream = await client.chat.completions.create(model='general', messages=QUESTION, stream=True, seed=number)
        chunks = [chunk async for chunk in stream]
        return chunks[-1].choices[0].finish_reason

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f'{gateway.url}/v1', api_key='x', max_retries=0) as client:
            return await asyncio.gather(*(one(client, number) for number in range(16)))

    assert set(asyncio.run(all_of_them())) <= {'stop', 'length'}


@pytest.mark.skipif(not shutil.which('curl'), reason='no curl on this machine')
def test_curl_reads_the_events(gateway):
    done = subprocess.run(
        ['curl', '-sN', f'{gateway.url}/v1/chat/completions', '-H', 'Content-Type: application/json', '-d',
         json.dumps({'model': 'general', 'messages': QUESTION, 'stream': True})],
        capture_output=True, text=True, timeout=60, check=True)
    lines = [line for line in done.stdout.splitlines() if line]
    assert all(line.startswith('data: ') for line in lines)
    assert lines[-1] == 'data: [DONE]'
    assert json.loads(lines[0][6:])['object'] == 'chat.completion.chunk'
