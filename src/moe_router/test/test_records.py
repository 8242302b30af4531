"""Records on their way."""

import threading

from moe_router.records import BATCH, Outbox, RecentPrompts


def test_what_is_not_taken_waits_in_order_and_nothing_comes_twice():
    taken, open_ = [], threading.Event()
    outbox = Outbox(lambda batch: open_.is_set() and not taken.extend(batch))
    for number in range(BATCH + 3):
        outbox.add(number)
    assert not outbox.flush() and len(outbox) == BATCH + 3
    open_.set()
    assert outbox.flush() and taken == list(range(BATCH + 3)) and outbox.lost == 0


def test_the_oldest_go_where_nobody_takes_them_and_are_counted():
    outbox = Outbox(lambda _batch: False, most=5)
    for number in range(8):
        outbox.add(number)
        outbox.flush()
    assert len(outbox) == 5 and outbox.lost == 3


def test_many_threads_lose_nothing():
    taken = []
    outbox = Outbox(lambda batch: not taken.extend(batch))
    threads = [threading.Thread(target=lambda: [outbox.add(n) for n in range(200)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        outbox.flush()
    outbox.flush()
    assert len(taken) == 1600


def test_recent_prompts_are_few_and_short():
    prompts = RecentPrompts(most=2, longest=4)
    for key in 'abc':
        prompts.keep(key, key * 9)
    assert (prompts.find('a'), prompts.find('b'), prompts.find('c')) == ('', 'bbbb', 'cccc')
