"""Ctrl-C at the demo and at `moe up`: no process, no lock, no torque is left."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
from conftest import alive, wait_for

from moe_client import suite


@pytest.fixture
def fresh(home, tmp_path, monkeypatch):
    """A MOE_HOME and a domain of its own."""
    monkeypatch.setenv('MOE_HOME', str(tmp_path))
    monkeypatch.setenv('ROS_DOMAIN_ID', str(50 + int(os.environ['ROS_DOMAIN_ID'])))
    (tmp_path / 'models').symlink_to((home / 'models').resolve())
    return tmp_path


@pytest.fixture
def heard():
    """Children that hear SIGINT: a shell has what it runs in the background ignore it, and that is handed down."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def torque(folder):
    """Last torque written to each servo."""
    path = folder / 'run' / 'servos.journal.jsonl'
    lines = path.read_text().splitlines() if path.is_file() else []
    return {row['id']: row['value'] for row in map(json.loads, lines) if row['register'] == 'torque_enable'}


@pytest.mark.parametrize('verb', [['up'], ['demo']], ids=['up', 'demo'])
def test_ctrl_c_leaves_nothing(fresh, heard, verb):
    process = subprocess.Popen([sys.executable, '-m', 'moe_client', *verb], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    try:
        if verb == ['up']:  # the demo may be over before the last of them is there
            wait_for(lambda: len(suite.processes()) >= 10 and all(row.pid for row in suite.processes()), timeout=60.0)
        wait_for(lambda: torque(fresh) == {1: 1, 2: 1}, timeout=60.0)
        pids = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        pids += [pid for row in suite.processes() for pid in row.family()]
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert 'Traceback' not in output
    assert process.returncode == (130 if verb == ['demo'] else 0), output
    wait_for(lambda: not alive(pids))
    assert torque(fresh) == {1: 0, 2: 0}
    assert not (fresh / 'run' / 'servos').is_symlink() and not (fresh / 'run' / 'supervisor.json').exists()
    with (fresh / 'run' / 'supervisor.lock').open('a+') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not list(fresh.rglob('*.part')) and not list(fresh.rglob('*.tmp'))
