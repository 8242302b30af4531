"""Which sequences are kept, and which a prompt can begin with."""

from hypothesis import given
from hypothesis import strategies as st

from moe_experts.engines.prefix_cache import PrefixCache, common_length
from moe_experts.engines.runtime import State

BASE = ('', 0, 1.0)
TOKENS = st.lists(st.integers(0, 2), max_size=8)


def state(name, size=1):
    return State(name, size)


def found(cache, owner, tokens):
    kept, length = cache.find(owner, tokens)
    return (kept.data if kept else None), length


@given(TOKENS, TOKENS)
def test_the_common_length_is_that_of_the_common_prefix(first, second):
    length = common_length(first, second)
    assert first[:length] == second[:length]
    assert length == min(len(first), len(second)) or first[length] != second[length]


def test_the_longest_prefix_of_the_same_owner_is_found():
    cache = PrefixCache(100)
    cache.keep(BASE, [1, 2, 3], state('a'))
    cache.keep(BASE, [1, 2, 4, 5], state('b'))
    cache.keep(('motion', 1, 1.0), [1, 2, 4, 6], state('c'))
    assert found(cache, BASE, [1, 2, 4, 6]) == ('b', 3)
    assert found(cache, ('motion', 1, 1.0), [1, 2, 4, 6]) == ('c', 4)
    assert found(cache, ('motion', 2, 1.0), [1, 2, 4, 6]) == (None, 0)
    assert found(cache, ('motion', 1, 0.5), [1, 2, 4, 6]) == (None, 0)


def test_a_longer_sequence_replaces_its_own_beginning():
    cache = PrefixCache(100)
    cache.keep(BASE, [1, 2], state('a', 2))
    cache.keep(BASE, [1, 2, 3], state('b', 3))
    assert cache.bytes == 3
    assert cache.covers(BASE, [1])
    assert cache.covers(BASE, [])
    assert not cache.covers(BASE, [1, 2, 3, 4])


def test_what_was_used_last_stays():
    cache = PrefixCache(2)
    cache.keep(BASE, [1], state('a'))
    cache.keep(BASE, [2], state('b'))
    cache.find(BASE, [1, 5])
    cache.keep(BASE, [3], state('c'))
    assert found(cache, BASE, [2]) == (None, 0)
    assert found(cache, BASE, [1]) == ('a', 1)


def test_an_adapter_is_forgotten_alone():
    cache = PrefixCache(100)
    cache.keep(('motion', 1, 1.0), [1], state('a'))
    cache.keep(('python', 2, 1.0), [1], state('b'))
    assert cache.forget('motion') == 1
    assert cache.forget(None) == 1
    assert cache.bytes == 0


@given(st.lists(st.tuples(st.integers(0, 1), st.lists(st.integers(0, 2), max_size=6), st.booleans()), max_size=40))
def test_the_budget_holds_and_what_is_found_begins_alike(steps):
    cache, kept = PrefixCache(10), {}
    for number, (owner, tokens, look) in enumerate(steps):
        if look:
            name, length = found(cache, ('', owner, 1.0), tokens)
            assert length == 0 or (kept[name][0] == owner and kept[name][1][:length] == tokens[:length])
        else:
            kept[number] = owner, tokens
            cache.keep(('', owner, 1.0), tokens, state(number, len(tokens)))
        assert cache.bytes <= 10
