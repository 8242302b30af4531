"""The robot's state in words."""

import math

import pytest

from moe_router.grounding import Reading, RobotState, joints, orientation


def test_a_fresh_value_is_told_with_its_age_and_a_stale_one_without_itself():
    state = RobotState(('imu', 'joints', 'image'))
    state.hear('imu', Reading('yaw +10 deg', 99.5))
    state.hear('joints', Reading('pan +30 deg', 90.0))
    text = state.block(100.0, 2.0)
    assert 'imu: yaw +10 deg (0.5 s ago)' in text
    assert 'joints: stale, 10.0 s old' in text and 'pan' not in text
    assert 'image: no data' in text


def test_an_older_reading_never_replaces_a_newer_one_and_the_future_is_stale():
    state = RobotState(('imu',))
    state.hear('imu', Reading('new', 100.0))
    state.hear('imu', Reading('old', 99.0))
    assert 'new' in state.block(100.0, 5.0)
    assert 'stale' in state.block(90.0, 5.0)


def test_angles_are_in_degrees():
    half = math.radians(90) / 2
    assert orientation(0.0, 0.0, math.sin(half), math.cos(half)) == 'roll +0 deg, pitch +0 deg, yaw +90 deg'
    assert joints({'pan': math.pi / 6, 'tilt': math.nan}) == 'pan +30 deg, tilt unknown'


@pytest.mark.parametrize('turn', [(0, 0, 0, 0), (math.nan, 0, 0, 1), (math.inf, 0, 0, 1)])
def test_an_orientation_that_is_none_says_so(turn):
    assert orientation(*turn) == 'orientation unknown'
