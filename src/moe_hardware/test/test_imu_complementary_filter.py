"""The complementary filter: tilt from gravity, heading from turning, and everything a stamp can do."""

import math

import numpy
import pytest

from moe_hardware.imu.complementary_filter import ComplementaryFilter, roll_pitch_yaw, yaw
from moe_hardware.simulation.inertial_body import truth

G = 9.80665
REST = (0.0, 0.0, G)
STILL = (0.0, 0.0, 0.0)


def gravity(roll, pitch):
    return (-G * math.sin(pitch), G * math.sin(roll) * math.cos(pitch), G * math.cos(roll) * math.cos(pitch))


def run(fusion, seconds, velocity, acceleration, rate=100.0, start=0.0):
    for step in range(round(seconds * rate)):
        fusion.update(int((start + step / rate) * 1e9) + 1, velocity, acceleration)
    return fusion.orientation


@pytest.mark.parametrize(('roll', 'pitch'), [(0.3, -0.2), (-3.0, 0.4), (math.pi / 2, 0.0), (0.0, 1.5), (3.1, -1.0)])
def test_the_first_reading_sets_the_tilt(roll, pitch):
    fusion = ComplementaryFilter()
    assert roll_pitch_yaw(fusion.update(1, STILL, gravity(roll, pitch))) == pytest.approx((roll, pitch, 0.0), abs=1e-9)


def test_orientation_is_of_the_body_in_the_world_as_rep_103_has_it():
    # A quarter turn to the left is +90 degrees about z, and z points up.
    fusion = ComplementaryFilter()
    x, y, z, w = run(fusion, 1.01, (0.0, 0.0, math.pi / 2), REST)
    assert (x, y, z, w) == pytest.approx((0.0, 0.0, math.sin(math.pi / 4), math.cos(math.pi / 4)), abs=1e-9)


@pytest.mark.parametrize('rate', [25.0, 100.0, 400.0])
def test_the_time_constant_does_not_depend_on_the_rate(rate):
    fusion = ComplementaryFilter(alpha=0.98)
    assert fusion.time_constant_s == pytest.approx(0.49)
    fusion.update(1, STILL, gravity(0.2, 0.0))
    run(fusion, 0.49, STILL, REST, rate, start=1 / rate)
    assert roll_pitch_yaw(fusion.orientation)[0] == pytest.approx(0.2 * math.exp(-1), rel=0.08)


def test_a_turn_through_pi_does_not_jump():
    fusion = ComplementaryFilter()
    before = fusion.update(1, STILL, gravity(math.radians(170), 0.0))
    for step in range(1, 41):
        roll = math.radians(170 + step / 2)
        after = fusion.update(step * 10_000_000 + 1, (math.radians(50), 0.0, 0.0), gravity(roll, 0.0))
        assert abs(numpy.dot(before, after)) > 0.9999
        before = after
    roll, pitch, heading = roll_pitch_yaw(after)
    assert math.degrees(roll) == pytest.approx(-170.0, abs=0.1)
    assert (pitch, heading) == pytest.approx((0.0, 0.0), abs=1e-6)


def test_heading_wraps_and_is_not_pulled_by_gravity():
    fusion = ComplementaryFilter()
    run(fusion, 2.01, (0.0, 0.0, math.radians(100)), REST)
    assert math.degrees(yaw(fusion.orientation)) == pytest.approx(-160.0, abs=1e-6)
    run(fusion, 5.0, STILL, REST, start=2.01)
    assert math.degrees(yaw(fusion.orientation)) == pytest.approx(-160.0, abs=1e-6)


def test_follows_a_swaying_body():
    fusion = ComplementaryFilter()
    for step in range(3000):
        exact = truth(step / 100, True)
        fusion.update(step * 10_000_000 + 1, tuple(exact.angular_velocity), tuple(exact.specific_force))
        assert roll_pitch_yaw(fusion.orientation) == pytest.approx(tuple(exact.euler), abs=math.radians(1.0))


def test_stamps_that_stand_still_or_go_back_change_nothing():
    fusion = ComplementaryFilter()
    before = fusion.update(1_000_000_000, STILL, gravity(0.1, 0.2))
    assert fusion.update(1_000_000_000, (9.0, 9.0, 9.0), REST) == before
    assert fusion.update(500_000_000, (9.0, 9.0, 9.0), REST) == before
    fusion.update(510_000_000, (0.0, 0.0, 1.0), gravity(0.1, 0.2))  # and goes on from there
    assert yaw(fusion.orientation) == pytest.approx(0.01, abs=1e-3)


def test_after_a_gap_tilt_is_taken_anew_and_heading_kept():
    fusion = ComplementaryFilter()
    run(fusion, 1.01, (0.0, 0.0, 1.0), REST)
    fusion.update(10_000_000_000, (5.0, 5.0, 5.0), gravity(0.4, -0.3))
    assert roll_pitch_yaw(fusion.orientation) == pytest.approx((0.4, -0.3, 1.0), abs=1e-6)


def test_a_jolt_and_free_fall_do_not_tilt():
    fusion = ComplementaryFilter()
    fusion.update(1, STILL, REST)
    run(fusion, 0.3, STILL, (20.0, 0.0, G), start=0.01)
    run(fusion, 0.3, STILL, (0.0, 0.0, 0.0), start=0.31)
    assert roll_pitch_yaw(fusion.orientation) == pytest.approx((0.0, 0.0, 0.0), abs=1e-9)


def test_finds_its_way_from_upside_down():
    fusion = ComplementaryFilter()
    fusion.update(1, STILL, (0.0, 0.0, -G))
    run(fusion, 5.0, STILL, REST, start=0.01)
    assert roll_pitch_yaw(fusion.orientation)[:2] == pytest.approx((0.0, 0.0), abs=0.01)


@pytest.mark.parametrize('alpha', [-0.1, 1.0, math.nan])
def test_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match='alpha is at least 0 and below 1'):
        ComplementaryFilter(alpha)
