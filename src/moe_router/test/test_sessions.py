"""What sticks to a conversation."""

from hypothesis import given
from hypothesis import strategies as st

from moe_router.sessions import Session, Sessions, Trial, side


@given(st.text(), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_sticky_stays_sticky(key, share, more):
    trial = Trial(7, 'old', 'new', share)
    assert side(trial, key) == side(trial, key)
    # whoever got the treatment keeps it when the share grows
    wider = Trial(7, 'old', 'new', max(share, more))
    assert side(trial, key) == 'old' or side(wider, key) == 'new'


def test_shares_are_met_and_trials_are_independent():
    keys = [f'session {number}' for number in range(4000)]
    first, second = Trial(1, 'old', 'new', 0.25), Trial(2, 'old', 'new', 0.25)
    treated = [key for key in keys if side(first, key) == 'new']
    assert 0.22 < len(treated) / len(keys) < 0.28
    assert 0.2 < sum(side(second, key) == 'new' for key in treated) / len(treated) < 0.3


def test_nobody_and_everybody():
    assert {side(Trial(1, 'old', 'new', 0.0), str(key)) for key in range(99)} == {'old'}
    assert {side(Trial(1, 'old', 'new', 1.0), str(key)) for key in range(99)} == {'new'}


def test_the_session_that_was_silent_longest_is_forgotten():
    sessions = Sessions(most=2)
    for key in ('a', 'b', 'a', 'c'):
        sessions.remember(key, Session(key, 'node'))
    assert sessions.find('b') == Session()
    assert sessions.find('a') == Session('a', 'node')
    sessions.remember('', Session('x', 'y'))
    assert sessions.find('') == Session()
