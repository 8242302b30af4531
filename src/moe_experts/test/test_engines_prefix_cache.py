"""Which sequences stay, and which a prompt can begin with."""

from hypothesis import given
from hypothesis import strategies as st

from moe_experts.engines.prefix_cache import PrefixCache, common_length

BASE = ('', 0)
TOKENS = st.lists(st.integers(0, 2), max_size=8)


@given(TOKENS, TOKENS)
def test_the_common_length_is_that_of_the_common_prefix(first, second):
    length = common_length(first, second)
    assert first[:length] == second[:length]
    assert length == min(len(first), len(second)) or first[length] != second[length]


def test_the_longest_prefix_of_the_same_owner_is_found():
    cache = PrefixCache(4, 100)
    cache.keep(BASE, [1, 2, 3], 0)
    cache.keep(BASE, [1, 2, 4, 5], 1)
    cache.keep(('motion', 1), [1, 2, 4, 6], 2)
    assert cache.find(BASE, [1, 2, 4, 6]) == (1, 3)
    assert cache.find(('motion', 1), [1, 2, 4, 6]) == (2, 4)
    assert cache.find(('motion', 2), [1, 2, 4, 6]) == (-1, 0)


def test_a_longer_sequence_replaces_its_own_beginning():
    cache = PrefixCache(4, 100)
    assert cache.keep(BASE, [1, 2], 0) == []
    assert cache.keep(BASE, [1, 2, 3], 1) == [0]
    assert cache.keep(BASE, [1], 2) == [2]
    assert cache.tokens == 3


def test_what_was_used_last_stays():
    cache = PrefixCache(2, 100)
    cache.keep(BASE, [1], 0)
    cache.keep(BASE, [2], 1)
    cache.find(BASE, [1, 5])
    assert cache.keep(BASE, [3], 2) == [1]
    assert cache.find(BASE, [2]) == (-1, 0)


def test_an_adapter_is_forgotten_alone():
    cache = PrefixCache(4, 100)
    cache.keep(('motion', 1), [1], 0)
    cache.keep(('python', 2), [1], 1)
    assert cache.forget('motion') == [0]
    assert cache.forget(None) == [1]


@given(st.lists(st.tuples(st.integers(0, 1), st.lists(st.integers(0, 2), max_size=6), st.booleans()), max_size=40))
def test_budgets_hold_and_every_slot_has_one_owner(steps):
    cache, free = PrefixCache(3, 10), set(range(8))
    for owner, tokens, look in steps:
        if look:
            slot, length = cache.find(('', owner), tokens)
            assert slot not in free
            assert length <= len(tokens)
            continue
        slot = free.pop()
        freed = cache.keep(('', owner), tokens, slot)
        assert len(freed) == len(set(freed))
        assert not free & set(freed)
        free |= set(freed)
        assert cache.tokens <= 10
        assert len(free) >= 5
    assert set(cache.forget(None)) | free == set(range(8))
