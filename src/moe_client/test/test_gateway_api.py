"""The suite's own API: envelopes, events, keys, limits, what is told when something is away."""

import asyncio
import json
import signal

import httpx
import pytest
import websockets
from conftest import Gateway, wait_for, write_keys

ENDLESS = {'type': 'array', 'items': {'type': 'integer', 'minimum': 0, 'maximum': 9}, 'minItems': 900}
STORY = {'prompt': 'Tell me a long story.', 'expert': 'general', 'max_tokens': 1000, 'json_schema': ENDLESS}


def running(http):
    return http.get('/v1/inference/serving').json()['data']['running']


def test_every_answer_is_an_envelope_with_the_requests_id(http):
    answer = http.post('/v1/inference/generate', json={'prompt': 'What is the capital of France?', 'expert': 'general'},
                       headers={'X-Request-ID': 'my-own-1'})
    body = answer.json()
    assert (body['success'], body['error']) == (True, None)
    assert body['timestamp']
    assert 'Paris' in body['data']['response']['text']
    assert body['data']['request_id'] == answer.headers['x-request-id'] == 'my-own-1'
    assert len(http.get('/v1/experts', headers={'X-Request-ID': 'not one!'}).headers['x-request-id']) == 16


def test_the_requests_id_is_in_the_log(http, gateway):
    http.get('/v1/experts/python', headers={'X-Request-ID': 'find-me-42'})
    line = wait_for(lambda: next((line for line in gateway.node.log.read_text().splitlines() if 'find-me-42' in line),
                                 ''))
    assert 'GET /v1/experts/{id_or_name} 200' in line


@pytest.mark.parametrize(('method', 'path', 'body', 'status', 'code', 'words'), [
    ('GET', '/v1/experts/999', None, 404, 1000, 'Expert with id=999 not found'),
    ('POST', '/v1/experts', {'expert': {'name': 'python', 'domain': 'x'}}, 409, 1003, 'python'),
    ('POST', '/v1/inference/generate', {'prompt': ' '}, 400, 3004, ''),
    ('POST', '/v1/inference/generate', {'prompt': 'x', 'temperatur': 1}, 422, 3004, 'temperatur'),
    ('POST', '/v1/inference/generate', {'prompt': 7}, 422, 3004, 'prompt'),
    ('POST', '/v1/inference/generate', {'prompt': 'a\0b'}, 422, 3004, 'NUL'),
    ('POST', '/v1/inference/generate', {'prompt': 'x' * 300_000}, 400, 3004, '300000 characters'),
    ('POST', '/v1/hardware/servo/move', {'joint': 'pan', 'degrees': 10}, 503, 5000, 'motion'),
    ('POST', '/v1/datasets/validate', {'path': '/x'}, 503, 5000, 'training'),
    ('GET', '/v1/nowhere', None, 404, 3004, 'Not Found'),
    ('DELETE', '/v1/inference/generate', None, 405, 3004, 'Not Allowed'),
])
def test_errors_have_code_and_sentence(http, method, path, body, status, code, words):
    answer = http.request(method, path, json=body) if body is not None else http.request(method, path)
    told = answer.json()
    assert (answer.status_code, told['success'], told['data']) == (status, False, None)
    assert told['error']['code'] == code
    assert words in told['error']['message']


def test_a_stream_of_events(http):
    body = {'prompt': 'What is the capital of France?', 'expert': 'general'}
    kinds, text = [], ''
    with http.stream('POST', '/v1/inference/generate/stream', json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith('event: '):
                kinds.append(line[7:])
            elif line.startswith('data: ') and kinds[-1] == 'progress':
                text += json.loads(line[6:])['partial_response']['text']
            elif line.startswith('data: '):
                result = json.loads(line[6:])
    assert kinds[-1] == 'result'
    assert set(kinds[:-1]) == {'progress'}
    assert result['response']['text'].startswith(text)


def test_a_batch_has_an_answer_for_each(http):
    question = {'prompt': 'What is the capital of France?', 'expert': 'general'}
    rows = http.post('/v1/inference/generate/batch', json={
        'requests': [question, {'prompt': 'x', 'expert': 'nobody'}, question]}).json()['data']
    assert [row['success'] for row in rows] == [True, False, True]
    assert rows[1]['error']['code'] == 1000


@pytest.mark.parametrize('path', ['/v1/inference/generate', '/v1/inference/generate/stream'])
def test_a_caller_that_goes_away_cancels_the_generation(http, gateway, path):
    async def leave():
        async with httpx.AsyncClient(base_url=gateway.url) as client:
            task = asyncio.create_task(client.post(path, json=STORY))
            while not await asyncio.to_thread(running, http):
                await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    asyncio.run(leave())
    wait_for(lambda: not running(http), what='an idle expert node')


def test_channels_tell_what_happens(gateway, http):
    async def watch():
        async with websockets.connect(gateway.url.replace('http', 'ws') + '/ws') as socket:
            await socket.send(json.dumps({'subscribe': ['inference']}))
            assert json.loads(await socket.recv())['data'] == {'channels': ['inference']}
            await asyncio.to_thread(http.post, '/v1/inference/generate', json={
                'prompt': 'What is the capital of France?', 'expert': 'general', 'request_id': 'watched'})
            found = []
            while 'finished' not in found:
                message = json.loads(await socket.recv())
                if message['data'].get('request_id') == 'watched':
                    found.append(message['event'])
            return found
    assert asyncio.run(watch()) == ['started', 'finished']


def test_a_wrong_message_closes_the_channel_with_the_reason(gateway):
    async def send(text):
        async with websockets.connect(gateway.url.replace('http', 'ws') + '/ws') as socket:
            await socket.send(text)
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
            return closed.value.rcvd.code
    assert asyncio.run(send('{"subscribe": ["secrets"]}')) == 1008
    assert asyncio.run(send('not json')) == 1008


def test_health_names_each_component(http):
    health = http.get('/health').json()['data']
    assert health['components']['router']['status'] == 'up'
    assert health['status'] == 'degraded'
    assert 'servos' in health['down']


def test_the_page_and_the_documents(http):
    assert '<title>moe</title>' in http.get('/').text
    assert http.get('/docs').status_code == 200
    assert '/v1/inference/generate' in http.get('/openapi.json').json()['paths']


class TestKeysAndLimits:
    """A gateway that other machines may reach, so that everybody needs a key."""

    @pytest.fixture(scope='class')
    def guarded(self, home, nodes):
        write_keys(home, (1, 'asker', 'moe_1_askersecretaskersecret', ['inference']),
                   (2, 'boss', 'moe_2_bosssecretbosssecret', ['inference', 'manage', 'hardware']))
        started = Gateway(home, api__host='0.0.0.0', api__rate_limit=6)
        started.url = started.url.replace('0.0.0.0', '127.0.0.1')
        yield started
        (home / 'run' / 'api_keys.json').unlink()
        assert started.node.end() == 0

    @staticmethod
    def get(guarded, path, key='', **more):
        headers = {'Authorization': f'Bearer {key}'} if key else {}
        return httpx.request(more.get('method', 'GET'), guarded.url + path, headers=headers, json=more.get('json'))

    def test_no_key_and_a_wrong_key_are_401(self, guarded):
        for key in ('', 'moe_1_wrong', 'nonsense'):
            answer = self.get(guarded, '/v1/experts', key)
            assert (answer.status_code, answer.json()['error']['code']) == (401, 6000)
        assert self.get(guarded, '/v1/models').json()['error']['type'] == 'authentication_error'
        wait_for(lambda: self.get(guarded, '/health').status_code == 200)

    def test_a_key_of_another_scope_is_403(self, guarded):
        answer = self.get(guarded, '/v1/experts/python', 'moe_1_askersecretaskersecret', method='DELETE')
        assert (answer.status_code, answer.json()['error']['code']) == (403, 6001)
        assert 'manage' in answer.json()['error']['message']

    def test_limits_are_told_and_held(self, guarded):
        answers = [self.get(guarded, '/v1/experts', 'moe_2_bosssecretbosssecret') for _ in range(14)]
        assert {answer.status_code for answer in answers} == {200, 429}
        last = next(answer for answer in answers if answer.status_code == 429)
        assert last.headers['x-ratelimit-limit'] == '6'
        assert last.headers['x-ratelimit-remaining'] == '0'
        assert 0 < int(last.headers['retry-after']) <= 60
        assert last.json()['error']['code'] == 6002

    def test_a_revoked_key_is_refused_at_once(self, guarded, home):
        write_keys(home, (2, 'boss', 'moe_2_bosssecretbosssecret', ['inference']))
        wait_for(lambda: self.get(guarded, '/v1/experts', 'moe_1_askersecretaskersecret').status_code == 401)

    def test_no_key_is_in_any_log_or_answer(self, guarded, home):
        answer = self.get(guarded, '/v1/experts', 'moe_2_thisIsMySecretKey')
        assert 'thisIsMySecretKey' not in answer.text
        for log in home.glob('*.log'):
            assert 'secret' not in log.read_text().lower(), log


def test_two_workers_share_limits_and_metrics(home, nodes):
    gateway = Gateway(home, api__workers=2, api__rate_limit=30)
    try:
        statuses = []
        for _ in range(70):
            with httpx.Client(base_url=gateway.url, timeout=30.0) as client:  # connections spread over the workers
                statuses.append(client.get('/v1/experts').status_code)
        assert set(statuses) == {200, 429}
        assert 30 <= statuses.count(200) <= 60  # the minute may end between them
        text = httpx.get(gateway.metrics).text
        counted = sum(float(line.rsplit(' ', 1)[1]) for line in text.splitlines()
                      if line.startswith('moe_requests_total') and '/v1/experts"' in line)
        assert counted >= statuses.count(200)
    finally:
        assert gateway.node.end() == 0


def test_a_taken_port_is_named_with_who_has_it(home, nodes, gateway):
    from conftest import NodeProcess
    port = int(gateway.url.rpartition(':')[2])
    second = NodeProcess(home, 'moe_client', 'gateway_node', **{'api.port': port, 'metrics.port': 0})
    try:
        wait_for(lambda: 'api.port in config/gateway.yaml' in second.log.read_text())
        line = next(line for line in second.log.read_text().splitlines() if f':{port} cannot be used' in line)
        assert f'(pid {gateway.state["pid"]}) has it' in line
    finally:
        assert second.end() == 0


def test_a_node_that_was_killed_is_named(home, nodes, http):
    """Last in this file: the router comes back under another process."""
    from conftest import NodeProcess
    nodes['router'].process.send_signal(signal.SIGKILL)
    nodes['router'].process.wait()
    answer = http.post('/v1/router/route', json={'prompt': 'list files'}, timeout=60.0)
    assert answer.status_code in (503, 504)
    assert 'rout' in answer.json()['error']['message']
    nodes['router'] = NodeProcess(home, 'moe_router', 'router_node')
    wait_for(lambda: http.post('/v1/router/route', json={'prompt': 'list files'}).status_code == 200, timeout=120.0)
