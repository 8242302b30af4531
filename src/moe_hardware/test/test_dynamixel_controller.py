"""The bus thread without ROS: who is refused, what a stop and an end leave behind."""

import threading
import time

import pytest

from moe_hardware.dynamixel import control_table as ct
from moe_hardware.dynamixel.controller import ServoController
from moe_hardware.dynamixel.joints import configure
from moe_hardware.dynamixel.settings import Settings
from moe_hardware.errors import HardwareFault, MotionCancelled, SafetyViolation
from moe_hardware.simulation.servo_bus import SimulatedBus

JOINTS = configure(['pan', 'tilt'], [1, 2], [-1.5, -1.0], [1.5, 1.0], [1, -1], 3.0, 12.0)


def wait_for(condition, timeout=15.0):
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up:
        if value := condition():
            return value
        time.sleep(0.005)
    raise AssertionError('condition not met in time')


@pytest.fixture
def bus(tmp_path):
    with SimulatedBus((1, 2), tmp_path / 'servos') as bus:
        yield bus


@pytest.fixture
def make(bus, tmp_path):
    made = []

    def controller(**settings):
        one = ServoController(Settings(str(tmp_path / 'servos'), 57600, JOINTS, **settings), lambda _fresh: None,
                              print, print)
        made.append(one)
        one.start()
        wait_for(lambda: one.connected and all(report.online for report in one.reports))
        return one

    yield controller
    for one in made:
        one.stop()


def test_a_reversed_joint_turns_the_other_way(make, bus):
    controller = make()
    movement = controller.move(['pan', 'tilt'], [0.3, 0.3])
    assert movement.wait(10.0) and movement.error is None
    assert bus.servos[1].position == pytest.approx(ct.ticks(0.3), abs=1)
    assert bus.servos[2].position == pytest.approx(ct.ticks(-0.3), abs=1)
    assert controller.reports[1].position == pytest.approx(0.3, abs=0.03)


def test_the_first_goal_is_written_before_move_returns(make, bus):
    controller = make()
    before = len(bus.journal.entries)
    controller.move(['pan'], [0.5])
    wait_for(lambda: any(one['register'] == 'goal_position' for one in bus.journal.entries[before:]))
    controller.halt()
    assert bus.journal.entries[before]['value'] > 2048


def test_the_servos_own_limits_count_too(make, bus):
    bus.servos[1].set(ct.MAX_POSITION_LIMIT, ct.ticks(0.5))
    controller = make()
    with pytest.raises(SafetyViolation, match=r'outside its range of -85.9 to 28.7 degrees'):
        controller.move(['pan'], [0.6])
    assert controller.move(['pan'], [0.4]).wait(10.0)


def test_another_operating_mode_is_changed_with_the_torque_off(make, bus):
    bus.servos[1].set(ct.OPERATING_MODE, 1)
    bus.servos[1].set(ct.TORQUE_ENABLE, 1)
    make()
    assert bus.servos[1].get(ct.OPERATING_MODE) == ct.POSITION_MODE
    assert bus.servos[1].torque


def test_servos_may_be_left_holding(make, bus):
    controller = make(torque_off_on_shutdown=False)
    controller.stop()
    assert bus.servos[1].torque and bus.servos[2].torque
    assert bus.servos[1].get(ct.BUS_WATCHDOG) == 0


def test_an_estop_may_release_the_torque(make, bus):
    controller = make(estop_releases_torque=True)
    movement = controller.move(['pan'], [1.0], duration=10.0)
    assert controller.trip('a test')
    assert not controller.trip('another')
    assert movement.wait(5.0) and isinstance(movement.error, SafetyViolation)
    assert controller.emergency_stop.reason == 'a test'
    assert not bus.servos[1].torque and not bus.servos[2].torque
    controller.reset()
    assert bus.servos[1].torque and bus.servos[2].torque


def test_a_tripped_watchdog_of_a_living_node_ends_the_movement_only(make, bus):
    controller = make()
    movement = controller.move(['pan'], [1.0], duration=10.0)
    with bus.lock:
        bus.servos[1].set(ct.BUS_WATCHDOG, ct.WATCHDOG_ERROR)
    assert movement.wait(10.0) and isinstance(movement.error, HardwareFault)
    assert 'watchdog' in str(movement.error)
    assert controller.move(['pan'], [0.1]).wait(10.0)
    assert not controller.emergency_stop.reason


def test_commands_of_many_threads_are_all_answered(make):
    controller = make()
    ends = []

    def run(at):
        movement = controller.move(['pan'], [0.01 * at])
        movement.wait(10.0)
        ends.append(movement.error)

    threads = [threading.Thread(target=run, args=(at,)) for at in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 12 and ends.count(None) >= 1
    assert all(end is None or isinstance(end, MotionCancelled) for end in ends)


def test_lost_and_spoilt_replies_are_counted_and_do_no_harm(make, bus):
    controller = make()
    seen = []
    movement = controller.move(['pan'], [0.5], duration=1.0)
    while not movement.wait(0.05):
        bus.corrupt()
        seen.append(controller.reports[0].position)
    assert movement.error is None
    assert sum(report.damages for report in controller.reports) > 0
    assert all(-0.01 <= position <= 0.51 for position in seen)
