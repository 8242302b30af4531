"""Environment of the whole-system tests: a ROS graph and a MOE_HOME of their own, and one suite for them all."""

from __future__ import annotations

import os
import time

import psutil
import pytest

os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 49))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
for port in ('MOE_API_PORT', 'MOE_METRICS_PORT'):
    os.environ.setdefault(port, '0')  # any that is free


def wait_for(condition, timeout=30.0):
    """Return the first true value of condition()."""
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError('condition not met in time')


def alive(pids):
    """Those of the pids that still run."""
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope='session')
def home(tmp_path_factory):
    """A MOE_HOME of the tests' own; the prepared models are shared, everything else is new."""
    from moe_client import suite
    prepared = suite.home() / 'models'
    folder = tmp_path_factory.mktemp('moe')
    (folder / 'models').symlink_to(prepared)
    before = os.environ.get('MOE_HOME')
    os.environ['MOE_HOME'] = str(folder)
    yield folder
    if before is None:
        del os.environ['MOE_HOME']
    else:
        os.environ['MOE_HOME'] = before


@pytest.fixture(scope='session')
def client(home):
    """An SDK client of the simulated suite, which runs until the last test and leaves nothing behind."""
    from moe_client import Client, suite
    with suite.running(simulate=True), Client() as client:
        suite.wait_until_ready(client, timeout_s=180.0, joints=True)
        client.robot.execute('{"action":"center"}')
        yield client
        pids = [pid for process in suite.processes() for pid in process.family()]
    left = alive(pids)
    assert not left, f'still running after the stop: {left}'
