"""From scores to a decision."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moe_router.classifier import NONE, Scores
from moe_router.policy import Limits, decide

EXPERTS = (NONE, 'linux', 'python', 'motion')
LIMITS = Limits('general')


def scores(none, linux, python, motion=0.0, familiar=True, cheap=False):
    return Scores(EXPERTS, np.array([none, linux, python, motion]), 1.0, familiar, cheap)


def test_the_best_available_expert_answers():
    decision = decide(scores(0.1, 0.2, 0.7), {'linux', 'python'}, LIMITS)
    assert (decision.choice, decision.confidence, decision.abstained) == ('python', 0.7, False)
    assert decision.ranked == ('python', 'linux', 'motion')
    assert math.isclose(sum(decision.probabilities) + decision.none_probability, 1.0)


def test_the_stage_says_which_model_decided():
    assert decide(scores(0.0, 0.0, 1.0, cheap=True), {'python'}, LIMITS).stage == 'cheap'
    assert decide(scores(0.0, 0.0, 1.0), {'python'}, LIMITS).stage == 'learned'


def test_an_expert_that_cannot_answer_is_passed_over():
    assert decide(scores(0.0, 0.45, 0.55), {'linux'}, Limits('general', 0.4)).choice == 'linux'


def test_doubt_goes_to_the_fallback_expert():
    for found in (scores(0.2, 0.4, 0.4), scores(0.6, 0.0, 0.4), scores(0.0, 0.0, 1.0, familiar=False)):
        decision = decide(found, {'linux', 'python'}, LIMITS)
        assert (decision.choice, decision.abstained, decision.stage) == ('general', True, 'fallback')


def test_a_close_race_is_a_doubt_where_a_margin_is_set():
    close = scores(0.0, 0.45, 0.55)
    assert decide(close, {'linux', 'python'}, Limits('general', 0.5, 0.05)).choice == 'python'
    assert decide(close, {'linux', 'python'}, Limits('general', 0.5, 0.2)).abstained


def test_a_sure_category_is_enough_where_its_experts_are_close():
    found, groups = scores(0.1, 0.46, 0.44), {'linux': 'software', 'python': 'software', 'motion': 'robot'}
    assert decide(found, {'linux', 'python', 'motion'}, LIMITS).abstained
    assert decide(found, {'linux', 'python', 'motion'}, LIMITS, groups).choice == 'linux'
    # the category is chosen first: two halves of software outweigh one motion
    torn = scores(0.0, 0.28, 0.27, 0.45)
    assert decide(torn, {'linux', 'python', 'motion'}, LIMITS, groups).choice == 'linux'


@given(st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4), st.booleans(), st.floats(0.0, 1.0), st.floats(0.0, 1.0),
       st.sets(st.sampled_from(['linux', 'python', 'motion'])), st.booleans())
def test_nobody_unavailable_or_unsure_is_ever_chosen(shares, familiar, threshold, margin, available, grouped):
    groups = {'linux': 'software', 'python': 'software', 'motion': 'robot'} if grouped else None
    decision = decide(scores(*shares, familiar=familiar), available, Limits('general', threshold, margin), groups)
    assert decision.choice in available | {'general'}
    assert decision.abstained == (decision.choice == 'general')
    assert decision.abstained or familiar
    assert decision.abstained or grouped or decision.confidence >= threshold
