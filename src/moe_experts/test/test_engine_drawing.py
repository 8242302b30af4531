"""How an answer is drawn and bound: stop strings, schemas, seeds, probabilities, nonsense refused."""

import json

import numpy as np
import pytest
from engines_under_test import PROMPTS, SCHEMA, answers, request

from moe_experts.engines.engine import EngineError, Sampling


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(engine):
    whole = answers(engine, request('whole', max_tokens=40))['whole'].text
    middle = len(whole) // 2
    stop = whole[middle:middle + 3]
    result = answers(engine, request('stopped', max_tokens=40, stop=(stop,)))['stopped']
    assert result.finish_reason == 'stop'
    assert result.text == whole[:whole.index(stop)]


def test_a_schema_binds_the_answer(engine):
    for seed in range(3):
        result = answers(engine, request('json', json_schema=SCHEMA, max_tokens=60,
                                         sampling=Sampling(temp=2.0, seed=seed)))['json']
        assert result.finish_reason == 'stop'
        assert set(json.loads(result.text)) == {'joint', 'by'}


def test_an_answer_that_leaves_no_choice_is_given(engine):
    result = answers(engine, request('fixed', json_schema='{"const": {"a": 1}}'))['fixed']
    assert (result.text, result.finish_reason) == ('{"a":1}', 'stop')


@pytest.mark.parametrize(('options', 'text'), [
    ({}, 'look at the door'), ({'stop': (' the',)}, 'look at'),
    ({'sampling': Sampling(temp=0.0, n_probs=2)}, 'look at the door')], ids=['all', 'stop', 'probs'])
def test_an_answer_without_any_choice_waits_for_nobody(engine, options, text):
    for number in range(4):  # as many as run at once
        engine.submit(request(f'long {number}', max_tokens=60))
    engine.step()
    engine.submit(request('given', grammar='start: "look at the door"', **options))
    *pieces, result = [item for item in engine.step() if item.id == 'given']
    assert (result.text, result.finish_reason, result.error_code) == (text, 'stop', 0)
    assert ''.join(piece.text for piece in pieces) == text
    assert result.prompt_tokens > 1 and len(result.tokens) >= 2
    assert [row[0][:2] for row in result.probs] == [
        (token, 1.0) for token in result.tokens if 'sampling' in options]


def test_a_regex_binds_the_answer(engine):
    assert answers(engine, request('regex', regex='(left|right){1,2}'))['regex'].text.strip('leftrigh') == ''


def test_the_same_seed_gives_the_same_answer_in_any_company(engine):
    seeded = Sampling(temp=1.0, seed=5)
    alone = answers(engine, request('one', sampling=seeded))['one'].tokens
    engine.clear_cache()
    assert answers(engine, request('one', sampling=seeded), request('two', PROMPTS[1]))['one'].tokens == alone


@pytest.mark.parametrize('bad', [{'temp': float('nan')}, {'temp': -1.0}, {'top_p': 2.0}])
def test_absurd_sampling_is_refused(engine, bad):
    with pytest.raises(EngineError) as caught:
        engine.submit(request('bad', sampling=Sampling(**bad)))
    assert caught.value.code == 3004


@pytest.mark.parametrize('bad', [
    {'json_schema': '{"type": 3}'}, {'json_schema': '{'}, {'regex': '('}, {'json_schema': 'false'},
    {'json_schema': '{"type": "string", "minLength": 9, "maxLength": 2}'}])
def test_a_bad_constraint_is_refused(engine, bad):
    with pytest.raises(EngineError) as caught:
        engine.submit(request('bad', **bad))
    assert caught.value.code == 3004


def test_probabilities_stand_beside_the_tokens(engine):
    result = answers(engine, request('probs', max_tokens=6, sampling=Sampling(temp=0.0, n_probs=3)))['probs']
    assert len(result.probs) == len(result.tokens) == 6
    for token, row in zip(result.tokens, result.probs, strict=True):
        assert row[0][0] == token
        assert [one[1] for one in row] == sorted((one[1] for one in row), reverse=True)
        assert all(0.0 <= value <= 1.0 for _token, value, _text in row)
    bound = answers(engine, request('bound', json_schema=SCHEMA, max_tokens=60,
                                    sampling=Sampling(temp=0.0, n_probs=2)))['bound']
    assert [row[0][0] for row in bound.probs] == list(bound.tokens)


@pytest.mark.parametrize('version', [1, 2])
def test_mirostat_repeats_with_its_seed(engine, version):
    seeded = Sampling(temp=1.0, seed=9, mirostat=version, mirostat_tau=3.0)
    first, second = (answers(engine, request('one', sampling=seeded))['one'].tokens for _ in range(2))
    assert first == second


def test_bias_and_penalties_change_what_is_drawn(engine):
    first = answers(engine, request('plain', max_tokens=1))['plain'].tokens[0]
    banned = Sampling(temp=0.0, ignore_eos=True, logit_bias=((first, -np.inf),))
    assert answers(engine, request('banned', max_tokens=1, sampling=banned))['banned'].tokens[0] != first
    loop = answers(engine, request('free', max_tokens=30))['free'].tokens
    penalised = Sampling(temp=0.0, ignore_eos=True, penalty_repeat=2.0, penalty_last_n=-1)
    varied = answers(engine, request('varied', max_tokens=30, sampling=penalised))['varied'].tokens
    assert len(set(varied)) >= len(set(loop))
