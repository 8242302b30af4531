"""The supervisor with real processes: restart, ordered stop, one per MOE_HOME, no orphans."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

PROGRAM = '''
import sys
from pathlib import Path
from moe_bringup import supervisor
from moe_bringup.process_table import Process
home = Path(sys.argv[1])
(home / 'logs').mkdir(parents=True, exist_ok=True)
(home / 'run').mkdir(exist_ok=True)
SLEEPER = """
import signal, sys
signal.signal(signal.SIGINT, lambda *a: sys.exit(0))  # a print in here may not meet the one below
try:
    print("up", flush=True)
    while True: signal.pause()
finally:
    print("bye", flush=True)
"""
def sleeper(name, stage):
    return Process(name, 'moe_bringup', sys.executable, stage, node=False, arguments=('-c', SLEEPER))
run = supervisor.Supervisor([sleeper('last', 1), sleeper('first', 0)], home)
import signal
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *a: run.stop())
sys.exit(run.run())
'''

# The signal comes at the first line that the main thread executes in run(), at the second, and so on.
INTERRUPTED = '''
import signal, sys
from pathlib import Path
from moe_bringup import supervisor
home = Path(sys.argv[1])
(home / 'logs').mkdir()
(home / 'run').mkdir()
supervisor.TEND_S = 0.0
def trace(_frame, _event, _argument):
    global left
    left -= 1
    if not left:
        signal.raise_signal(signal.SIGTERM)
    return trace
for lines in range(1, 100):
    run, left = supervisor.Supervisor([], home), lines
    signal.signal(signal.SIGTERM, lambda *a: run.stop())
    sys.settrace(trace)
    assert run.run() == 0
    sys.settrace(None)
'''


def wait_for(condition, timeout=15.0):
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError('condition not met in time')


@pytest.fixture
def supervised(tmp_path):
    process = subprocess.Popen([sys.executable, '-c', PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    yield process, tmp_path
    if process.poll() is None:
        process.kill()
    process.wait()


def state(home):
    path = home / 'run' / 'supervisor.json'
    return {entry['name']: entry for entry in json.loads(path.read_text())['processes']} if path.exists() else {}


def both_up(home):
    now = state(home)
    up = all((home / 'logs' / f'{name}.log').exists() and 'up' in (home / 'logs' / f'{name}.log').read_text()
             for name in ('first', 'last'))
    return now if up and len(now) == 2 and all(entry['pid'] for entry in now.values()) else None


def test_a_killed_process_is_started_again(supervised):
    _, home = supervised
    before = wait_for(lambda: both_up(home))['first']
    os.kill(before['pid'], signal.SIGKILL)
    after = wait_for(lambda: (entry := state(home).get('first')) and entry['restarts'] == 1 and entry['pid'] and entry)
    assert after['pid'] != before['pid']
    assert after['last_exit'] == -signal.SIGKILL


def test_stop_goes_by_stages_and_leaves_nothing(supervised):
    process, home = supervised
    pids = [entry['pid'] for entry in wait_for(lambda: both_up(home)).values()]
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert [line for line in output.splitlines() if line.endswith('bye')] == ['[first] bye', '[last] bye'], output
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not (home / 'run' / 'supervisor.json').exists()


def test_a_signal_that_interrupts_it_anywhere_stops_it(tmp_path):
    done = subprocess.run([sys.executable, '-c', INTERRUPTED, str(tmp_path)], timeout=60)
    assert done.returncode == 0


def test_sigkill_of_the_supervisor_takes_its_processes_along(supervised):
    process, home = supervised
    pids = [entry['pid'] for entry in wait_for(lambda: both_up(home)).values()]
    process.kill()
    wait_for(lambda: not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids))
