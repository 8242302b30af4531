"""The pool with real workers on the tiny model, of both kinds."""

import hashlib
import queue
import random
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_model import make_models

from moe_experts.engines.engine import EngineError, EngineSettings, Request, Result, Sampling
from moe_experts.pool import FOREVER, Pool
from moe_experts.weights import Weights


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp('tiny'))


@pytest.fixture
def pool():
    pool = Pool(2, EngineSettings(threads=1), print)
    yield pool
    pool.close()


def get(pool, models, expert, version=1, kind='.gguf'):
    adapter = None if expert == 'general' else models / f'adapter{kind}'
    return pool.get(expert, version, Weights(models / f'base{kind}', adapter=adapter))


def use(pool, models, expert, **options):
    pool.give_back(get(pool, models, expert, **options))


def names(pool):
    return sorted(f'{one.expert}@{one.version}' for one in pool.loaded())


def answer(pool, loaded, **options):
    arrivals = queue.SimpleQueue()
    loaded.worker.submit(Request('a', (('user', 'look'),), adapter=loaded.adapter, max_tokens=4,
                                sampling=Sampling(temp=0.0, ignore_eos=True), **options), arrivals.put)
    while not isinstance(item := arrivals.get(timeout=30), Result):
        continue
    pool.give_back(loaded)
    return item


@pytest.mark.parametrize('kind', ['.gguf', ''])
def test_a_base_is_a_file_or_a_folder(pool, models, kind):
    plain = answer(pool, get(pool, models, 'general', kind=kind))
    adapted = answer(pool, get(pool, models, 'left', kind=kind))
    assert (plain.error_msg, adapted.error_msg) == ('', '')
    assert plain.tokens != adapted.tokens
    assert len(pool.workers()) == 1


def test_many_threads_load_an_expert_once(pool, models):
    found = []
    threads = [threading.Thread(target=lambda: found.append(get(pool, models, 'left'))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    assert found[0].running == 8


def test_the_least_recently_used_goes_and_the_busy_and_pinned_stay(pool, models):
    for expert in ('general', 'left', 'right', 'left', 'up'):
        use(pool, models, expert)
    assert names(pool) == ['general@1', 'left@1', 'up@1']
    busy = get(pool, models, 'left')
    use(pool, models, 'right')
    assert names(pool) == ['general@1', 'left@1', 'right@1']
    pool.keep(busy, FOREVER)
    pool.give_back(busy)
    for expert in ('up', 'right', 'up'):
        use(pool, models, expert)
    assert names(pool) == ['general@1', 'left@1', 'up@1']
    assert pool.evictions == 5


def test_an_outdated_version_goes_when_it_is_idle(pool, models):
    old = get(pool, models, 'left')
    use(pool, models, 'left', version=2)
    assert pool.unload('left', keep_version=2) == 0
    assert names(pool) == ['left@1', 'left@2']
    pool.give_back(old)
    assert pool.expire() == old.bytes
    assert names(pool) == ['left@2']


def test_time_to_live_begins_with_the_answer(pool, models):
    loaded = get(pool, models, 'left')
    answer(pool, loaded)
    pool.keep(loaded, 60.0)
    assert pool.expire() == 0
    loaded.expires = time.monotonic()
    assert pool.expire() == loaded.bytes


def test_what_cannot_be_loaded_leaves_no_trace(pool, models, tmp_path):
    (tmp_path / 'broken.gguf').write_bytes(b'GGUF' + bytes(64))
    for base, adapter in ((tmp_path / 'broken.gguf', None), (models / 'base.gguf', tmp_path / 'broken.gguf'),
                          (models / 'base.gguf', tmp_path / 'nothing.gguf')):
        for _ in range(2):
            with pytest.raises(EngineError) as caught:
                pool.get('left', 1, Weights(base, adapter=adapter))
            assert caught.value.code == 1001
    assert names(pool) == []
    assert answer(pool, get(pool, models, 'left')).error_code == 0


def test_a_worker_that_serves_nothing_is_ended(pool, models):
    use(pool, models, 'left')
    assert pool.close_idle_workers() == 0
    pool.unload('left')
    assert pool.close_idle_workers() > 1_000_000
    assert pool.workers() == []
    assert answer(pool, get(pool, models, 'left')).error_code == 0


def test_scales_are_changed_together_or_not_at_all(pool, models):
    use(pool, models, 'left')
    with pytest.raises(EngineError, match='right'):
        pool.scale({'left': 0.5, 'right': 0.5})
    assert [one.scale for one in pool.loaded()] == [1.0]
    pool.scale({'left': 0.5})
    assert [one.scale for one in pool.loaded()] == [0.5]


def test_open_requests_end_with_the_pool(pool, models):
    arrivals = queue.SimpleQueue()
    get(pool, models, 'general').worker.submit(Request(
        'long', (('user', 'look'),), max_tokens=5000, max_seq_len=8000, sampling=Sampling(temp=0.0, ignore_eos=True)),
        arrivals.put)
    arrivals.get(timeout=30)
    pool.close()
    while not isinstance(item := arrivals.get(timeout=30), Result):
        continue
    assert (item.error_code, item.finish_reason) == (3000, 'error')
    assert item.text


def test_a_whole_model_counts_and_its_worker_goes_with_it(models, tmp_path):
    """A second base is an expert of its own; the base under a loaded adapter is free."""
    other = tmp_path / 'other.gguf'
    other.write_bytes((models / 'base.gguf').read_bytes())
    pool = Pool(1, EngineSettings(threads=1), print)
    try:
        use(pool, models, 'left')
        use(pool, models, 'general')
        assert names(pool) == ['general@1', 'left@1']
        pool.give_back(pool.get('other', 1, Weights(other)))
        assert 'left@1' not in names(pool)
        use(pool, models, 'right')
        assert 'other@1' not in names(pool)
        assert {one.base for one in pool.loaded()} == {models / 'base.gguf'}
    finally:
        pool.close()


def test_the_memory_budget_evicts_and_then_says_what_is_missing(models, tmp_path):
    size = (models / 'base.gguf').stat().st_size
    other = tmp_path / 'other.gguf'
    other.write_bytes((models / 'base.gguf').read_bytes())
    pool = Pool(10, EngineSettings(threads=1), print, memory_budget_bytes=int(size * 1.5))
    try:
        use(pool, models, 'left')
        pool.give_back(pool.get('other', 1, Weights(other)))
        assert names(pool) == ['other@1']
        assert len(pool.workers()) == 1
        busy = pool.get('other', 1, Weights(other))
        with pytest.raises(EngineError, match=r'left needs .* MB; memory_budget_mb is .*other') as caught:
            get(pool, models, 'left')
        assert caught.value.code == 1001
        assert names(pool) == ['other@1']
        pool.give_back(busy)
    finally:
        pool.close()


def test_a_file_with_another_digest_is_refused(pool, models, tmp_path):
    adapter = tmp_path / 'adapter.gguf'
    adapter.write_bytes((models / 'adapter.gguf').read_bytes())
    digest = hashlib.sha256(adapter.read_bytes()).hexdigest()
    pool.give_back(pool.get('left', 1, Weights(models / 'base.gguf', adapter=adapter, adapter_sha256=digest)))
    pool.unload('left')
    with adapter.open('r+b') as file:
        file.seek(-1, 2)
        file.write(b'x')
    with pytest.raises(EngineError, match='digest') as caught:
        pool.get('left', 1, Weights(models / 'base.gguf', adapter=adapter, adapter_sha256=digest))
    assert caught.value.code == 1001


def test_a_deleted_file_serves_on_and_a_cut_one_is_named(pool, models, tmp_path):
    base = tmp_path / 'base.gguf'
    base.write_bytes((models / 'base.gguf').read_bytes())
    loaded = pool.get('own', 1, Weights(base))
    base.unlink()
    assert answer(pool, loaded).error_code == 0
    pool.unload('own')
    pool.close_idle_workers()
    with pytest.raises(EngineError, match='No such file'):
        pool.get('own', 1, Weights(base))
    base.write_bytes((models / 'base.gguf').read_bytes()[:-1000])
    with pytest.raises(EngineError, match='behind its end'):
        pool.get('own', 1, Weights(base))


def test_a_mutated_file_takes_at_most_its_own_worker_down(pool, models, tmp_path):
    """Bytes changed anywhere in the file, as a worn disk does; the pool serves on."""
    good, source = (models / 'adapter.gguf').read_bytes(), random.Random(5)
    for index in range(30):
        data = bytearray(good)
        for _ in range(3):
            data[source.randrange(len(data))] = source.randrange(256)
        path = tmp_path / f'{index}.gguf'
        path.write_bytes(data)
        try:
            loaded = pool.get(f'broken{index}', 1, Weights(models / 'base.gguf', adapter=path))
        except EngineError as error:
            assert error.code in (1001, 3000)
        else:
            pool.give_back(loaded)
            pool.unload(f'broken{index}')
    assert answer(pool, get(pool, models, 'left')).error_code == 0


experts = st.sampled_from(['left', 'right', 'up', 'down'])


@given(st.lists(st.tuples(experts, st.sampled_from(['use', 'begin', 'end', 'pin'])), max_size=25))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_of_eviction_is_that_of_use(shared, models, plan):
    """A model of the books: least recently used first, and never what is busy or pinned."""
    order, busy, pinned = [], {}, set()
    for expert, action in plan:
        if action == 'end':
            if busy.get(expert):
                shared.give_back(busy[expert].pop())
            continue
        if expert not in order:
            while len(order) >= 2 and (idle := [one for one in order if not busy.get(one) and one not in pinned]):
                order.remove(idle[0])
        loaded = get(shared, models, expert)
        order = [one for one in order if one != expert] + [expert]
        if action == 'begin':
            busy.setdefault(expert, []).append(loaded)
        else:
            if action == 'pin':
                shared.keep(loaded, FOREVER)
                pinned.add(expert)
            shared.give_back(loaded)
        assert names(shared) == sorted(f'{one}@1' for one in order)
    for expert, held in busy.items():
        for loaded in held:
            shared.give_back(loaded)
        shared.unload(expert)
    for expert in order:
        shared.unload(expert)
    assert names(shared) == []


@pytest.fixture(scope='module')
def shared(models):
    pool = Pool(2, EngineSettings(threads=1), print)
    keeper = pool.get('general', 1, Weights(models / 'base.gguf'))
    pool.give_back(keeper)
    pool.unload('general')
    yield pool
    pool.close()
