"""The MPU-6050 driver through smbus2 on a simulated register map below it."""

import itertools
import math
import os

import pytest
from processes import Module
from ros_graph import Graph, wait_for_status
from sensor_msgs.msg import Imu

from moe_hardware.errors import HardwareFault
from moe_hardware.imu.driver import DamagedReply
from moe_hardware.imu.mpu6050 import Mpu6050Driver
from moe_hardware.simulation.i2c_bus import SimulatedI2cBus
from moe_hardware.simulation.inertial_body import SensorErrors
from moe_hardware.simulation.mpu6050_chip import Mpu6050

ADDRESS = 0x68


@pytest.fixture
def chip():
    ticks = itertools.count()  # every look at the clock is a sample later
    return Mpu6050(SensorErrors(3, 0.0), False, lambda: next(ticks) / 100)


@pytest.fixture
def bus(tmp_path, chip):
    with SimulatedI2cBus(tmp_path / 'i2c', {ADDRESS: chip}) as bus:
        yield bus


@pytest.fixture
def driver(bus):
    driver = Mpu6050Driver(str(bus.path), ADDRESS)
    driver.open()
    yield driver
    driver.close()


def test_units_axes_and_temperature(driver):
    errors = SensorErrors(3, 0.0)
    readings = [driver.read() for _ in range(200)]
    for axis in range(3):
        rate = sum(velocity[axis] for velocity, _ in readings) / len(readings)
        assert rate == pytest.approx(errors.gyro_bias[axis], abs=math.radians(0.05))
    up = sum(force[2] for _, force in readings) / len(readings)
    assert up == pytest.approx(9.80665 + errors.acc_bias[2], abs=0.02)
    assert driver.read_temperature() == pytest.approx(38.0, abs=0.5)


def test_a_transfer_that_fails_is_damage_and_the_next_one_counts(driver, bus):
    bus.failing = 1
    with pytest.raises(DamagedReply, match='Remote I/O'):
        driver.read()
    assert driver.read()[1][2] > 9.0


def test_a_chip_that_was_reset_is_noticed_and_set_up_again(driver, chip):
    chip.reset()
    with pytest.raises(DamagedReply, match='zero'):
        driver.read()
    with pytest.raises(HardwareFault, match='was reset'):
        driver.read_temperature()
    driver.close()
    driver.open()
    assert driver.read()[1][2] > 9.0


def test_absent_silent_and_wrong_chips_are_named(bus, chip, tmp_path):
    with pytest.raises(HardwareFault, match=r'does not exist; enable I2C'):
        Mpu6050Driver(str(tmp_path / 'none'), ADDRESS).open()
    with pytest.raises(HardwareFault, match=r'Nothing answers on .* at address 0x69'):
        Mpu6050Driver(str(bus.path), 0x69).open()
    chip._registers[0x75] = 0x71
    with pytest.raises(HardwareFault, match=r'is no MPU-6050 \(WHO_AM_I 0x71'):
        Mpu6050Driver(str(bus.path), ADDRESS).open()


def test_a_bus_that_is_unplugged_is_a_fault(driver, bus):
    bus.chips.clear()
    os.unlink(bus.path)
    with pytest.raises(HardwareFault, match='is gone'):
        driver.read()
    bus.path.touch()


def test_the_node_publishes_it(tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([os.path.dirname(__file__), os.environ.get('PYTHONPATH', '')]))
    with Graph() as graph, Module(tmp_path / 'node.log', 'mpu6050_process', tmp_path / 'i2c') as process:
        message = graph.listen(Imu, 'imu/data_raw').next()[0]
        assert message.linear_acceleration.z == pytest.approx(9.8, abs=0.5)
        assert message.orientation_covariance[0] == -1.0
        wait_for_status(graph.diagnostics(), 'imu', lambda one: one.level == b'\x00')
        assert process.end() == 0
