"""The BNO055 driver against the simulated chip over a pty: values, damaged lines, and what is said when it fails."""

import itertools
import os
import struct
import subprocess
import sys
import threading

import pytest
from processes import sim_imu, wait_for

from moe_hardware.errors import HardwareFault
from moe_hardware.imu.bno055 import Bno055Driver
from moe_hardware.imu.driver import DamagedReply
from moe_hardware.simulation.bno055_chip import Bno055
from moe_hardware.simulation.inertial_body import SensorErrors
from moe_hardware.simulation.pseudo_terminal import PseudoTerminal


@pytest.fixture
def driver(tmp_path):
    driver = Bno055Driver(str(tmp_path / 'imu'), 115200)
    yield driver
    driver.close()


def test_a_resting_chip_feels_gravity_upwards(tmp_path, driver):
    with sim_imu(tmp_path / 'imu', '--still', '--warmup-s', '0'):
        driver.open()
        velocity, acceleration = driver.read()
        assert acceleration[2] == pytest.approx(9.80665, abs=0.4)
        assert max(map(abs, (*velocity, *acceleration[:2]))) < 0.5
        assert driver.read_temperature() == 38.0


def test_no_wrong_value_over_a_damaged_line(tmp_path, driver):
    with sim_imu(tmp_path / 'imu', '--still', '--fault-rate', '0.15', '--seed', '5'):
        wait_for(lambda: opens(driver), what='set-up over the damaged line')
        good, damaged = 0, 0
        while good < 150:
            try:
                if good % 10 == 5:
                    assert 20.0 < driver.read_temperature() < 40.0
                velocity, acceleration = driver.read()
            except DamagedReply:
                damaged += 1
                continue
            good += 1
            assert acceleration[2] == pytest.approx(9.80665, abs=0.4)
            assert max(map(abs, (*velocity, *acceleration[:2]))) < 0.5
        assert damaged > 10


def opens(driver):
    try:
        driver.open()
    except HardwareFault:
        driver.close()
        return False
    return True


def test_a_late_reply_is_not_the_answer_to_the_next_request(driver, tmp_path):
    ticks = itertools.count()
    chip = Bno055(SensorErrors(1, 0.0), False, lambda: float(next(ticks)))  # every look sees another sample
    held, hold, stop = [], threading.Event(), threading.Event()
    with PseudoTerminal(tmp_path / 'imu') as terminal:
        def serve():
            while not stop.is_set():
                for byte in terminal.read(0.05):  # the clock of the chip stands still within a request
                    pending.append(byte)
                    if len(pending) < 4 or (pending[1] == 0 and len(pending) < 4 + pending[3]):
                        continue
                    reply = chip.receive(bytes(pending))
                    pending.clear()
                    (held.append if hold.is_set() else terminal.write)(reply)

        pending = []
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            driver.open()
            hold.set()
            with pytest.raises(DamagedReply, match='no reply'):
                driver.read()
            hold.clear()
            terminal.write(held[0])  # now it comes
            _, acceleration = driver.read()
            stale = struct.unpack('<3h', held[0][2:8])
            assert [round(100 * value) for value in acceleration] != list(stale)
        finally:
            stop.set()
            thread.join()


def test_a_chip_that_was_reset_is_noticed(tmp_path, driver):
    with sim_imu(tmp_path / 'imu'):
        driver.open()
        driver._request(0, 0x3D, bytes([1, 0]), 0)  # back to CONFIG mode, as after a brown-out
        wait_for(lambda: fault_of(driver.read_temperature), what='fault')
        assert 'was reset' in fault_of(driver.read_temperature)
        driver.close()
        driver.open()
        assert driver.read()[1][2] > 9.0


def fault_of(call):
    try:
        call()
    except DamagedReply:
        return ''
    except HardwareFault as fault:
        return str(fault)
    return ''


def test_absent_dangling_folder_and_no_device(tmp_path, driver):
    with pytest.raises(HardwareFault, match='does not exist; plug in the IMU or set port_name'):
        driver.open()
    (tmp_path / 'imu').symlink_to(tmp_path / 'gone')
    with pytest.raises(HardwareFault, match=r'does not exist \(it leads to .*/gone\)'):
        driver.open()
    (tmp_path / 'imu').unlink()
    (tmp_path / 'imu').mkdir()
    with pytest.raises(HardwareFault, match='is a folder'):
        driver.open()
    (tmp_path / 'imu').rmdir()
    (tmp_path / 'imu').write_text('text')
    with pytest.raises(HardwareFault, match='cannot be opened'):
        driver.open()


def test_busy_names_the_process(tmp_path, driver):
    program = 'import serial, sys; port = serial.Serial(sys.argv[1], exclusive=True); print(1, flush=True); input()'
    with sim_imu(tmp_path / 'imu') as simulator:
        with subprocess.Popen([sys.executable, '-c', program, str(tmp_path / 'imu')], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as other:
            other.stdout.readline()
            with pytest.raises(HardwareFault, match=r'is busy: process (\d+) ') as caught:
                driver.open()
            # The simulator has its own end open as well.
            assert int(caught.value.args[0].split('process ')[1].split()[0]) in (other.pid, simulator.popen.pid)
            other.communicate(b'\n')
        assert opens(driver), 'free again'


@pytest.mark.skipif(os.geteuid() == 0, reason='root may open everything')
def test_permission_denied_names_the_group(tmp_path, driver):
    with sim_imu(tmp_path / 'imu'):
        os.chmod(tmp_path / 'imu', 0o060)
        with pytest.raises(HardwareFault, match=r'No permission for .* usermod -aG'):
            driver.open()


def test_wrong_baud_rate_and_foreign_device_are_told(tmp_path):
    driver = Bno055Driver(str(tmp_path / 'imu'), 9600)
    with sim_imu(tmp_path / 'imu'), pytest.raises(HardwareFault, match=r'answers as a BNO055 at 9600 baud .*PS1'):
        driver.open()
    driver.close()


def test_unplugging_is_a_fault_and_the_link_is_followed_anew(tmp_path, driver):
    with sim_imu(tmp_path / 'imu') as simulator:
        driver.open()
        before = os.path.realpath(tmp_path / 'imu')
        simulator.popen.kill()
        simulator.popen.wait()
        with pytest.raises(HardwareFault, match='was lost'):
            for _ in range(20):
                fault = fault_of(driver.read)
                if fault:
                    raise HardwareFault(fault)
        driver.close()
    blocker = PseudoTerminal()  # so that the next simulator gets another pty
    with sim_imu(tmp_path / 'imu', '--seed', '2'):
        driver_after = wait_for(lambda: os.path.realpath(tmp_path / 'imu') != before and opens(driver), what='reopen')
        assert driver_after and driver.read()
    blocker.close()
