"""Calibration: the offsets found, motion and defects refused, the file whole in every case."""

import math
import os
import signal
import subprocess
import sys

import numpy
import pytest
from processes import wait_for

from moe_hardware.errors import HardwareFault, InvalidCommand, SafetyViolation
from moe_hardware.imu.calibration import Calibration, Calibrator, load, save
from moe_hardware.imu.reading import Reading
from moe_hardware.simulation.inertial_body import SensorErrors, truth

FOUND = Calibration((0.01, -0.02, 0.003), (0.0, 0.1, -0.05), 9.75, 36.5, 2000, True)


def readings(count, sway=False, errors=None, turn=(0, 0, 0), lift=1.0):
    errors = errors or SensorErrors(1, 0.0)
    for step in range(count):
        force, velocity = errors.measured(truth(step / 100, sway), step / 100)
        yield Reading(step * 10_000_000, tuple(velocity + turn), tuple(force * lift), 37.0)


def calibrate(samples):
    samples = list(samples)
    calibrator = Calibrator(len(samples))
    for reading in samples:
        calibrator.add(reading)
    assert calibrator.complete
    return calibrator.result(warm=True)


def test_finds_the_offsets():
    errors = SensorErrors(5, 0.0)
    found = calibrate(readings(1000, errors=errors))
    numpy.testing.assert_allclose(found.gyro_bias, errors.gyro_bias, atol=3e-4)
    assert found.accel_norm == pytest.approx(numpy.linalg.norm([*errors.acc_bias[:2], 9.80665 + errors.acc_bias[2]]),
                                             abs=0.002)
    assert (found.samples, found.temperature, found.warm) == (1000, pytest.approx(37.0), True)
    corrected = [found.apply(reading) for reading in readings(1000, errors=errors)]
    acceleration, velocity = (numpy.mean([getattr(one, name) for one in corrected], axis=0)
                              for name in ('linear_acceleration', 'angular_velocity'))
    assert numpy.linalg.norm(acceleration) == pytest.approx(9.80665, abs=1e-6)
    numpy.testing.assert_allclose(velocity, 0, atol=1e-9)


def test_refuses_motion_as_soon_as_it_shows():
    calibrator = Calibrator(2000)
    with pytest.raises(SafetyViolation, match=r'The robot moved .*calibrate again'):
        for reading in readings(2000, sway=True):
            calibrator.add(reading)
    assert calibrator.count < 500


def test_refuses_what_is_no_sensor_at_rest_on_earth():
    with pytest.raises(HardwareFault, match='turns steadily'):
        calibrate(readings(200, turn=(0, 0, 0.2)))
    with pytest.raises(HardwareFault, match=r'measures 1[89]\.\d+ m/s\^2 at rest instead of 9.80665'):
        calibrate(readings(200, lift=1.9))
    with pytest.raises(InvalidCommand, match='99 samples are too few'):
        Calibrator(99)


def test_is_kept_in_a_file(tmp_path):
    path = tmp_path / 'folder' / 'imu.yaml'
    assert load(path) == Calibration() or math.isnan(load(path).temperature)
    save(FOUND, path)
    assert load(path) == FOUND
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize('content', [
    '', 'gyro_bias: [1, 2]', '[1, 2', 'a: b', b'\xff\xfe', 'gyro_bias: [.nan, 0, 0]\naccel_bias: [0, 0, 0]\n'
    'accel_norm: 9.8\ntemperature: 30\nsamples: 100\nwarm: true'])
def test_a_broken_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / 'imu.yaml'
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(data)
    with pytest.raises(InvalidCommand, match='is not a calibration of an IMU'):
        load(path)
    assert path.read_bytes() == data


def test_a_disk_that_takes_nothing_is_told(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(HardwareFault, match='could not be written to'):
        save(FOUND, tmp_path / 'file' / 'imu.yaml')


def test_a_kill_while_it_is_written_leaves_the_old_or_the_new_file(tmp_path):
    path = tmp_path / 'imu.yaml'
    program = ('import sys\nfrom pathlib import Path\nfrom moe_hardware.imu.calibration import *\n'
               'n = 0\nwhile True:\n n += 1\n save(Calibration(samples=n, temperature=1.0), Path(sys.argv[1]))\n')
    for _ in range(3):
        path.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, '-c', program, str(path)]) as writer:
            wait_for(path.exists, what='first file')
            writer.send_signal(signal.SIGKILL)
        assert load(path).samples > 0
    save(FOUND, path)
    assert load(path) == FOUND
    assert os.listdir(tmp_path) == ['imu.yaml']
