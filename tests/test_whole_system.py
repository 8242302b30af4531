"""The suite as its user has it: every node a process, asked through the SDK, killed, asked again, stopped."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from moe_client import Client, suite
from moe_client.errors import ExpertNotFound, InvalidRequest, MoeError
from moe_client.types import Chunk, Generation

ROOT = Path(__file__).parents[1]
MISSING = [str(path.relative_to(ROOT)) for path in (
    *(ROOT / 'data' / 'adapters' / f'{name}.gguf' for name in ('python', 'linux', 'robotics', 'motion')),
    *(ROOT / 'src' / 'moe_hardware' / 'moe_hardware' / 'ros' / f'{name}_node.py'
      for name in ('camera', 'imu', 'servo', 'motion'))) if not path.is_file()]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f'the suite is not whole without {", ".join(MISSING)}')


def wait_for(condition, timeout=30.0):
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError('condition not met in time')


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    """A MOE_HOME of this test's own; the prepared models are shared, everything else is new."""
    prepared = suite.home() / 'models'
    folder = tmp_path_factory.mktemp('moe')
    (folder / 'models').mkdir()
    for path in prepared.iterdir():
        (folder / 'models' / path.name).symlink_to(path)
    before = os.environ.get('MOE_HOME')
    os.environ['MOE_HOME'] = str(folder)
    yield folder
    if before is None:
        del os.environ['MOE_HOME']
    else:
        os.environ['MOE_HOME'] = before


@pytest.fixture(scope='module')
def client(home):
    with suite.running(simulate=True), Client() as client:
        suite.wait_until_ready(client, timeout_s=180.0)
        client.robot.execute('{"action":"center"}')
        yield client
        pids = [pid for process in suite.processes() for pid in process.family()]
    left = [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    assert not left, f'still running after the stop: {left}'


@pytest.mark.parametrize(('prompt', 'expert'), [
    ('How do I read a JSON file in Python?', 'python'),
    ('How can I see how much disk space is free?', 'linux'),
    ('How do I list all active ROS 2 topics?', 'robotics'),
])
def test_each_domain_is_answered_by_its_expert_token_by_token(client, prompt, expert):
    *chunks, answer = client.inference.generate_stream(prompt)
    assert isinstance(answer, Generation)
    assert answer.expert == expert
    assert answer.finish_reason == 'stop'
    assert not answer.route.abstained
    assert len([chunk for chunk in chunks if chunk.text]) > 1
    assert ''.join(chunk.text for chunk in chunks) == answer.text
    assert answer.completion_tokens > 3


def test_out_of_every_domain_the_fallback_expert_answers(client):
    answer = client.inference.generate('What is the capital of France?')
    assert (answer.expert, answer.route.abstained) == ('general', True)
    assert 'Paris' in answer.text


def test_look_left_turns_the_servo(client, home):
    before = client.robot.joints()
    answer = client.inference.generate('Look left 30 degrees')
    assert answer.expert == 'motion'
    assert json.loads(answer.text) == {'joint': 'pan', 'by': 30}
    moved = math.degrees(client.robot.joints()['pan'] - before['pan'])
    assert moved == pytest.approx(30.0, abs=2.0)


def test_sensors_publish(client):
    rates = client.robot.rates(('image_raw', 'imu/data', 'joint_states'), 2.0)
    assert all(rate > 1.0 for rate in rates.values()), rates


def test_unknown_expert_and_empty_prompt_are_named(client):
    with pytest.raises(ExpertNotFound, match='Expert with id=999 not found'):
        client.experts.get(999)
    with pytest.raises(ExpertNotFound, match='nobody'):
        client.inference.generate('hello', expert='nobody')
    with pytest.raises(InvalidRequest):
        client.inference.generate('   ')


def test_a_prompt_longer_than_the_context_is_refused(client):
    with pytest.raises(InvalidRequest, match='context'):
        client.inference.generate('word ' * 20_000, expert='general')


def test_cancel_leaves_the_expert_free(client):
    stream = client.inference.generate_stream('Tell me a long story about a robot.', expert='general', max_tokens=90)
    next(item for item in stream if isinstance(item, Chunk) and item.text)
    stream.close()
    assert client.inference.generate('What is the capital of France?').text


@pytest.mark.parametrize('name', ['experts', 'router', 'registry', 'servos'])
def test_a_killed_node_comes_back_and_the_next_prompt_is_answered(client, name):
    def find():
        return next((row for row in suite.processes() if row.name == name and row.pid), None)

    victim = wait_for(find)
    os.kill(victim.pid, signal.SIGKILL)
    wait_for(lambda: (row := find()) and row.pid != victim.pid)

    def answered():
        try:
            return client.inference.generate('How do I read a JSON file in Python?', timeout=20.0)
        except MoeError:
            return None

    assert wait_for(answered, timeout=60.0).expert == 'python'


def test_registry_survives_with_its_experts(client):
    assert {'general', 'python', 'linux', 'robotics', 'motion'} <= {row.name for row in client.experts.list()}


def test_servo_journal_ends_with_torque_off_after_the_stop(tmp_path, monkeypatch, home):
    """A second suite, stopped by SIGTERM, leaves its servos without torque."""
    monkeypatch.setenv('MOE_HOME', str(tmp_path))
    monkeypatch.setenv('ROS_DOMAIN_ID', str(1 + (int(os.environ['ROS_DOMAIN_ID']) % 100)))
    (tmp_path / 'models').symlink_to(home / 'models')
    with suite.running(simulate=True), Client() as other:
        suite.wait_until_ready(other, timeout_s=180.0)
        wait_for(lambda: other.robot.joints())
    text = Path(tmp_path / 'run' / 'servos.journal.jsonl').read_text()
    assert text.strip(), 'the simulator kept no journal'
    assert not (tmp_path / 'run' / 'servos').exists()
