"""A log of prompts decided again: by the router that runs and by a fit of the registry."""

import json
import sys

import pytest

from moe_client.cli import main
from moe_client.errors import MoeError

LOG = [{'request_id': 'a', 'prompt': 'How do I list all running processes?', 'choice': 'python', 'corrected': 'linux'},
       {'request_id': 'b', 'prompt': 'How do I sort a list in Python?', 'choice': 'python', 'corrected': ''}]


@pytest.fixture
def moe(gateway, home, monkeypatch, capfd):
    """Give a command; returns its exit code, output and errors."""
    for name, value in {'MOE_URL': gateway.url, 'MOE_HOME': str(home)}.items():
        monkeypatch.setenv(name, value)

    def give(*arguments):
        monkeypatch.setattr(sys, 'argv', ['moe', *map(str, arguments)])
        code = main()
        return code, *capfd.readouterr()

    return give


def test_both_ways_decide_alike(ros_client, home, monkeypatch):
    monkeypatch.setenv('MOE_HOME', str(home))
    number = ros_client.router.fit()['number']
    running, by_fit = ros_client.router.replay(LOG), ros_client.router.replay(LOG, number)
    for again in (running, by_fit):
        assert [(row['request_id'], row['before'], row['choice'], row['corrected']) for row in again] == [
            ('a', 'python', 'linux', 'linux'), ('b', 'python', 'python', '')]
    assert [row['confidence'] for row in running] == pytest.approx([row['confidence'] for row in by_fit], abs=1e-3)
    assert ros_client.router.replay([], number) == []


def test_a_fit_that_is_not_there_is_named(ros_client):
    with pytest.raises(MoeError, match='There is no router version 99'):
        ros_client.router.replay(LOG, 99)


@pytest.mark.parametrize('write', [json.dumps, lambda log: '\n'.join(map(json.dumps, log)) + '\n\n'])
def test_a_file_is_a_list_or_lines(write, moe, tmp_path):
    file = tmp_path / 'log.json'
    file.write_text(write(LOG))
    for options in ((), ('--fit', '1')):
        code, out, _err = moe('router', 'replay', file, *options)
        assert code == 0
        assert out.splitlines()[1].split('\t')[:3] == ['a', 'python', 'linux']
        assert out.splitlines()[2:] == ['1 of 2 decisions are others now.', '1 of 1 as a person said.']


@pytest.mark.parametrize(('text', 'sentence'), [
    ('[{"prompt": "a"}, {"prompt": 3}]', 'Entry 2 of'), ('{"prompt": "a"}\nnothing\n', 'is neither a JSON list nor'),
    ('[1', 'is neither a JSON list nor'), ('', 'No decision was kept with its prompt'),
    (b'{"prompt": "\xff"}', 'is neither a JSON list nor')])
def test_a_file_that_is_none_is_named(text, sentence, moe, tmp_path):
    file = tmp_path / 'log.json'
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, out, err = moe('router', 'replay', file)
    assert (code, out) == (1, '')
    assert sentence in err and len(err.splitlines()) == 1
