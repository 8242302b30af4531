"""The suite as its user has it: every node a process, asked through the SDK, killed, asked again, stopped."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import rclpy
import yaml
from conftest import wait_for
from rcl_interfaces.srv import ListParameters
from test_security import excess, may, rules

from moe_bringup.configuration import Configuration
from moe_bringup.process_table import process_table, share
from moe_client import Client, suite
from moe_client.errors import ExpertNotFound, InvalidRequest, MoeError, Timeout, Unavailable
from moe_client.types import Chunk, Generation


def test_the_nodes_use_only_what_their_enclaves_allow(client):
    """With security enforced a node could not even start otherwise. Nodes of one process share its enclave."""
    context = rclpy.Context()
    rclpy.init(context=context)
    looker = rclpy.create_node('looker', context=context)
    enclaves = rules()

    def nodes():
        return {name for name, space in looker.get_node_names_and_namespaces()
                if space == '/moe' and not name.startswith('client_')}

    try:
        expected = {process.name for process in process_table(True, Configuration()) if process.node}
        wait_for(lambda: expected <= nodes())
        for name in sorted(nodes()):
            enclave = may(name if name in enclaves else name.rpartition('_')[0])
            for verb, look in (('publish', looker.get_publisher_names_and_types_by_node),
                               ('subscribe', looker.get_subscriber_names_and_types_by_node),
                               ('reply', looker.get_service_names_and_types_by_node),
                               ('request', looker.get_client_names_and_types_by_node)):
                used = {found for found, _types in look(name, '/moe')}
                assert not excess(used, enclave[verb]), (name, verb)
    finally:
        context.shutdown()


@pytest.mark.parametrize(('prompt', 'expert'), [
    ('Which module turns script arguments into options?', 'python'),
    ('Suppose my ssh drops, how does the job survive?', 'linux'),
    ('My colleague wants more output from his node.', 'robotics'),
])
def test_each_domain_is_answered_by_its_expert_token_by_token(client, prompt, expert):
    *chunks, answer = client.inference.generate_stream(prompt)
    assert isinstance(answer, Generation)
    assert answer.expert == expert
    assert answer.finish_reason == 'stop'
    assert not answer.route.abstained
    assert len([chunk for chunk in chunks if chunk.text]) > 3
    assert ''.join(chunk.text for chunk in chunks) == answer.text
    assert answer.completion_tokens > 3
    assert answer.tokens_per_second > 0.0


def test_a_note_that_is_near_is_said_without_the_model(client):
    *chunks, answer = client.inference.generate_stream('How do I list all active ROS 2 topics?')
    assert (answer.expert, answer.text, answer.finish_reason) == ('robotics', 'Run `ros2 topic list`.', 'stop')
    assert ''.join(chunk.text for chunk in chunks) == answer.text
    assert answer.completion_tokens > 3
    assert answer.tokens_per_second == 0.0
    assert answer.sources[0]['text'] == answer.text


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
    with pytest.raises(InvalidRequest, match='2048'):
        client.inference.generate('word ' * 20_000, expert='general')


def test_cancel_leaves_the_expert_free(client):
    stream = client.inference.generate_stream('Tell me a long story about a robot.', expert='general', max_tokens=90)
    next(item for item in stream if isinstance(item, Chunk) and item.text)
    stream.close()
    assert client.inference.generate('What is the capital of France?').text


def kill(name):
    """Kill a node and wait for its next life."""
    def find():
        return next((row for row in suite.processes() if row.name == name and row.pid), None)

    victim = wait_for(find)
    os.kill(victim.pid, signal.SIGKILL)
    wait_for(lambda: (row := find()) and row.pid != victim.pid)


@pytest.mark.parametrize(('name', 'said'), [('experts', 'incomplete'), ('router', 'ended while it worked on the goal')])
def test_who_is_being_answered_hears_of_a_killed_node(client, name, said):
    """Its next life is there before its first one has left the graph; neither has the answer."""
    stream = client.inference.generate_stream('Tell me a story.', expert='general', max_tokens=1500, ignore_eos=True,
                                              timeout=100.0)
    next(item for item in stream if isinstance(item, Chunk) and item.text)
    kill(name)
    with pytest.raises(MoeError, match=said) as lost:
        list(stream)
    assert not isinstance(lost.value, Timeout)


@pytest.mark.parametrize('name', ['experts', 'router', 'registry', 'servos'])
def test_a_killed_node_comes_back_and_the_next_prompt_is_answered(client, name):
    kill(name)

    def answered():
        try:
            return client.inference.generate('How do I read a JSON file in Python?', timeout=20.0)
        except MoeError:
            return None

    assert wait_for(answered, timeout=60.0).expert == 'python'


def test_registry_survives_with_its_experts(client):
    def names():  # the router answers while a killed registry is still starting
        try:
            return {row.name for row in client.experts.list()}
        except Unavailable:
            return set()

    assert {'general', 'python', 'linux', 'robotics', 'motion'} <= wait_for(names, timeout=60.0)


def test_two_suites_do_not_meet_and_a_stop_takes_the_torque_off(client, home, tmp_path, monkeypatch):
    """A second suite beside the first one: its own experts, its own servos, its own end."""
    monkeypatch.setenv('MOE_HOME', str(tmp_path))
    monkeypatch.setenv('ROS_DOMAIN_ID', str(50 + int(os.environ['ROS_DOMAIN_ID'])))
    (tmp_path / 'models').symlink_to((home / 'models').resolve())
    before = client.robot.joints()['pan']
    with suite.running(simulate=True), Client() as other:
        suite.wait_until_ready(other, timeout_s=180.0, joints=True)
        other.experts.create('second', 'second')
        other.robot.execute('{"joint":"pan","to":-40}')
    assert client.robot.joints()['pan'] == pytest.approx(before, abs=0.02)
    with pytest.raises(ExpertNotFound):
        client.experts.get('second')
    journal = (tmp_path / 'run' / 'servos.journal.jsonl').read_text().splitlines()
    torque = {row['id']: row['value'] for row in map(json.loads, journal) if row['register'] == 'torque_enable'}
    assert torque == {1: 0, 2: 0}
    assert not (tmp_path / 'run' / 'servos').exists()


@pytest.mark.parametrize('name', [process.name for process in process_table(True) if process.node])
def test_config_files_set_only_declared_parameters(client, name):
    content = yaml.safe_load((share() / 'config' / f'{name}.yaml').read_text())
    wanted = {key for parameters in content.values() for key in parameters['ros__parameters']}
    declared = client.graph.call(ListParameters, f'{name}/list_parameters', ListParameters.Request())
    assert wanted <= set(declared.result.names)
    assert len(declared.result.names) > 1


def test_the_configuration_reference_is_what_the_nodes_declare(client):
    done = subprocess.run([sys.executable, '-m', 'moe_bringup.ros.parameter_reference'], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    page = Path(__file__).parents[1] / 'docs' / 'configuration.md'
    assert done.stdout == page.read_text(), 'make docs/configuration.md anew, by the command in its head'
