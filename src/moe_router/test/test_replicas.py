"""Which node is asked."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from moe_router.replicas import Replicas, Report

NAMES = ('a', 'b', 'c')


class World:
    """A clock and a set of nodes that are there."""

    def __init__(self, there=NAMES):
        self.now, self.there = 100.0, set(there)
        self.replicas = Replicas(NAMES, lambda name: name in self.there, lambda: self.now, 5.0, 10.0, seed=1)
        for name in NAMES:
            self.report(name)

    def report(self, name, queued=0, limit=8, **sets):
        self.replicas.hear(name, Report(1, queued, limit, self.now, **{key: frozenset(value)
                                                                      for key, value in sets.items()}))


def test_of_two_drawn_the_less_busy_one_is_asked():
    world = World()
    for name, queued in (('a', 6), ('b', 0), ('c', 3)):
        world.report(name, queued)
    asked = Counter(world.replicas.choose('x') for _ in range(300))
    assert asked['a'] == 0  # the busiest loses against whoever is drawn beside it
    assert asked['b'] > asked['c'] > 0


def test_a_node_that_failed_rests_and_comes_back():
    world = World(there={'a'})
    world.replicas.began('a')
    world.replicas.ended('a', failed=True)
    world.there.add('b')
    assert {world.replicas.choose('x') for _ in range(20)} == {'b'}
    world.now += 11.0
    for name in NAMES:
        world.report(name)
    assert 'a' in {world.replicas.choose('x') for _ in range(20)}


def test_a_silent_a_full_and_a_failing_node_are_passed_over():
    world = World()
    world.report('a')
    world.now += 6.0
    world.report('b', queued=8)
    world.report('c', failed=['broken'], loading=['slow'])
    assert world.replicas.usable() == ['c']
    assert world.replicas.usable('broken') == []
    assert world.replicas.loading() == {'slow'}
    assert not world.replicas.overloaded()


def test_a_node_that_never_said_a_word_is_not_asked():
    replicas = Replicas(NAMES, lambda _name: True, lambda: 100.0)
    assert replicas.choose('x') is None and set(replicas.state().values()) == {'silent'}


def test_a_conversation_keeps_its_node_while_that_can_be_asked():
    world = World()
    assert {world.replicas.choose('x', preferred='b') for _ in range(20)} == {'b'}
    world.there.remove('b')
    assert world.replicas.choose('x', preferred='b') in ('a', 'c')


@given(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)),
       st.lists(st.integers(0, 12), min_size=3, max_size=3), st.sampled_from(('', *NAMES)))
def test_nobody_away_resting_full_or_tried_is_ever_asked(there, resting, tried, queues, preferred):
    world = World(there)
    for name, queued in zip(NAMES, queues, strict=True):
        world.report(name, queued)
    for name in resting:
        world.replicas.began(name)
        world.replicas.ended(name, failed=True)
    good = {name for name, queued in zip(NAMES, queues, strict=True)
            if name in there and name not in resting and name not in tried and queued < 8}
    chosen = world.replicas.choose('x', preferred, tried)
    assert (chosen in good) if good else chosen is None
    if preferred in good:
        assert chosen == preferred
