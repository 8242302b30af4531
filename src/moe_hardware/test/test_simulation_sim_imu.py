"""The simulated IMU as a command: the link's life, the baud rate, bad arguments."""

import os
import signal

import pytest
import serial
from processes import Module, sim_imu

READ_ID = bytes([0xAA, 0x01, 0x00, 0x01])


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_answers_on_its_link_and_leaves_nothing(tmp_path, number):
    link = tmp_path / 'imu'
    with sim_imu(link, '--still', '--seed', '7') as simulator:
        with serial.Serial(str(link), 115200, timeout=5.0) as port:
            port.write(READ_ID)
            assert port.read(3) == b'\xBB\x01\xA0'
        assert simulator.end(number) == 0
    assert not os.path.lexists(link)


def test_is_silent_at_another_baud_rate(tmp_path):
    with sim_imu(tmp_path / 'imu'), serial.Serial(str(tmp_path / 'imu'), 9600, timeout=0.2) as port:
        port.write(READ_ID)
        assert port.read(3) == b''
        port.baudrate, port.timeout = 115200, 5.0
        port.write(READ_ID)
        assert port.read(3) == b'\xBB\x01\xA0'


def test_refuses_a_file_as_link_and_a_wrong_share(tmp_path):
    (tmp_path / 'imu').write_text('precious')
    with Module(tmp_path / 'log', 'moe_hardware.simulation.sim_imu', '--link', tmp_path / 'imu') as simulator:
        assert simulator.popen.wait(20) == 2
        assert 'is not a symlink' in simulator.output
    with Module(tmp_path / 'log', 'moe_hardware.simulation.sim_imu', '--fault-rate', '2') as simulator:
        assert simulator.popen.wait(20) == 2
        assert 'share from 0 to 1' in simulator.output
