"""The filter of x-io behaves like ours where both must: tilt, turn, gaps, clocks, impacts."""

import math

import pytest

from moe_hardware.imu.complementary_filter import ComplementaryFilter, roll_pitch_yaw
from moe_hardware.imu.fusion_filter import FusionFilter

G = 9.80665
STEP_NS = 10_000_000


@pytest.fixture(params=[ComplementaryFilter, FusionFilter])
def fusion(request):
    return request.param()


def angles(orientation):
    return [math.degrees(angle) for angle in roll_pitch_yaw(orientation)]


def tilted(degrees):
    return (0.0, G * math.sin(math.radians(degrees)), G * math.cos(math.radians(degrees)))


def test_the_first_reading_gives_the_tilt(fusion):
    assert angles(fusion.update(STEP_NS, (0.0, 0.0, 0.0), tilted(20))) == pytest.approx([20, 0, 0], abs=0.1)


def test_a_turn_beyond_half_a_circle_wraps(fusion):
    orientation = None
    for number in range(1, 402):  # 200 degrees to the left
        orientation = fusion.update(number * STEP_NS, (0.0, 0.0, math.radians(50.0)), (0.0, 0.0, G))
    assert angles(orientation) == pytest.approx([0, 0, -160], abs=0.5)


def test_gaps_keep_the_heading_and_old_stamps_change_nothing(fusion):
    for number in range(1, 101):
        before = fusion.update(number * STEP_NS, (0.0, 0.0, math.radians(30.0)), (0.0, 0.0, G))
    assert angles(before)[2] == pytest.approx(29.7, abs=0.3)
    assert fusion.update(100 * STEP_NS, (9.0, 9.0, 9.0), (0.0, 0.0, G)) == pytest.approx(before)
    fusion.update(50 * STEP_NS, (9.0, 9.0, 9.0), (0.0, 0.0, G))
    after = fusion.update(900 * STEP_NS, (9.0, 9.0, 9.0), tilted(10))
    assert angles(after) == pytest.approx([10, 0, angles(before)[2]], abs=0.3)


def test_a_gain_of_nothing_is_refused():
    with pytest.raises(ValueError, match='gain is above 0'):
        FusionFilter(0.0)
