"""The command sim_servos as a process."""

import itertools
import json
import signal
import subprocess
import sys
import time

import pytest
from processes import Module, wait_for

from moe_hardware.dynamixel import control_table as ct
from moe_hardware.dynamixel.bus import Bus, ServoSilent


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
    values = [json.loads(line)['value'] for line in journal.read_text().splitlines()]
    assert [value for value, _ in itertools.groupby(values)] == [1, 0]  # a write whose answer is late is repeated


def test_a_rate_no_servo_has_is_refused(tmp_path):
    done = subprocess.run([sys.executable, '-m', 'moe_hardware.simulation.sim_servos', '--link', str(tmp_path / 'x'),
                           '--baud-rate', '12345'], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert 'no 12345 baud' in done.stderr


def test_faults_on_demand(tmp_path):
    link, control = tmp_path / 'servos', tmp_path / 'control'
    module = 'moe_hardware.simulation.sim_servos'
    with Module(tmp_path / 'sim.log', module, '--link', link, '--control', control) as sim:
        wait_for(lambda: link.is_symlink() and control.exists())

        def say(line):
            with control.open('w') as fifo:
                fifo.write(line + '\n')

        bus = Bus(str(link), 57600)
        bus.open()
        say('voltage 1 9.0')
        wait_for(lambda: answers(bus, 1) and bus.read(1, ct.PRESENT_INPUT_VOLTAGE) == 90)
        say('error 1 4')
        wait_for(lambda: answers(bus, 1) and bus.read(1, ct.HARDWARE_ERROR_STATUS) == 4)
        say('mute 2 1')
        wait_for(lambda: not answers(bus, 2))
        say('mute 2 0')
        wait_for(lambda: answers(bus, 2))
        say('duplicate 2 1')
        wait_for(lambda: not answers(bus, 2))
        assert answers(bus, 1)
        say('nonsense 1')
        wait_for(lambda: 'Not understood' in sim.output)
        say('unplug')
        wait_for(lambda: not link.is_symlink())
        say('plug')
        wait_for(link.is_symlink)
        bus.open()
        assert answers(bus, 1)
        bus.close()
        assert sim.end() == 0
    assert not control.exists()


def answers(bus, servo):
    try:
        return bool(bus.ping(servo))
    except ServoSilent:
        return False
