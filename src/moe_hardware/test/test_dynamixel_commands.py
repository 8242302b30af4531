"""Streamed commands, ids and the return delay, in the bus thread without ROS."""

import math

import pytest
from processes import wait_for
from test_dynamixel_controller import bus, make  # noqa: F401 - fixtures

from moe_hardware.dynamixel import control_table as ct
from moe_hardware.errors import HardwareFault, InvalidCommand, MotionCancelled, SafetyViolation


def goals(simulated, servo=1):
    return [one['value'] for one in list(simulated.journal.entries)
            if one['id'] == servo and one['register'] == 'goal_position']


def test_a_stream_of_commands_is_followed_without_stops(make, bus):  # noqa: F811
    controller = make(command_timeout_s=30.0)
    begin = len(goals(bus))
    for number in range(1, 21):
        last = controller.command([0.02 * number, 0.0])
    assert last.wait(10.0) and last.error is None
    wait_for(lambda: bus.servos[1].position == ct.ticks(0.4))  # it has arrived within the tolerance of a goal
    written = goals(bus)[begin:]
    assert written == sorted(written)  # never back, as a stop between two of them would go


def test_a_stream_that_ends_holds_where_it_is(make, bus):  # noqa: F811
    controller = make(command_timeout_s=0.1)
    movement = controller.command([1.5, 0.0])  # half a second away
    assert movement.wait(10.0) and isinstance(movement.error, MotionCancelled)
    assert 'No command came for 0.10 s' in str(movement.error)
    assert 0.0 < ct.radians(goals(bus)[-1]) < 1.4


@pytest.mark.parametrize('positions', [[], [0.1], [0.1, math.nan], [0.1, 9.0], [0.1, 0.1, 0.1]])
def test_commands_out_of_order_are_refused_whole(make, bus, positions):  # noqa: F811
    controller = make()
    before = len(goals(bus))
    with pytest.raises(SafetyViolation):
        controller.command(positions)
    assert len(goals(bus)) == before


def test_an_id_is_changed_and_the_servo_is_found_under_it(make, bus):  # noqa: F811
    controller = make()
    with pytest.raises(InvalidCommand, match='answers as 2 already'):
        controller.set_id(1, 2)
    with pytest.raises(InvalidCommand, match='two different ones of 0 to 252'):
        controller.set_id(1, 253)
    with pytest.raises(HardwareFault, match=r'Servo 7 .* does not answer'):
        controller.set_id(7, 8)
    controller.set_id(1, 5)
    assert bus.servos[1].id == 5 and not bus.servos[1].torque
    wait_for(lambda: not controller.reports[0].online)
    controller.set_id(5, 1)
    wait_for(lambda: controller.reports[0].online and controller.reports[0].torque)


def test_the_return_delay_is_set_while_nothing_is_held(make, bus):  # noqa: F811
    bus.servos[2].set(ct.TORQUE_ENABLE, 1)
    make(return_delay_us=20)
    assert bus.servos[1].get(ct.RETURN_DELAY_TIME) == 10
    assert bus.servos[2].get(ct.RETURN_DELAY_TIME) == 250  # it would have let go
