"""What a command must keep to before a byte is written."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_hardware.dynamixel import limits
from moe_hardware.dynamixel.joints import configure
from moe_hardware.errors import SafetyViolation

JOINTS = configure(['pan', 'tilt'], [1, 2], [-1.5, -1.0], [1.5, 1.0], [1, -1], 3.0, 12.0)


def test_good_positions_are_returned_by_name():
    assert limits.check_positions(JOINTS, ['tilt', 'pan'], [1, -1.5]) == {'tilt': 1.0, 'pan': -1.5}


@pytest.mark.parametrize('names, positions, sentence', [
    ([], [], 'names no joint; name some of pan, tilt'), (['roll'], [0.0], 'no joint "roll"'),
    (['pan', 'pan'], [0.0, 0.0], 'twice'), (['pan'], [], '1 joints and 0 positions'),
    (['pan'], [math.nan], 'not a number'), (['pan'], [-math.inf], 'not a number'),
    (['pan', 'tilt'], [0.0, 1.1], 'tilt at 63.0 degrees is outside its range of -57.3 to 57.3 degrees'),
])
def test_bad_positions_are_refused(names, positions, sentence):
    with pytest.raises(SafetyViolation) as error:
        limits.check_positions(JOINTS, names, positions)
    assert sentence in str(error.value)
    assert error.value.code == 4001


@given(st.lists(st.floats(), min_size=1, max_size=5))
def test_only_rising_times_from_zero_on_pass(times):
    good = (all(map(math.isfinite, times)) and times[0] >= 0 and times == sorted(set(times)))
    if good:
        limits.check_times(times)
    else:
        with pytest.raises(SafetyViolation):
            limits.check_times(times)


def test_speed_counts_from_where_the_joint_is():
    limits.check_speed(JOINTS, {'pan': 0.0}, [0.5, 1.0], [{'pan': 1.5}, {'pan': 0.0}])
    with pytest.raises(SafetyViolation, match=r'pan would have to move at 3.20 rad/s'):
        limits.check_speed(JOINTS, {'pan': -0.1}, [0.5], [{'pan': 1.5}])
    with pytest.raises(SafetyViolation, match='faster'):
        limits.check_speed(JOINTS, {'pan': 0.0}, [1.0, 1.1], [{'pan': 0.5}, {'pan': 1.0}])


def test_a_first_point_at_time_zero_must_be_where_the_joint_is():
    limits.check_speed(JOINTS, {'pan': 0.01}, [0.0, 1.0], [{'pan': 0.0}, {'pan': 1.0}])
    with pytest.raises(SafetyViolation):
        limits.check_speed(JOINTS, {'pan': 0.2}, [0.0, 1.0], [{'pan': 0.0}, {'pan': 1.0}])


@pytest.mark.parametrize('duration', [math.nan, math.inf, -0.1])
def test_unreal_durations_are_refused(duration):
    with pytest.raises(SafetyViolation):
        limits.check_duration(duration)


def test_settings_that_do_not_fit_are_named():
    for arguments, sentence in (
            ((['pan'], [1, 2], [0.0], [1.0], [1], 1.0, 1.0), 'one entry for each joint'),
            ((['a', 'a'], [1, 2], [0.0] * 2, [1.0] * 2, [1, 1], 1.0, 1.0), 'must not repeat'),
            ((['a'], [253], [0.0], [1.0], [1], 1.0, 1.0), 'within 0..252'),
            ((['a'], [1], [1.0], [0.0], [1], 1.0, 1.0), 'range of a, 1..0 rad'),
            ((['a'], [1], [0.0], [1.0], [2], 1.0, 1.0), '1 or -1'),
            ((['a'], [1], [0.0], [1.0], [1], 0.0, 1.0), 'greater than 0')):
        with pytest.raises(ValueError, match=sentence):
            configure(*arguments)


@given(st.integers(0, 4095))
def test_ticks_and_radians_agree(ticks):
    for joint in JOINTS.values():
        assert joint.ticks(joint.radians(ticks)) == ticks
    assert JOINTS['pan'].radians(3072) == pytest.approx(math.pi / 2)
    assert JOINTS['tilt'].radians(3072) == pytest.approx(-math.pi / 2)
