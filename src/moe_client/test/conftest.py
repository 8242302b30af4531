"""Environment of this package's tests: a ROS graph of their own, and one small suite with a gateway for them all."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import yaml
from ament_index_python.packages import get_package_prefix, get_package_share_directory

os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 49))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
os.environ.setdefault('ROS_PYTHON_CHECK_FIELDS', '1')
SAMPLES = 60  # of each expert: enough to route what the tests ask, and soon learned


def wait_for(condition, timeout=60.0, what='condition'):
    """Return the first true value of condition()."""
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f'{what} not met within {timeout} s')


class NodeProcess:
    """An executable under /moe, its output in a file; ended whatever happens."""

    def __init__(self, home, package, name, *arguments, **parameters):
        self.log = home / f'{name}.log'
        line = [str(Path(get_package_prefix(package)) / 'lib' / package / name), *arguments]
        if name.endswith('_node'):
            line += ['--ros-args', '-r', '__ns:=/moe']
            for key, value in parameters.items():
                line += ['-p', f'{key}:={value}']
        with self.log.open('ab') as output:
            self.process = subprocess.Popen(line, env={**os.environ, 'MOE_HOME': str(home)}, stdout=output,
                                            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def end(self):
        """Send SIGTERM and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Gateway:
    """A gateway process, as soon as it answers."""

    def __init__(self, home, **parameters):
        where = home / 'run' / 'gateway.json'
        where.unlink(missing_ok=True)
        settings = {'api.port': 0, 'metrics.port': 0, **{key.replace('__', '.'): value
                                                        for key, value in parameters.items()}}
        self.node = NodeProcess(home, 'moe_client', 'gateway_node', **settings)
        self.state = json.loads(wait_for(lambda: where.exists() and where.read_text(), what='gateway.json'))
        self.url, self.metrics = self.state['url'], self.state['metrics']
        wait_for(self._answers, what='an answer of the gateway')

    def _answers(self):
        try:
            return httpx.get(f'{self.url}/health').content
        except httpx.TransportError:
            return None


def write_keys(home, *keys):
    """Leave (id, name, key, scopes) where the registry leaves its API keys' digests."""
    salt = b'0123456789abcdef'
    rows = [{'id': number, 'name': name, 'scopes': scopes, 'salt': salt.hex(),
             'sha256': hashlib.sha256(salt + key.encode()).hexdigest()} for number, name, key, scopes in keys]
    part = home / 'run' / 'api_keys.part'
    part.write_text(json.dumps({'keys': rows}))
    part.replace(home / 'run' / 'api_keys.json')


@pytest.fixture(scope='session')
def home(tmp_path_factory):
    """A MOE_HOME with the prepared models and a catalogue of two experts."""
    from moe_client import suite
    folder = tmp_path_factory.mktemp('moe')
    if os.geteuid() == 0:
        for parent in (folder, *folder.parents[:2]):
            parent.chmod(0o755)  # the embedded server runs as a user of its own where the tests run as root
    (folder / 'models').symlink_to((suite.home() / 'models').resolve())
    (folder / 'run').mkdir()
    data = Path(get_package_share_directory('moe_bringup')) / 'data'
    catalogue = yaml.safe_load((data / 'experts.yaml').read_text())
    chosen = [row for row in catalogue['experts'] if row['name'] in ('general', 'python', 'linux')]
    for row in chosen:
        lines = (data / row['samples']).read_text().splitlines()
        kept = folder / f'{row["name"]}.jsonl'
        kept.write_text('\n'.join(lines[::max(1, len(lines) // SAMPLES)]) + '\n')
        row['samples'] = kept.name
        if 'adapter' in row:
            shutil.copy(data / row['adapter'], folder / f'{row["name"]}.gguf')
            row['adapter'] = f'{row["name"]}.gguf'
    (folder / 'experts.yaml').write_text(yaml.safe_dump({**catalogue, 'experts': chosen}))
    return folder


@pytest.fixture(scope='session')
def nodes(home):
    """Registry, expert and router node, by name, routing."""
    from moe_client import Client
    from moe_client.suite import wait_until_ready
    found = {'registry': NodeProcess(home, 'moe_experts', 'registry_node', catalogue=home / 'experts.yaml'),
             'experts': NodeProcess(home, 'moe_experts', 'expert_node'),
             'router': NodeProcess(home, 'moe_router', 'router_node')}
    try:
        with Client() as client:
            wait_until_ready(client, timeout_s=180.0)
        yield found
    finally:
        for name in ('router', 'experts', 'registry'):
            found[name].end()


@pytest.fixture(scope='session')
def gateway(home, nodes):
    """The gateway of the small suite."""
    started = Gateway(home, api__rate_limit=0, api__receive_timeout_s=1.0, api__upload_limit=100_000,
                      api__body_limit=1_000_000)
    yield started
    assert started.node.end() == 0


@pytest.fixture
def http(gateway):
    """An HTTP client of the gateway."""
    with httpx.Client(base_url=gateway.url, timeout=60.0) as client:
        yield client


@pytest.fixture(scope='session')
def ros_client(nodes):
    """The SDK over ROS."""
    from moe_client import Client
    with Client() as client:
        yield client
