"""The command sim_servos as a process."""

import json
import signal
import subprocess
import sys
import time

import pytest

from moe_hardware.dynamixel import control_table as ct
from moe_hardware.dynamixel.bus import Bus


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_it_makes_the_link_answers_and_leaves_cleanly(tmp_path, number):
    link, journal = tmp_path / 'run' / 'servos', tmp_path / 'journal.jsonl'
    process = subprocess.Popen(
        [sys.executable, '-m', 'moe_hardware.simulation.sim_servos', '--ids', '1', '5', '--link', str(link),
         '--journal', str(journal)], stdout=subprocess.PIPE, text=True)
    try:
        assert '2 servos' in process.stdout.readline()
        bus = Bus(str(link), 57600)
        bus.open()
        assert bus.ping(5) == 1060
        bus.write(5, ct.TORQUE_ENABLE, 1)
        bus.close()
    finally:
        process.send_signal(number)
        process.communicate(timeout=10)
    assert process.returncode == 0
    assert not link.is_symlink()
    entry, = [json.loads(line) for line in journal.read_text().splitlines()]
    assert (entry['id'], entry['address'], entry['value'], entry['error']) == (5, 64, 1, 0)
    assert 0 <= time.monotonic() - entry['monotonic'] < 60


def test_a_signal_waits_for_the_driver_to_take_the_torque_off(tmp_path):
    link, journal = tmp_path / 'servos', tmp_path / 'journal.jsonl'
    process = subprocess.Popen(
        [sys.executable, '-m', 'moe_hardware.simulation.sim_servos', '--ids', '1', '--link', str(link),
         '--journal', str(journal)], stdout=subprocess.PIPE, text=True)
    try:
        process.stdout.readline()
        bus = Bus(str(link), 57600)
        bus.open()
        bus.write(1, ct.TORQUE_ENABLE, 1)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        bus.write(1, ct.TORQUE_ENABLE, 0)
        bus.close()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()
    assert [json.loads(line)['value'] for line in journal.read_text().splitlines()] == [1, 0]


def test_a_rate_no_servo_has_is_refused(tmp_path):
    done = subprocess.run([sys.executable, '-m', 'moe_hardware.simulation.sim_servos', '--link', str(tmp_path / 'x'),
                           '--baud-rate', '12345'], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert 'no 12345 baud' in done.stderr
