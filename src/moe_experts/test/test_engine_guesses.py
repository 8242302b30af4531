"""Guessed answers are what they would have been, in fewer steps."""

import json
from dataclasses import replace

import pytest
from engines_under_test import GREEDY, PROMPTS, SCHEMA, answers, request, steps

from moe_experts.engines.engine import Sampling
from moe_experts.engines.guesses import KEPT_ANSWERS, RETRY, Guesses

MOVE = {'json_schema': SCHEMA, 'max_tokens': 40}
KIND = ('motion@1', 1.0, 'schema', '', '')


def alike(one, other):
    """Whether two results say the same, however long it took."""
    return (one.text, one.tokens, one.finish_reason, one.prompt_tokens) == (
        other.text, other.tokens, other.finish_reason, other.prompt_tokens)


def test_the_same_question_again_takes_one_step(engine, plain):
    expected = answers(plain, request('plain', **MOVE))['plain']
    first, one = steps(engine, request('first', **MOVE))
    again, other = steps(engine, request('again', **MOVE))
    assert alike(one, expected) and alike(other, expected)
    assert set(json.loads(other.text)) == {'joint', 'by'}
    assert again == 1 < first


def test_what_no_choice_depends_on_is_not_decoded(engine, monkeypatch):
    """The closing brace ends the answer whatever its logits are."""
    steps(engine, request('first', **MOVE))
    decode, decoded = engine._runtime.decode, []
    monkeypatch.setattr(engine._runtime, 'decode', lambda adapter, scale, runs: (
        decoded.extend(token for run in runs for token in run.tokens), decode(adapter, scale, runs))[1])
    _count, result = steps(engine, request('again', **MOVE))
    assert result.text.endswith('}')
    assert len(decoded) < result.prompt_tokens - result.cached_tokens + len(result.tokens)


@pytest.mark.parametrize('options', [
    {}, {'sampling': replace(GREEDY, n_probs=3)}, {'max_tokens': 7}, {'stop': ('"by',)},
    {'sampling': Sampling(temp=1.5, seed=7)}], ids=['greedy', 'probabilities', 'length', 'stop', 'drawn'])
def test_answers_are_what_they_are_without_guesses(engine, plain, options):
    """Also where the answers remembered are to other questions, so that guesses are wrong somewhere."""
    for round_ in range(2):
        for index, prompt in enumerate([*PROMPTS, 'look 12 at the door 7', 'look 99 at the door 3']):
            one = request(f'{round_} {index}', prompt, **{**MOVE, **options})
            expected, found = answers(plain, one)[one.id], answers(engine, one)[one.id]
            assert alike(found, expected), prompt
            assert len(found.probs) == len(expected.probs)


def test_a_session_goes_on_from_a_guessed_answer(engine, plain):
    """The cells behind the end of an answer are cut."""
    for name in ('a', 'b'):
        answers(engine, request(name, **MOVE))
    longer = request('longer', PROMPTS[0] + ' and then', max_tokens=12)
    assert alike(answers(engine, longer)['longer'], answers(plain, longer)['longer'])


def test_guesses_go_with_the_adapter(engine, adapter):
    first, _result = steps(engine, request('one', adapter=adapter, **MOVE))
    engine.clear_cache()
    again, _result = steps(engine, request('two', adapter=adapter, **MOVE))
    assert again == first


def guesses():
    return Guesses(lambda token: token < 10)


def test_numbers_are_those_of_the_question():
    known = guesses()
    known.remember(KIND, [100, 3, 101, 3, 0, 102], [50, 51, 3, 0, 52])
    assert known.guess(KIND, [100, 3, 101, 4, 5, 102]).tokens == [50, 51, 4, 5, 52]
    assert known.guess(KIND, [100, 3, 101, 102]).tokens == [50, 51, 3, 0, 52]  # nothing better is known


def test_the_most_similar_question_counts_and_the_newest_of_equals():
    known = guesses()
    known.remember(KIND, [100, 101], [50])
    known.remember(KIND, [100, 102], [51])
    known.remember(KIND, [100, 102], [52])
    assert known.guess(KIND, [100, 101]).tokens == [50]
    assert known.guess(KIND, [100, 102]).tokens == [52]
    assert known.guess(('other@1', *KIND[1:]), [100, 101]).tokens == []
    known.remember(KIND, [100, 103, 7], [53, 7])
    known.remember(KIND, [100, 104, 8], [54, 8])
    assert known.guess(KIND, [100, 103, 8]).tokens == [53, 8]  # words count, numbers do not


def test_kinds_that_cannot_be_guessed_are_left_alone():
    known = guesses()
    known.remember(KIND, [100], [50, 51])
    guess = known.guess(KIND, [100])
    for _ in range(20):
        guess.judge(2, 0)
    made = [bool(known.guess(KIND, [100]).tokens) for _ in range(2 * RETRY)]
    assert sum(made) == 2
    for _ in range(20):
        guess.judge(2, 2)
    assert known.guess(KIND, [100]).tokens == [50, 51]


def test_what_is_remembered_has_bounds():
    known = guesses()
    for number in range(2 * KEPT_ANSWERS):
        known.remember(KIND, [100 + number], [50])
        known.remember((f'{number}@1', *KIND[1:]), [100], [50])
    known.remember(KIND, [99], list(range(10, 1000)))
    assert known.guess(KIND, [99]).tokens == [50]
    assert known.guess(('0@1', *KIND[1:]), [100]).tokens == []
    known.forget('127@1')
    assert known.guess(('127@1', *KIND[1:]), [100]).tokens == []
    assert known.guess(KIND, [99]).tokens == [50]
    known.forget(None)
    assert known.guess(KIND, [99]).tokens == []
