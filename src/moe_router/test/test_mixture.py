"""Several experts for one prompt."""

import math

from hypothesis import given
from hypothesis import strategies as st

from moe_router.mixture import FALLBACK_WEIGHT, Part, best, blended, joined, members
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


@given(st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4), st.integers(1, 6), st.sets(st.sampled_from(EXPERTS)),
       st.booleans())
def test_blended_are_as_many_as_may_be_the_choice_first(shares, count, available, abstained):
    found = decision(shares, abstained)
    parts = blended(found, count, available, dict.fromkeys((*EXPERTS, 'fallback'), 'base'))
    assert math.isclose(sum(weight for _name, weight in parts), 1.0)
    assert parts[0][0] == found.choice and len(dict(parts)) == len(parts)
    assert {name for name, _weight in parts[1:]} <= available - {found.choice}
    possible = {name for name, share in zip(EXPERTS, shares, strict=True) if share and name in available}
    if abstained or found.confidence:
        assert len(parts) == min(count, len(possible - {found.choice}) + 1)
    if abstained:
        assert parts[0][1] >= FALLBACK_WEIGHT or len(parts) == 1


def test_only_experts_on_the_base_of_the_choice_are_blended():
    found, everyone = decision([0.6, 0.2, 0.1, 0.1]), set(EXPERTS)
    assert blended(found, 4, everyone, {'a': 'x', 'b': 'y', 'c': 'x', 'd': ''}) == [('a', 0.6 / 0.7), ('c', 0.1 / 0.7)]
    assert blended(found, 4, everyone, {'b': 'x', 'c': 'x'}) == [('a', 1.0)]
    assert blended(found, 4, everyone, dict.fromkeys(EXPERTS, '')) == [('a', 1.0)]
    assert blended(certain('a', 'rule'), 4, everyone, dict.fromkeys(EXPERTS, 'x')) == [('a', 1.0)]


def test_the_likeliest_answer_is_the_best():
    assert best([Part('a', 'x', 0.9, -2.0), Part('b', 'y', 0.1, -0.5)]).expert == 'b'
    assert best([Part('a', 'x', 0.2), Part('b', 'y', 0.8)]).expert == 'b'
    assert best([Part('a', 'x', 0.9), Part('b', 'y', 0.1, -5.0)]).expert == 'b'


def test_joined_answers_are_signed():
    assert joined([Part('a', ' x ', 0.5), Part('b', 'y', 0.5)]) == 'a: x\n\nb: y'
