"""Who has a turn, and when it ends: places, cells, cancel, deadlines, patience."""

import time

from engines_under_test import PATHS, PROMPTS, answers, request

from moe_experts.engines.engine import EngineSettings, Piece, Result
from moe_experts.engines.opening import open_engine


def test_more_requests_than_slots_are_all_answered(engine):
    results = answers(engine, *(request(str(index), PROMPTS[index % 4]) for index in range(10)))
    assert len(results) == 10
    assert {result.finish_reason for result in results.values()} == {'length'}
    assert engine.counts() == (0, 0)


def test_cancel_ends_within_one_step(engine):
    engine.submit(request('long', max_tokens=500))
    engine.step()
    engine.cancel('long')
    results = [item for item in engine.step() if isinstance(item, Result)]
    assert [(one.finish_reason, one.error_code) for one in results] == [('cancelled', 3003)]
    assert engine.counts() == (0, 0)


def test_a_waiting_request_can_be_cancelled(engine):
    engine.submit(request('long'))
    engine.cancel('long')
    assert [item.finish_reason for item in engine.step()] == ['cancelled']
    assert not engine.busy()


def test_a_deadline_that_passes_ends_the_answer(engine):
    result = answers(engine, request('late', max_tokens=900, deadline=time.monotonic() + 0.05))['late']
    assert (result.finish_reason, result.error_code) == ('timeout', 3001)


def test_an_urgent_request_takes_a_place_and_the_other_goes_on_where_it_was(models, kind):
    engine = open_engine(models / PATHS[kind][0], EngineSettings(threads=1, slots=1, context_tokens=512))
    alone = answers(engine, request('chat', max_tokens=40))['chat'].tokens
    engine.clear_cache()
    engine.submit(request('chat', max_tokens=40, priority=10))
    items = [item for _ in range(10) for item in engine.step()]
    engine.submit(request('motion', PROMPTS[3], max_tokens=8, priority=50))
    while engine.busy():
        items += engine.step()
    results = {item.id: item for item in items if isinstance(item, Result)}
    order = [item.id for item in items if isinstance(item, Result)]
    assert order == ['motion', 'chat']
    assert results['chat'].tokens == alone
    assert ''.join(item.text for item in items if isinstance(item, Piece) and item.id == 'chat') \
        == results['chat'].text
    engine.close()


def test_a_full_cache_makes_way(models, kind):
    """Sequences that share cells may need more than there are when the one that they shared with is gone."""
    engine = open_engine(models / PATHS[kind][0], EngineSettings(threads=1, slots=8, context_tokens=256))
    single = [answers(engine, request('one', prompt, max_tokens=60))['one'].tokens for prompt in PROMPTS]
    together = answers(engine, *(request(str(index), PROMPTS[index % 4], max_tokens=60) for index in range(12)))
    assert [together[str(index)].tokens for index in range(12)] == [single[index % 4] for index in range(12)]
    engine.close()


def test_a_deadline_that_cannot_be_met_is_refused_at_once(engine):
    prompt = ' '.join(str(number) for number in range(300))
    answers(engine, request('slow', prompt, max_tokens=1))
    engine.clear_cache()
    engine.submit(request('late', prompt + ' now', deadline=time.monotonic() + 1e-3))
    assert [item.error_code for item in engine.step()] == [3001]


def test_nobody_waits_for_ever(models, kind):
    """A stream of urgent requests does not keep a patient one out."""
    engine = open_engine(models / PATHS[kind][0], EngineSettings(threads=1, slots=1, context_tokens=512))
    engine.submit(request('patient', max_tokens=4, priority=0))
    served, count = False, 0
    while not served:
        if engine.counts()[1] < 2:
            count += 1
            engine.submit(request(f'urgent {count}', PROMPTS[1], max_tokens=2, priority=5))
        served = any(isinstance(item, Result) and item.id == 'patient' for item in engine.step())
    engine.close()
