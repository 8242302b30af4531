"""The rules of a simulated servo, in time that the test makes."""

import pytest

from moe_hardware.dynamixel import control_table as ct
from moe_hardware.simulation import servo as rules
from moe_hardware.simulation.servo import Refused, SimulatedServo


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def servo(clock):
    return SimulatedServo(1, clock)


def write(servo, register, value):
    servo.write(register.address, register.encode(value))


def refusal(servo, register, value):
    with pytest.raises(Refused) as refused:
        write(servo, register, value)
    return refused.value.error


def test_it_moves_only_while_torque_is_on(servo, clock):
    write(servo, ct.GOAL_POSITION, 3000)
    clock.now += 5.0
    assert servo.position == 2048
    write(servo, ct.TORQUE_ENABLE, 1)
    clock.now += 5.0
    assert servo.position == 3000


def test_profile_velocity_and_acceleration_bound_the_motion(servo, clock):
    write(servo, ct.PROFILE_VELOCITY, 100)  # 22.9 rev/min = 1563 ticks/s
    write(servo, ct.TORQUE_ENABLE, 1)
    write(servo, ct.GOAL_POSITION, 4000)
    clock.now += 0.5
    assert servo.position == pytest.approx(2048 + 1563 * 0.5, abs=10)
    assert servo.get(ct.PRESENT_VELOCITY) == 100
    assert servo.get(ct.MOVING) == 1
    write(servo, ct.GOAL_POSITION, servo.position)
    clock.now += 1.0
    write(servo, ct.PROFILE_ACCELERATION, 10)  # 2146 rev/min^2 = 2441 ticks/s^2
    begin = servo.position
    write(servo, ct.GOAL_POSITION, 4000)
    clock.now += 0.2
    assert servo.position - begin == pytest.approx(0.5 * 2441 * 0.2 ** 2, abs=8)


def test_eeprom_is_locked_while_torque_is_on(servo):
    write(servo, ct.TORQUE_ENABLE, 1)
    assert refusal(servo, ct.MAX_POSITION_LIMIT, 3000) == rules.ACCESS
    write(servo, ct.TORQUE_ENABLE, 0)
    write(servo, ct.MAX_POSITION_LIMIT, 3000)
    assert refusal(servo, ct.GOAL_POSITION, 3001) == rules.DATA_LIMIT


def test_bad_writes_change_nothing(servo):
    assert refusal(servo, ct.PRESENT_POSITION, 0) == rules.ACCESS
    assert refusal(servo, ct.TORQUE_ENABLE, 2) == rules.DATA_LIMIT
    with pytest.raises(Refused):
        servo.write(ct.GOAL_POSITION.address, b'\x01\x02')
    with pytest.raises(Refused):
        servo.write(ct.TABLE_SIZE - 1, b'\x01\x02')
    with pytest.raises(Refused):
        servo.read(140, 20)
    assert servo.get(ct.GOAL_POSITION) == 2048


def test_the_bus_watchdog_stops_the_motion_and_must_be_cleared(servo, clock):
    write(servo, ct.PROFILE_VELOCITY, 100)
    write(servo, ct.TORQUE_ENABLE, 1)
    write(servo, ct.GOAL_POSITION, 4000)
    write(servo, ct.BUS_WATCHDOG, 10)  # 200 ms
    servo.heard()
    clock.now += 3.0
    assert servo.position == pytest.approx(2048 + 1563 * 0.2, abs=10)
    assert servo.get(ct.BUS_WATCHDOG) == ct.WATCHDOG_ERROR
    assert refusal(servo, ct.GOAL_POSITION, 2048) == rules.DATA_RANGE
    write(servo, ct.BUS_WATCHDOG, 0)
    write(servo, ct.GOAL_POSITION, 2048)
    clock.now += 3.0
    assert servo.position == 2048


def test_a_hardware_error_takes_the_torque_until_reboot(servo, clock):
    write(servo, ct.TORQUE_ENABLE, 1)
    servo.raise_hardware_error(1 << 5)
    assert not servo.torque
    assert servo.status_error() == rules.ALERT
    assert refusal(servo, ct.TORQUE_ENABLE, 1) == rules.RESULT_FAIL
    servo.reboot()
    assert not servo.awake()
    clock.now += 1.0
    assert servo.awake()
    write(servo, ct.TORQUE_ENABLE, 1)
    assert servo.status_error() == 0


def test_voltage_and_temperature_are_those_of_the_world(servo):
    servo.voltage, servo.temperature = 9.04, 55.4
    servo.advance()
    assert servo.get(ct.PRESENT_INPUT_VOLTAGE) == 90
    assert servo.get(ct.PRESENT_TEMPERATURE) == 55


def test_every_register_has_its_own_place():
    taken = [at for one in ct.REGISTERS for at in range(one.address, one.address + one.size)]
    assert len(taken) == len(set(taken))
    assert max(taken) == ct.TABLE_SIZE - 1
