"""Callers that do not behave: slow, half-closed, too large, not UTF-8, path tricks. Clear errors, nothing written."""

import contextlib
import json
import socket

import pytest

JSON = {'Content-Type': 'application/json'}


@pytest.fixture
def raw(gateway):
    host, port = gateway.url.removeprefix('http://').split(':')
    with socket.create_connection((host, int(port)), timeout=30.0) as connection:
        yield connection


def everything(connection):
    found = b''
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            found += piece
    return found


def test_a_head_that_never_ends_is_cut_off(raw):
    raw.sendall(b'GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ')
    assert everything(raw) == b''


def test_a_body_that_never_ends_is_answered_408(raw):
    raw.sendall(b'POST /v1/inference/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'
                b'Content-Length: 100\r\nConnection: close\r\n\r\n{"prompt"')
    answer = everything(raw)
    assert answer.startswith(b'HTTP/1.1 408')
    assert b'"success":false' in answer


def test_a_half_closed_socket_still_gets_its_answer_or_an_end(raw):
    raw.sendall(b'GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    raw.shutdown(socket.SHUT_WR)
    answer = everything(raw)
    assert answer == b'' or answer.startswith(b'HTTP/1.1 200')


@pytest.mark.parametrize('line', [b'\x00\x01\x02\r\n\r\n', b'GET / HTTP/9.9\r\n\r\n', b'GET / \r\n\r\n',
                                  b'POST /v1/inference/generate HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n'])
def test_what_is_no_http_is_refused(raw, line):
    raw.sendall(line)
    answer = everything(raw)
    assert answer == b'' or answer.startswith(b'HTTP/1.1 4')


def test_a_huge_body_is_refused_before_it_is_read(http):
    answer = http.post('/v1/inference/generate', content=b'x' * 2_000_000, headers=JSON)
    assert answer.status_code == 413
    assert '1000000 bytes' in answer.json()['error']['message']


def test_a_huge_body_without_a_length_is_refused_too(http):
    def pieces():
        for _ in range(40):
            yield b'x' * 65536
    answer = http.post('/v1/inference/generate', content=pieces(), headers=JSON)
    assert answer.status_code == 413


@pytest.mark.parametrize('content', [b'\xff\xfe{"prompt"', b'{"prompt": "\xc3\x28"}', b'{', b'[]', b'null', b'',
                                     b'{"prompt": "\\ud800"}', b'{"prompt": 1e999}', b'[' * 100_000,
                                     b'{"prompt": "x", "max_tokens": ' + b'9' * 5000 + b'}'])
def test_bodies_that_are_no_request_are_4xx(http, content):
    for path in ('/v1/inference/generate', '/v1/chat/completions', '/v1/experts'):
        answer = http.post(path, content=content, headers=JSON)
        assert 400 <= answer.status_code < 500, (path, content[:40], answer.text)
        assert answer.json()['error']['message']


@pytest.mark.parametrize('name', ['../../evil.jsonl', '/etc/evil.jsonl', '..\\evil.jsonl', '.hidden.jsonl', 'rows.exe',
                                  'a' * 300 + '.jsonl', 'rows.jsonl\x00.exe', ''])
def test_tricks_with_names_write_nothing(http, home, name):
    answer = http.post('/v1/datasets/upload', files={'file': (name, b'{}\n')})
    assert 400 <= answer.status_code < 500
    assert not list((home / 'datasets').glob('**/*.jsonl'))
    assert not list(home.rglob('evil*'))


def test_an_upload_over_the_limit_leaves_nothing(http, home):
    answer = http.post('/v1/datasets/upload', files={'file': ('rows.jsonl', b'x' * 200_000)})
    assert answer.status_code == 413
    assert not list((home / 'datasets').rglob('rows*'))
    assert not list((home / 'datasets').rglob('*.part'))


def test_an_upload_is_kept_whole(http, home):
    content = b'{"prompt": "a", "completion": "b"}\n' * 100
    data = http.post('/v1/datasets/upload', files={'file': ('good.jsonl', content)}).json()['data']
    assert data == {'path': str(home / 'datasets' / 'uploads' / 'good.jsonl'), 'size_bytes': len(content)}
    assert (home / 'datasets' / 'uploads' / 'good.jsonl').read_bytes() == content
    (home / 'datasets' / 'uploads' / 'good.jsonl').unlink()


def test_static_files_end_at_their_folder(http):
    for path in ('/static/../gateway/keys.py', '/static/%2e%2e/gateway/keys.py', '/static//etc/passwd'):
        assert http.get(path).status_code == 404


def test_after_all_that_it_still_answers(http):
    answer = http.post('/v1/inference/generate', content=json.dumps(
        {'prompt': 'What is the capital of France?', 'expert': 'general'}), headers=JSON)
    assert 'Paris' in answer.json()['data']['response']['text']
