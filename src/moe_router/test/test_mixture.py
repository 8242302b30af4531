"""Several experts for one prompt."""

import math

from hypothesis import given
from hypothesis import strategies as st

from moe_router.mixture import Part, best, joined, members
from moe_router.policy import Decision, certain

EXPERTS = ('a', 'b', 'c', 'd')


def decision(shares, abstained=False, stage='learned'):
    ranked = sorted(zip(EXPERTS, shares, strict=True), key=lambda pair: -pair[1])
    return Decision('fallback' if abstained else ranked[0][0], ranked[0][1], tuple(name for name, _ in ranked),
                    tuple(share for _, share in ranked), 0.0, abstained, stage)


@given(st.lists(st.floats(0.02, 1.0), min_size=4, max_size=4), st.integers(1, 6), st.sets(st.sampled_from(EXPERTS)))
def test_weights_sum_to_one_and_one_expert_is_the_choice_itself(shares, count, available):
    found = decision(shares)
    parts = members(found, count, available | {found.choice})
    assert math.isclose(sum(weight for _name, weight in parts), 1.0)
    assert len(parts) <= count and found.choice in [name for name, _weight in parts]
    assert {name for name, _weight in parts} <= available | {found.choice}
    assert members(found, 1, available) == [(found.choice, 1.0)]


def test_whoever_is_certain_or_unsure_answers_alone():
    assert members(decision([0.4, 0.3, 0.2, 0.1], abstained=True), 3, set(EXPERTS)) == [('fallback', 1.0)]
    assert members(certain('a', 'rule'), 3, set(EXPERTS)) == [('a', 1.0)]
    assert members(decision([0.997, 0.001, 0.001, 0.001]), 3, set(EXPERTS)) == [('a', 1.0)]


def test_the_likeliest_answer_is_the_best():
    assert best([Part('a', 'x', 0.9, -2.0), Part('b', 'y', 0.1, -0.5)]).expert == 'b'
    assert best([Part('a', 'x', 0.2), Part('b', 'y', 0.8)]).expert == 'b'
    assert best([Part('a', 'x', 0.9), Part('b', 'y', 0.1, -5.0)]).expert == 'b'


def test_joined_answers_are_signed():
    assert joined([Part('a', ' x ', 0.5), Part('b', 'y', 0.5)]) == 'a: x\n\nb: y'
