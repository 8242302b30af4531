"""Drawing tokens."""

import numpy as np
import pytest

from moe_experts.engines.engine import EngineError, Sampling
from moe_experts.engines.sampling import Sampler

LOGITS = np.array([1.0, 3.0, 2.0, -1.0], dtype=np.float32)


def draws(settings, count=200):
    sampler = Sampler(settings)
    return [sampler.draw(LOGITS.copy()) for _ in range(count)]


def test_temperature_zero_is_greedy():
    assert set(draws(Sampling(temp=0.0))) == {1}


def test_the_same_seed_gives_the_same_tokens():
    assert draws(Sampling(temp=1.0, seed=7)) == draws(Sampling(temp=1.0, seed=7))


def test_top_k_leaves_k_tokens():
    assert set(draws(Sampling(temp=5.0, top_k=2, top_p=1.0, min_p=0.0, seed=1))) == {1, 2}


def test_tokens_come_as_often_as_they_are_probable():
    tokens = draws(Sampling(temp=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=3), 20_000)
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum()
    found = np.bincount(tokens, minlength=4) / len(tokens)
    assert found == pytest.approx(expected, abs=0.015)


def test_rounding_hardly_changes_what_is_drawn():
    logits = np.random.default_rng(1).normal(0.0, 1.0, 300).astype(np.float32)
    first, second = (Sampler(Sampling(temp=1.0, seed=9)) for _ in range(2))
    same = [first.draw(logits.copy()) == second.draw(logits + np.float32(1e-4) * (-1) ** np.arange(300))
            for _ in range(500)]
    assert sum(same) >= 497


def test_min_p_drops_what_is_improbable():
    assert set(draws(Sampling(temp=5.0, top_p=1.0, min_p=0.5, seed=1))) == {1}


def test_a_repeated_token_is_penalised():
    sampler = Sampler(Sampling(temp=0.0, penalty_repeat=2.0))
    sampler.accept(1)
    assert sampler.draw(LOGITS.copy()) == 2


@pytest.mark.parametrize('bad', [{'temp': float('nan')}, {'temp': -2.0}, {'top_p': 1.5}, {'penalty_repeat': 0.0}])
def test_absurd_values_are_named(bad):
    with pytest.raises(EngineError, match=next(iter(bad))):
        Sampling(**bad).check()
