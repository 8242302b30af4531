"""Dockerfile, compose file and systemd unit by rules: pinned, without root, healthy, and naming only what exists."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest
import yaml
from ament_index_python.packages import get_package_prefix

from moe_bringup.configuration import read_configuration

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / 'docker'
DISTRIBUTIONS = ('kilted', 'jazzy', 'lyrical')


# the program that runs the Dockerfile's steps without Docker reads it for these tests, too
LOADER = SourceFileLoader('rehearse', str(DOCKER / 'rehearse'))
REHEARSE = module_from_spec(spec_from_loader('rehearse', LOADER))
sys.modules['rehearse'] = REHEARSE  # its dataclasses look there
LOADER.exec_module(REHEARSE)


def instructions():
    """(keyword, rest) of every instruction of the Dockerfile."""
    return REHEARSE.instructions((DOCKER / 'Dockerfile').read_text())


def rests(keyword):
    return [rest for word, rest in instructions() if word == keyword]


def test_stages_and_distributions():
    stages = [rest.rpartition(' AS ')[2] for rest in rests('FROM')]
    assert stages == ['base', 'build', 'runtime']
    assert rests('FROM')[0].startswith('ros:${ROS_DISTRO}')
    text = (DOCKER / 'Dockerfile').read_text()
    assert all(distribution in text for distribution in DISTRIBUTIONS)


def test_nothing_floats():
    for rest in rests('FROM'):
        image = rest.split()[0]
        assert ':' in image or image in ('base', 'build'), image
        assert not image.endswith(':latest')
    assert not [line for line in rests('RUN') if 'pip install' in line], 'versions belong into requirements/'
    for line in rests('RUN'):
        if 'apt-get install' in line:
            assert '--no-install-recommends' in line and 'apt-get update' in line
            assert 'rm -rf /var/lib/apt/lists/*' in line
    assert not any('sudo ' in line or 'apt-get upgrade' in line for line in rests('RUN'))
    assert not rests('ADD')


def test_it_runs_without_root_and_says_how_it_is():
    words = [word for word, _ in instructions()]
    last_stage = words[len(words) - 1 - words[::-1].index('FROM'):]
    assert 'USER' in last_stage and 'HEALTHCHECK' in last_stage
    assert rests('USER') == ['moe']
    assert last_stage.index('USER') > max(at for at, word in enumerate(last_stage) if word == 'COPY')
    for rest in (*rests('ENTRYPOINT'), *rests('CMD')):
        assert rest.startswith('['), 'the exec form passes signals on'


def test_what_is_copied_exists():
    for rest in rests('COPY'):
        words = [word for word in rest.split() if not word.startswith('--')]
        if '--from=' not in rest:
            assert all((ROOT / source).exists() for source in words[:-1]), rest
    ignored = (ROOT / '.dockerignore').read_text().split()
    assert {'.git', '.venv', 'build', 'install', 'docker/secrets'} <= set(ignored)


def test_a_shell_that_sources_the_workspace_has_the_command():
    """As the image's entrypoint does it, and a person after `colcon build`."""
    prefix = Path(get_package_prefix('moe_client'))
    shell = f'. {sys.prefix}/bin/activate && . {prefix.parent}/setup.bash && command -v moe && moe --version'
    done = subprocess.run(['bash', '-c', shell], env={'PATH': os.defpath}, capture_output=True, text=True)
    assert done.stdout.splitlines() == [str(prefix / 'bin' / 'moe'), 'moe 0.1.0'], done.stderr
    assert [json.loads(rest)[0] for rest in rests('CMD')] == ['moe']


def test_the_rehearsal_knows_every_instruction():
    unknown = {word for word, _rest in instructions() if not hasattr(REHEARSE.Rehearsal, f'_{word.lower()}')}
    assert unknown <= REHEARSE.SETTINGS
    assert {'ENTRYPOINT', 'CMD', 'HEALTHCHECK', 'STOPSIGNAL'} <= unknown, 'the container is started by these'


def test_scripts_are_executable_and_valid():
    assert os.access(DOCKER / 'rehearse', os.X_OK)
    for name in ('entrypoint', 'make-secrets'):
        path = DOCKER / name
        assert os.access(path, os.X_OK)
        shell = path.read_text().splitlines()[0].removeprefix('#!')
        subprocess.run([shell, '-n', str(path)], check=True)


def test_secrets_are_made_once(tmp_path):
    shutil.copy(DOCKER / 'make-secrets', tmp_path)
    subprocess.run([str(tmp_path / 'make-secrets')], check=True)
    first = {path.name: path.read_text() for path in (tmp_path / 'secrets').iterdir()}
    subprocess.run([str(tmp_path / 'make-secrets')], check=True)
    assert first == {path.name: path.read_text() for path in (tmp_path / 'secrets').iterdir()}
    assert first['database_password'] in first['database_url'] and len(first['database_password']) == 48
    assert (tmp_path / 'secrets').stat().st_mode & 0o777 == 0o700


@pytest.fixture(scope='module')
def compose():
    return yaml.safe_load((DOCKER / 'compose.yaml').read_text())


def test_compose_is_pinned_restarted_and_whole(compose):
    assert set(compose['services']) == {'postgres', 'moe', 'prometheus', 'grafana'}
    for name, service in compose['services'].items():
        assert service['restart'] == 'unless-stopped', name
        tag = service['image'].partition(':')[2]
        assert tag and tag != 'latest', name
        for secret in service.get('secrets', []):
            assert secret in compose['secrets']
        for volume in service['volumes']:
            source = volume.split(':')[0]
            if source.startswith('.'):
                assert (DOCKER / source).exists(), volume
            else:
                assert source in compose['volumes'], volume


def test_compose_keeps_secrets_in_files_and_ports_apart(compose):
    for service in compose['services'].values():
        for key, value in service.get('environment', {}).items():
            if any(word in key for word in ('PASSWORD', 'URL', 'KEY')):
                assert str(value).startswith('/run/secrets/'), key
    ports = [port.rpartition(':')[0].rpartition(':')[2] for service in compose['services'].values()
             for port in service.get('ports', [])]
    assert '9090' not in ports and len(set(ports)) == len(ports)
    assert read_configuration(DOCKER / 'config.yaml').parameters['gateway'] == {'api.host': '0.0.0.0'}


def test_docker_itself_accepts_the_compose_file():
    program = shutil.which('docker')
    if program is None or subprocess.run([program, 'compose', 'version'], capture_output=True).returncode:
        pytest.skip('docker compose is not installed')
    subprocess.run(['docker', 'compose', '-f', str(DOCKER / 'compose.yaml'), 'config', '--quiet'], check=True)


def test_the_unit_restarts_and_names_what_exists():
    text = (ROOT / 'config' / 'systemd' / 'moe.service').read_text()
    values = dict(re.findall(r'^(\w+)=(.*)$', text, re.M))
    assert values['Restart'] == 'always' and int(values['RuntimeMaxSec']) > 0
    assert values['User'] != 'root' and values['KillMode'] == 'mixed'
    assert values['ExecStart'].split()[0] == '/opt/moe/moe' and (ROOT / 'moe').is_file()
    if shutil.which('systemd-analyze'):
        done = subprocess.run(['systemd-analyze', 'verify', str(ROOT / 'config' / 'systemd' / 'moe.service')],
                              capture_output=True, text=True)
        assert 'Unknown' not in done.stderr
