"""The pool with real workers on the tiny model, of both kinds."""

import queue
import threading
import time

import pytest
from tiny_model import make_models

from moe_experts.engines.engine import EngineError, EngineSettings, Request, Result, Sampling
from moe_experts.pool import FOREVER, Pool


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
    return pool.get(expert, version, models / f'base{kind}', adapter, 1.0)


def use(pool, models, expert, **options):
    pool.give_back(get(pool, models, expert, **options))


def names(pool):
    return sorted(f'{one.expert}@{one.version}' for one in pool.loaded())


def answer(pool, loaded, **options):
    arrivals = queue.SimpleQueue()
    pool.submit(loaded, Request('a', (('user', 'look'),), adapter=loaded.adapter, max_tokens=4,
                                sampling=Sampling(temp=0.0, ignore_eos=True), **options), arrivals.put)
    while not isinstance(item := arrivals.get(timeout=30), Result):
        continue
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
                pool.get('left', 1, base, adapter, 1.0)
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
    pool.submit(get(pool, models, 'general'), Request(
        'long', (('user', 'look'),), max_tokens=5000, max_seq_len=8000, sampling=Sampling(temp=0.0, ignore_eos=True)),
        arrivals.put)
    arrivals.get(timeout=30)
    pool.close()
    while not isinstance(item := arrivals.get(timeout=30), Result):
        continue
    assert (item.error_code, item.finish_reason) == (3000, 'error')
    assert item.text
