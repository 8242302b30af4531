"""The simulated BNO055: the UART protocol, the register map, modes and reset, as in the data sheet."""

import struct

import numpy
import pytest

from moe_hardware.simulation.bno055_chip import Bno055
from moe_hardware.simulation.inertial_body import SensorErrors, truth


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def chip(clock):
    return Bno055(SensorErrors(seed=1, warmup_s=20.0), False, clock)


def read(chip, address, length):
    reply = chip.receive(bytes([0xAA, 1, address, length]))
    assert reply[:2] == bytes([0xBB, length]) and len(reply) == 2 + length
    return reply[2:]


def write(chip, address, *values):
    return chip.receive(bytes([0xAA, 0, address, len(values), *values]))


def enter(chip, clock, mode):
    assert write(chip, 0x3D, mode) == b'\xEE\x01'
    clock.now += 0.02


def test_identity_and_values_out_of_reset(chip):
    assert read(chip, 0x00, 8) == bytes([0xA0, 0xFB, 0x32, 0x0F, 0x11, 0x03, 0x15, 0x00])
    assert read(chip, 0x3D, 2) == bytes([0, 0])
    assert read(chip, 0x08, 6) == bytes(6), 'no data in CONFIG mode'
    assert read(chip, 0x39, 1) == b'\x00'


@pytest.mark.parametrize(('request_bytes', 'reply'), [
    (b'\x55\x01\x00\x01', 'ee06'), (b'\xAA\x02\x00\x01', 'ee02'), (b'\xAA\x01\x00\x00', 'ee09'),
    (b'\xAA\x01\x00\x81', 'ee08'), (b'\xAA\x01\x6B\x01', 'ee04'), (b'\xAA\x00\x00\x01\x07', 'ee05'),
    (b'\xAA\x00\x3D\x01\x0F', 'ee03'), (b'\xAA\x00\x07\x01\x02', 'ee03'),
])
def test_wrong_requests_get_the_status_of_the_data_sheet(chip, request_bytes, reply):
    assert chip.receive(request_bytes).hex() == reply


def test_a_request_may_come_in_pieces_but_not_too_slowly(chip, clock):
    assert chip.receive(b'\xAA\x01') == b''
    clock.now += 0.02
    assert chip.receive(b'\x00\x01') == b'\xBB\x01\xA0'
    assert chip.receive(b'\xAA\x01') == b''
    clock.now += 0.04
    assert chip.receive(b'\xAA\x01\x00\x01') == b'\xEE\x0A\xBB\x01\xA0'


def test_deaf_between_modes_and_while_it_boots(chip, clock):
    write(chip, 0x3D, 0x07)
    assert chip.receive(b'\xAA\x01\x00\x01') == b''
    clock.now += 0.01
    assert read(chip, 0x39, 1) == b'\x06', 'runs without fusion'
    assert write(chip, 0x3F, 0x20) == b'', 'a reset is not acknowledged'
    clock.now += 0.6
    assert chip.receive(b'\xAA\x01\x00\x01') == b''
    clock.now += 0.1
    assert read(chip, 0x3D, 1) == b'\x00'


def test_units_are_set_in_config_mode_only(chip, clock):
    enter(chip, clock, 0x05)
    assert write(chip, 0x3B, 0x03) == b'\xEE\x05'
    enter(chip, clock, 0x00)
    assert write(chip, 0x3B, 0x03) == b'\xEE\x01'
    enter(chip, clock, 0x05)
    milli_g = struct.unpack('<3h', read(chip, 0x08, 6))
    assert milli_g[2] == pytest.approx(1000, abs=40)
    enter(chip, clock, 0x00)
    write(chip, 0x3B, 0x80)
    enter(chip, clock, 0x05)
    assert struct.unpack('<3h', read(chip, 0x08, 6))[2] == pytest.approx(981, abs=40)


def test_the_second_page_has_its_own_registers(chip):
    write(chip, 0x07, 1)
    assert read(chip, 0x07, 4) == bytes([0x01, 0x0D, 0x6D, 0x38])
    write(chip, 0x07, 0)
    assert read(chip, 0x00, 1) == b'\xA0'


def test_warm_up_noise_and_seed():
    errors, same, other = SensorErrors(3, 20.0), SensorErrors(3, 20.0), SensorErrors(4, 20.0)
    exact = truth(0.0, False)
    numpy.testing.assert_array_equal(exact.specific_force, [0, 0, 9.80665])
    numpy.testing.assert_array_equal(errors.measured(exact, 1.0)[1], same.measured(exact, 1.0)[1])
    assert (errors.measured(exact, 1.0)[1] != other.measured(exact, 1.0)[1]).all()
    assert errors.temperature(0.0) == 24.0
    assert errors.temperature(200.0) == pytest.approx(38.0, abs=0.01)
    cold, warm = (numpy.mean([errors.measured(exact, start + tick / 100)[1] for tick in range(100)], axis=0)
                  for start in (0.0, 200.0))
    numpy.testing.assert_allclose(warm, errors.gyro_bias, atol=0.001)
    assert (abs(cold - warm) > 0.003).all()


def test_fusion_modes_give_euler_angles_quaternion_and_gravity(clock):
    chip = Bno055(SensorErrors(1, 0.0), True, clock)
    enter(chip, clock, 0x0C)
    clock.now = 5.0
    exact = truth(5.0, True)
    heading, roll, pitch = (word / 16.0 for word in struct.unpack('<3h', read(chip, 0x1A, 6)))
    numpy.testing.assert_allclose([roll, -pitch, 360 - heading], numpy.degrees(exact.euler), atol=0.1)
    quaternion = numpy.array(struct.unpack('<4h', read(chip, 0x20, 8))) / 16384
    assert numpy.linalg.norm(quaternion) == pytest.approx(1.0, abs=1e-3)
    numpy.testing.assert_allclose(numpy.array(struct.unpack('<3h', read(chip, 0x2E, 6))) / 100,
                                  exact.specific_force, atol=0.006)
    assert read(chip, 0x34, 2) == bytes([38, 0xFF])


def test_angular_velocity_is_the_derivative_of_the_attitude():
    def matrix(seconds):
        roll, pitch, yaw = truth(seconds, True).euler
        cr, sr, cp, sp, cy, sy = (f(a) for a in (roll, pitch, yaw) for f in (numpy.cos, numpy.sin))
        return (numpy.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
                @ numpy.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
                @ numpy.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]]))

    for seconds in (0.7, 3.1, 12.9):
        skew = matrix(seconds).T @ (matrix(seconds + 1e-5) - matrix(seconds - 1e-5)) / 2e-5
        exact = truth(seconds, True)
        numpy.testing.assert_allclose(exact.angular_velocity, [skew[2, 1], skew[0, 2], skew[1, 0]], atol=1e-6)
        numpy.testing.assert_allclose(exact.specific_force, matrix(seconds).T @ [0, 0, 9.80665], atol=1e-9)
