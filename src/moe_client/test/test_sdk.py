"""The SDK over both transports: the same calls, the same results, the same errors."""

import asyncio
import signal
import time

import pytest
from conftest import wait_for

from moe_client import (
    Chunk,
    Client,
    ExpertContext,
    ExpertCreationFailed,
    ExpertNotFound,
    Generation,
    InvalidRequest,
    Timeout,
    Unavailable,
)

QUESTION = 'What is the capital of France?'


@pytest.fixture(scope='module', params=['ros', 'http'])
def client(request, gateway, ros_client):
    if request.param == 'ros':
        yield ros_client
        return
    with Client(base_url=gateway.url) as client:
        yield client


def running(client):
    return client.inference.serving()['running']


def test_experts(client):
    assert {'general', 'python', 'linux'} <= {row.name for row in client.experts.list()}
    row = client.experts.get('python')
    assert (row.domain, row.status, row.champion_version) == ('python', 'ready', 1)
    assert row.versions[0]['kind'] == 'adapter'
    assert client.experts.get(row.id) == row
    assert client.experts.name_of(row.id) == 'python'


def test_versions_are_registered_and_aliases_moved(client, request):
    artifact, name = client.experts.get('linux').versions[0]['artifact'], f'kept-{request.node.callspec.id}'
    client.experts.create(name, 'linux')
    try:
        with pytest.raises(ExpertCreationFailed, match='is an adapter'):
            client.experts.register(name, artifact)
        version = client.experts.register(name, artifact, base='linux', reason='a test')
        assert (version['version'], version['kind']) == (1, 'adapter')
        assert version['base_sha256'] == client.experts.get('linux').versions[0]['base_sha256']
        assert client.experts.set_alias(name, 'tried', 1) == 0
        assert client.experts.set_alias(name, 'tried', 0) == 1
        assert [row.name for row in client.experts.list(category='linux', sort='-id', limit=1)] == [name]
        assert name not in {row.name for row in client.experts.list(sort='-id', offset=1)}
    finally:
        client.experts.delete(name)


def test_unknown_experts_are_named(client):
    with pytest.raises(ExpertNotFound, match='Expert with id=999 not found'):
        client.experts.get(999)
    with pytest.raises(ExpertNotFound, match='nobody'):
        client.inference.generate('hello', expert='nobody')


def test_an_answer_streamed_and_whole(client):
    *chunks, answer = client.inference.generate_stream(QUESTION, expert='general', temperature=0.0)
    assert isinstance(answer, Generation)
    assert all(isinstance(chunk, Chunk) for chunk in chunks)
    assert ''.join(map(str, chunks)) == answer.text
    assert 'Paris' in answer.text
    whole = client.inference.generate(QUESTION, expert='general', temperature=0.3, top_p=0.9, top_k=40, max_tokens=5)
    assert whole.completion_tokens <= 5


def test_an_expert_is_loaded_within_its_context_alone(client):
    def loaded():
        return {row['expert'] for row in client.inference.serving()['experts']}
    row = client.experts.get('linux')
    with ExpertContext(row.id, client) as expert:
        assert 'df' in expert.inference('How can I see how much disk space is free?').text
        wait_for(lambda: 'linux' in loaded(), what='linux loaded')
    wait_for(lambda: 'linux' not in loaded(), what='linux unloaded')
    with pytest.raises(ExpertNotFound), ExpertContext(999, client):
        raise AssertionError('it was entered')


def test_an_answer_of_a_schema_and_a_stop(client):
    schema = {'type': 'object', 'properties': {'n': {'type': 'integer', 'maximum': 99, 'minimum': 0}},
              'required': ['n'], 'additionalProperties': False}
    assert client.inference.generate('A number?', expert='general', json_schema=schema).text.startswith('{"n":')
    assert 'Paris' not in client.inference.generate(QUESTION, expert='general', temperature=0.0, stop='Paris').text


def test_asynchronous_answers_side_by_side(client):
    async def ask():
        return await asyncio.gather(*(client.inference.generate_async(QUESTION, expert='general') for _ in range(3)))
    assert all('Paris' in answer.text for answer in asyncio.run(ask()))


def test_answers_that_come_while_nobody_takes_them_are_kept(ros_client):
    """rcl keeps ten of a service; all 64 acceptances come while the spinning thread does something else."""
    async def burst():
        asked = [asyncio.create_task(ros_client.inference.generate_async(
            f'{QUESTION} {index}', expert='general', max_tokens=2, timeout=60)) for index in range(64)]
        ros_client.graph._executor.create_task(time.sleep, 3.0)
        return await asyncio.gather(*asked)
    ros_client.inference.generate(QUESTION, expert='general', max_tokens=2)
    assert all(answer.completion_tokens for answer in asyncio.run(burst()))


def test_a_node_that_accepts_nothing_is_named(ros_client, nodes):
    router = nodes['router'].process
    ros_client.inference.generate(QUESTION, expert='general', max_tokens=2)
    router.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(Unavailable, match='did not accept the goal within'):
            ros_client.inference.generate(QUESTION, expert='general', max_tokens=2)
    finally:
        router.send_signal(signal.SIGCONT)
    assert ros_client.inference.generate(QUESTION, expert='general', max_tokens=2).completion_tokens


def test_cancelling_the_task_cancels_the_generation(client):
    async def ask():
        task = asyncio.create_task(client.inference.generate_async(
            'Tell me a long story.', expert='general', max_tokens=1000, seed=1, temperature=1.0, json_schema=ENDLESS))
        while not await asyncio.to_thread(running, client):
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    asyncio.run(ask())
    wait_for(lambda: not running(client), what='an idle expert node')


def test_closing_the_stream_cancels_the_generation(client):
    stream = client.inference.generate_stream('Tell me a long story.', expert='general', max_tokens=1000,
                                              json_schema=ENDLESS)
    next(item for item in stream if str(item))
    stream.close()
    wait_for(lambda: not running(client), what='an idle expert node')


def test_a_timeout_is_a_timeout_error(client):
    with pytest.raises(Timeout, match='Request timed out') as caught:
        client.inference.generate('Tell me a long story.', expert='general', max_tokens=1000, json_schema=ENDLESS,
                                  timeout=0.3)
    assert isinstance(caught.value, TimeoutError)
    wait_for(lambda: not running(client), what='an idle expert node')


def test_wrong_values_are_refused(client):
    with pytest.raises(InvalidRequest):
        client.inference.generate('   ')
    with pytest.raises(InvalidRequest, match='top_p'):
        client.inference.generate(QUESTION, top_p='much')


def test_routing(client):
    route = client.router.route('How do I read a JSON file in Python?')
    assert route.choice == 'python'
    assert route.ranked[0][0] == 'python'
    stats = client.router.stats()
    assert stats.requests > 0
    decision, explanation = client.router.explain('How do I read a JSON file in Python?')
    assert decision.choice == 'python'
    assert explanation


def test_what_no_node_serves_is_said_in_one_sentence(client):
    with pytest.raises(Unavailable, match='the motion node does not run'):
        client.robot.move('pan', 10)
    with pytest.raises(Unavailable, match=r'training/validate_dataset.*training node'):
        client.datasets.validate('/nowhere.jsonl')


def test_creating_and_deleting_what_it_makes(client):
    name = f'made_{client.transport.__class__.__name__.lower()}'
    row = client.experts.create(name, 'testing', 'Made by a test.')
    assert client.experts.get(row.id).status == 'creating'


def test_where_no_gateway_is_the_sentence_names_it():
    with Client(base_url='http://127.0.0.1:9') as client, pytest.raises(Unavailable, match=r'127\.0\.0\.1:9'):
        client.experts.list()


ENDLESS = {'type': 'array', 'items': {'type': 'integer', 'minimum': 0, 'maximum': 9}, 'minItems': 900}
