"""What answers read from their prompts is guessed: fewer steps, the same answers."""

import threading

import pytest
from engines_under_test import PATHS, PROMPTS, answers, request, steps
from hypothesis import given
from hypothesis import strategies as st

from moe_experts.engines.engine import EngineSettings, Sampling
from moe_experts.engines.lookup import MOST_TOKENS, Lookup
from moe_experts.engines.opening import open_engine
from moe_experts.engines.runtime import InterruptedStepError

WORDS = ' '.join(['the robot turns its head to the door and looks'] * 6)


def test_what_followed_the_same_words_is_guessed():
    assert Lookup().guess([1, 2, 3, 4, 5, 6, 9, 1, 2, 3], 1, 9).tokens[:3] == [4, 5, 6]
    assert Lookup().guess([1, 2, 3], 1, 9).tokens == []


def test_more_words_that_agree_count_for_more_than_the_latest():
    said = [1, 2, 3, 4, 5, 8, 8, 9, 3, 7, 7, 7, 1, 2, 3]
    assert Lookup().guess(said, 1, 9).tokens[:2] == [4, 5]


def test_in_company_little_is_guessed():
    said = [1, 2, 3, 4, 5, 6, 9, 1, 2, 3]
    alone, company = Lookup().guess(said, 1, 9).tokens, Lookup().guess(said, 20, 9).tokens
    assert len(company) < len(alone)


def test_what_does_not_stand_is_guessed_no_more_and_tried_again_later():
    lookup, said = Lookup(), [1, 2, 3, 4, 5, 6, 9, 1, 2, 3]
    for _ in range(10):
        if (guess := lookup.guess(said, 1, 9)).tokens:
            guess.judge(len(guess.tokens), 0)
    assert not lookup.guess(said, 1, 9).tokens
    assert any(lookup.guess(said, 1, 9).tokens for _ in range(100))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 40), st.integers(0, 20))
def test_a_guess_continues_an_earlier_place(said, company, most):
    tokens = Lookup().guess(said, company, most).tokens
    assert len(tokens) <= min(most, MOST_TOKENS)
    assert not tokens or any(said[place] == said[-1] and said[place + 1:place + 1 + len(tokens)] == tokens
                             for place in range(len(said) - 1))


@pytest.mark.parametrize('options', [
    {}, {'sampling': Sampling(temp=0.0, ignore_eos=True, n_probs=3)}, {'max_tokens': 7}, {'max_seq_len': 96},
    {'sampling': Sampling(temp=0.7, seed=7, ignore_eos=True)}], ids=[
        'greedy', 'probabilities', 'length', 'context', 'drawn'])
def test_answers_are_what_they_are_without_guesses(engine, plain, options):
    for index, prompt in enumerate([*PROMPTS, WORDS]):
        one = request(str(index), prompt, **{'max_tokens': 60, **options})
        expected, found = answers(plain, one)[one.id], answers(engine, one)[one.id]
        assert (found.text, found.tokens, found.finish_reason) == (expected.text, expected.tokens,
                                                                   expected.finish_reason)
        assert [row[0][0] for row in found.probs] == [row[0][0] for row in expected.probs]


def test_an_answer_that_repeats_itself_takes_fewer_steps(engine, plain):
    one = request('one', WORDS, max_tokens=120)
    without, expected = steps(plain, one)
    taken, found = steps(engine, one)
    assert found.tokens == expected.tokens
    assert taken < without


def test_a_step_is_interrupted_from_another_thread_and_nothing_is_lost(models, monkeypatch):
    engine = open_engine(models / PATHS['llama_cpp'][0], EngineSettings(threads=1, slots=4, context_tokens=2048))
    expected = answers(engine, request('one', WORDS, max_tokens=120))['one']
    engine.clear_cache()
    decode, interrupted = engine._runtime.decode, []

    def watched(*arguments):
        try:
            return decode(*arguments)
        except InterruptedStepError as error:
            interrupted.append(error)
            raise

    def disturb():
        while len(interrupted) < 5 and not done.is_set():
            engine.interrupt('another')
            engine.interrupt('one')
    monkeypatch.setattr(engine._runtime, 'decode', watched)
    done = threading.Event()
    thread = threading.Thread(target=disturb)
    thread.start()
    found = answers(engine, request('one', WORDS, max_tokens=120))['one']
    done.set()
    thread.join()
    assert interrupted
    assert found.tokens == expected.tokens
    engine.close()


def test_a_step_of_several_is_not_interrupted(engine, monkeypatch):
    decode, shared = engine._runtime.decode, []

    def disturbed(adapter, scale, runs):
        if len(runs) > 1:
            shared.append(runs)
            engine.interrupt('a')
        return decode(adapter, scale, runs)
    monkeypatch.setattr(engine._runtime, 'interrupt', lambda: pytest.fail('It computes for another one, too.'))
    monkeypatch.setattr(engine._runtime, 'decode', disturbed)
    found = answers(engine, request('a', max_tokens=5), request('b', max_tokens=9))
    assert shared and len(found) == 2
