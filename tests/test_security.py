"""The security policy covers every process and gives the servos to few; an unsigned participant is not let in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from moe_bringup.configuration import Configuration
from moe_bringup.process_table import process_table
from moe_client.operations import OPERATIONS, Kind

ROOT = Path(__file__).parents[1]
POLICY = ROOT / 'config' / 'sros2' / 'moe.policy.xml'
COMMANDS = {'move_joints', 'follow_joint_trajectory', 'joint_trajectory', 'commands', 'set_torque', 'reboot',
            'set_servo_id', 'reset_estop'}


def rules():
    """{enclave: {(kind, verb): names}}."""
    found = {}
    for enclave in ElementTree.parse(POLICY).getroot().iter('enclave'):
        name = enclave.get('path').rpartition('/')[2]
        profile = enclave.find('profiles/profile')
        assert (profile.get('ns'), profile.get('node')) == ('/moe', name)
        found[name] = {(group.tag, verb): {element.text for element in group}
                       for group in profile for verb, value in group.attrib.items() if value == 'ALLOW'}
    return found


def full(name):
    return name if name.startswith('/') else f'/moe/{name}'


def may(name):
    """{publish, subscribe, reply, request: patterns of the full names} of an enclave, actions as their parts."""
    found = {verb: set() for verb in ('publish', 'subscribe', 'reply', 'request')}
    for (kind, verb), names in rules()[name].items():
        if kind != 'actions':
            found[verb] |= set(map(full, names))
            continue
        services, topics = ('reply', 'publish') if verb == 'execute' else ('request', 'subscribe')
        for action in map(full, names):
            found[services] |= {f'{action}/_action/{part}' for part in ('send_goal', 'cancel_goal', 'get_result')}
            found[topics] |= {f'{action}/_action/{part}' for part in ('feedback', 'status')}
    return found


def excess(used, allowed):
    return {name for name in used if not any(fnmatchcase(name, pattern) for pattern in allowed)}


@pytest.mark.parametrize('name', ['gateway', 'operator'])
def test_who_asks_for_people_may_ask_all(name):
    verbs = {Kind.SERVICE: 'request', Kind.TOPIC: 'subscribe'}
    for operation in OPERATIONS.values():
        if operation.kind is Kind.ACTION:
            assert operation.endpoint in rules()[name]['actions', 'call']
        else:
            assert not excess({full(operation.endpoint)}, may(name)[verbs[operation.kind]]), operation.name


def test_every_node_has_an_enclave():
    nodes = {process.name for process in process_table(True, Configuration(replicas=2)) if process.node}
    assert nodes <= set(rules())


def test_servos_obey_few():
    commanders = {name for name, allowed in rules().items() for (kind, verb), names in allowed.items()
                  if verb in ('call', 'request', 'publish') and names & COMMANDS}
    assert commanders == {'motion', 'gateway', 'operator'}


def test_nobody_may_everything():
    for name, allowed in rules().items():
        for names in allowed.values():
            assert not names & {'*', '/*', 'moe/*'}, name


def test_only_the_registry_answers_for_itself():
    answering = {name for name, allowed in rules().items() if 'registry/*' in allowed.get(('services', 'reply'), ())}
    assert answering == {'registry'}


def security_plugins():
    """Whether the middleware was built with security, and sros2 is there to sign."""
    libraries = [Path(prefix, 'lib', 'libfastdds.so') for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(':')]
    built = any(path.exists() and b'DDS:Auth:PKI-DH' in path.read_bytes() for path in libraries)
    return built and shutil.which('ros2') is not None


@pytest.mark.skipif(not security_plugins(), reason='sros2 and the security plugins of Fast DDS are not installed')
def test_an_unsigned_participant_is_not_let_in(tmp_path):
    subprocess.run([str(ROOT / 'config' / 'sros2' / 'make-keystore'), str(tmp_path)], check=True)
    secured = {**os.environ, 'ROS_SECURITY_KEYSTORE': str(tmp_path), 'ROS_SECURITY_ENABLE': 'true',
               'ROS_SECURITY_STRATEGY': 'Enforce', 'ROS_SECURITY_ENCLAVE_OVERRIDE': '/moe/servos'}
    speaker = ('import rclpy, sys, time; from sensor_msgs.msg import JointState; rclpy.init(); '
               'node = rclpy.create_node("servos", namespace="/moe"); '
               'publisher = node.create_publisher(JointState, "joint_states", 10); print("up", flush=True)\n'
               'while True: publisher.publish(JointState(name=["pan"])); time.sleep(0.05)')
    listener = ('import rclpy, sys; from sensor_msgs.msg import JointState; rclpy.init(); seen = []; '
                'node = rclpy.create_node("operator", namespace="/moe"); '
                'node.create_subscription(JointState, "joint_states", seen.append, 10)\n'
                'for _ in range(100): rclpy.spin_once(node, timeout_sec=0.1)\nsys.exit(0 if seen else 3)')
    process = subprocess.Popen([sys.executable, '-c', speaker], env=secured, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == 'up\n'
        signed = {**secured, 'ROS_SECURITY_ENCLAVE_OVERRIDE': '/moe/operator'}
        assert subprocess.run([sys.executable, '-c', listener], env=signed, timeout=60).returncode == 0
        assert subprocess.run([sys.executable, '-c', listener], timeout=60).returncode == 3
    finally:
        process.kill()
        process.wait()
