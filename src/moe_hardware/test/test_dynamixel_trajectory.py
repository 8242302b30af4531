"""Trajectories: they begin and end where they should and keep to speed and acceleration."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moe_hardware.dynamixel.joints import configure
from moe_hardware.dynamixel.trajectory import PointToPoint, Waypoints

JOINTS = configure(['pan', 'tilt'], [1, 2], [-3.0, -3.0], [3.0, 3.0], [1, 1], 2.0, 8.0)
angles = st.fixed_dictionaries({'pan': st.floats(-3.0, 3.0), 'tilt': st.floats(-3.0, 3.0)})


@given(angles, angles, st.floats(0.0, 5.0))
@example({'pan': 0.0, 'tilt': 5e-324}, {'pan': 0.0, 'tilt': 0.0}, 0.0)
def test_point_to_point_keeps_to_the_limits(start, goal, duration):
    trajectory = PointToPoint(start, goal, JOINTS, duration)
    assert trajectory.duration >= duration - 1e-9
    assert trajectory.at(trajectory.duration) == goal
    if trajectory.duration:
        assert trajectory.at(0.0) == start
    else:  # there is no way to go, or none that numbers can tell
        assert goal == pytest.approx(start, abs=1e-300)
    step = 0.01
    path = [trajectory.at(at * step) for at in range(int(trajectory.duration / step) + 3)]
    for joint in JOINTS:
        speeds = [(later[joint] - earlier[joint]) / step for earlier, later in pairwise(path)]
        assert all(abs(speed) <= 2.0 + 1e-6 for speed in speeds)
        assert all(abs(later - earlier) / step <= 8.0 + 1e-6 for earlier, later in pairwise(speeds))
        low, high = sorted((start[joint], goal[joint]))
        assert all(low - 1e-9 <= point[joint] <= high + 1e-9 for point in path)


def test_as_fast_as_allowed_and_no_faster():
    way = PointToPoint({'pan': 0.0}, {'pan': 2.0}, JOINTS)
    assert way.duration == pytest.approx(2.0 / 2.0 + 2.0 / 8.0)
    assert way.at(way.duration / 2) == {'pan': pytest.approx(1.0)}
    short = PointToPoint({'pan': 0.0}, {'pan': 0.02}, JOINTS)
    assert short.duration == pytest.approx(2 * (0.02 / 8.0) ** 0.5)
    assert PointToPoint({'pan': 1.0}, {'pan': 1.0}, JOINTS).duration == 0.0
    assert PointToPoint({'pan': 1.0}, {'pan': 1.0}, JOINTS, 2.0).duration == 2.0


def test_waypoints_are_passed_at_their_times():
    path = Waypoints({'pan': 0.0}, [1.0, 3.0], [{'pan': 1.0}, {'pan': 0.0}])
    assert [path.at(time)['pan'] for time in (-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 9.0)] == [0, 0, 0.5, 1, 0.5, 0, 0]
    assert path.duration == 3.0 and path.goal == {'pan': 0.0}
    assert Waypoints({'pan': 0.1}, [0.0, 1.0], [{'pan': 0.0}, {'pan': 1.0}]).at(0.5) == {'pan': 0.5}
