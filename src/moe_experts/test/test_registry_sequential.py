"""The sequential test: its false-positive rate under continuous peeking, its power, its safeguards."""

import math

import numpy as np
import pytest

from moe_experts.registry.sequential import MINIMUM, Arm, judge, log_ratio, sample_ratio_p

SESSIONS = 600
TESTS = 2000  # simulated


def rejections(rates, share, seed):
    """Share of simulated tests that ever had p <= 0.05, looked at after every fifth session."""
    random = np.random.default_rng(seed)
    treated = random.random((TESTS, SESSIONS)) < share
    good = random.random((TESTS, SESSIONS)) < np.where(treated, rates[1], rates[0])
    counts = [np.cumsum(which, axis=1) for which in (~treated & good, ~treated, treated & good, treated)]
    rejected = 0
    for index in range(TESTS):
        for at in range(4, SESSIONS, 5):
            seen = [int(count[index, at]) for count in counts]
            # the mean with the ratio of ratings, of which there are none, as judge() takes it
            if min(seen[1], seen[3]) >= MINIMUM and (1.0 + math.exp(log_ratio(*seen))) / 2.0 >= 20.0:
                rejected += 1
                break
    return rejected / TESTS


@pytest.mark.parametrize(('rate', 'share'), [(0.5, 0.5), (0.9, 0.5), (0.98, 0.2)])
def test_peeking_all_the_time_finds_no_difference_where_there_is_none(rate, share):
    assert rejections((rate, rate), share, seed=1) <= 0.05


def test_a_difference_of_fifteen_points_is_found():
    assert rejections((0.80, 0.95), 0.5, seed=2) >= 0.8


def test_the_ratio_of_no_outcomes_is_one():
    assert log_ratio(0, 0, 0, 0) == pytest.approx(0.0)
    assert log_ratio(5, 10, 0, 0) == pytest.approx(log_ratio(0, 0, 5, 10))


def arm(successes, outcomes=200, **more):
    return Arm(assigned=more.pop('assigned', outcomes), outcomes=outcomes, successes=successes, **more)


@pytest.mark.parametrize(('control', 'treatment', 'decision', 'says'), [
    (arm(100), arm(190), 'promote', 'The treatment is better'),
    (arm(190), arm(100), 'roll back', 'The control is better'),
    (arm(150), arm(152), '', 'No difference is certain'),
    (arm(10, 20), arm(20, 20), '', 'Too few outcomes'),
    (arm(100, assigned=300), arm(190, assigned=200), '', 'Blocked'),
    (arm(100, log_latency=0.0), arm(190, log_latency=math.log(1.5)), 'roll back', '1.50 times as long'),
    (arm(200, rated=150, liked=30), arm(190, rated=150, liked=140), 'roll back', 'fails more often'),
    (arm(200, rated=150, liked=30), arm(200, rated=150, liked=140), 'promote', 'liked 20.0%'),
])
def test_verdicts(control, treatment, decision, says):
    verdict = judge(control, treatment, 0.5, 0.0)
    assert verdict.decision == decision
    assert says in verdict.sentence


def test_evidence_never_shrinks():
    first = judge(arm(100), arm(190), 0.5, 0.0)
    later = judge(arm(150), arm(150), 0.5, first.evidence)
    assert later.p_value == first.p_value < 0.05


def test_the_split_is_checked():
    assert sample_ratio_p(0, 0, 0.1) == 1.0
    assert sample_ratio_p(900, 100, 0.1) == 1.0
    assert sample_ratio_p(800, 200, 0.1) < 0.001
