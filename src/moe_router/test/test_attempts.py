"""When a request may be given to a node."""

from hypothesis import given
from hypothesis import strategies as st

from moe_router.attempts import NEVER, Attempts

TIMES = st.floats(0.0, 1e6)


@given(TIMES, TIMES, TIMES, TIMES, st.booleans(), st.booleans(), st.integers(0, 4), st.integers(0, 6))
def test_never_over_the_deadline_nor_what_was_seen(deadline, wait, since, now, streamed, cancelled, most, tried):
    attempts = Attempts(most, deadline, wait, ['node'] * tried)
    if now >= deadline:
        assert attempts.expired(now)
        assert not attempts.may_wait(since, now) and not attempts.may_ask(now, streamed, cancelled)
    if streamed or cancelled or tried >= most:
        assert not attempts.may_ask(now, streamed, cancelled)
    if attempts.may_wait(since, now):
        assert now - since < wait


def test_without_a_deadline_there_is_always_time():
    attempts = Attempts(2, wait_s=8.0)
    assert attempts.deadline_s == NEVER and not attempts.expired(1e12)
    assert attempts.may_wait(0.0, 7.9) and not attempts.may_wait(0.0, 8.0)
    assert attempts.may_ask(1e12, False, False)
