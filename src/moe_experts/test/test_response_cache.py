"""Only exact repetitions of what would be answered the same way are answered from memory."""

from dataclasses import replace
from pathlib import Path

import pytest

from moe_experts.engines.engine import Part, Request, Result, Sampling
from moe_experts.response_cache import ResponseCache, key_of
from moe_experts.weights import Weights

WEIGHTS = Weights(Path('base.gguf'), 'a' * 64, Path('adapter.gguf'), 'b' * 64)
REQUEST = Request('one', (('system', 'be brief'), ('user', 'look')), adapter='left@1.1',
                  sampling=Sampling(temp=0.0), max_tokens=8)


def result(text='done', reason='stop'):
    return Result('one', text, (1, 2), reason, 5)


@pytest.mark.parametrize('change', [
    {'messages': (('user', 'look'),)}, {'sampling': Sampling(temp=0.0, top_k=3)}, {'max_tokens': 9}, {'stop': ('a',)},
    {'json_schema': '{}'}, {'regex': 'a'}, {'grammar': 'a'}, {'truncate': 'left'}, {'scale': 0.5}, {'max_seq_len': 9},
    {'sampling': Sampling(temp=0.5, seed=1)}])
def test_whatever_changes_the_answer_changes_the_key(change):
    assert key_of(WEIGHTS, replace(REQUEST, **change)) not in ('', key_of(WEIGHTS, REQUEST))


def test_what_does_not_change_the_answer_does_not_change_the_key():
    same = replace(REQUEST, id='two', priority=90, deadline=5.0, adapter='left@1.7')
    assert key_of(WEIGHTS, same) == key_of(WEIGHTS, REQUEST)
    assert key_of(replace(WEIGHTS, adapter_sha256='c' * 64), REQUEST) != key_of(WEIGHTS, REQUEST)


def test_chance_is_not_remembered():
    assert key_of(WEIGHTS, replace(REQUEST, sampling=Sampling(temp=0.5))) == ''
    assert key_of(WEIGHTS, replace(REQUEST, mixture=(Part('', 1.0, REQUEST.messages),))) == ''
    cache = ResponseCache(10)
    cache.keep('', 'left', 1, result())
    for reason in ('cancelled', 'timeout', 'error'):
        cache.keep('key', 'left', 1, result(reason=reason))
    assert cache.find('key') is None
    assert cache.hits == 0


def test_the_least_recently_used_goes():
    cache = ResponseCache(2)
    for key in ('a', 'b'):
        cache.keep(key, 'left', 1, result(key))
    assert cache.find('a').text == 'a'
    cache.keep('c', 'left', 1, result('c'))
    assert (cache.find('b'), cache.find('a').text, cache.hits) == (None, 'a', 2)


def test_answers_of_versions_no_longer_served_are_forgotten():
    cache = ResponseCache(10)
    for key, expert, version in (('a', 'left', 1), ('b', 'left', 2), ('c', 'right', 1)):
        cache.keep(key, expert, version, result(key))
    assert cache.forget('left', keep_version=2) == 1
    assert [cache.find(key) is None for key in 'abc'] == [True, False, False]
    assert cache.forget() == 2
