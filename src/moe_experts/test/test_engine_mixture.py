"""Several experts as one: weights, distributions, company."""

import json

import pytest
from engines_under_test import PROMPTS, SCHEMA, SYSTEM, answers, mixed, request

from moe_experts.engines.engine import EngineError, Sampling
from moe_experts.engines.mixture import SHARE


def test_a_mixture_of_one_is_that_expert(engine, adapter):
    alone = answers(engine, request('alone', adapter=adapter))['alone'].tokens
    assert answers(engine, mixed('one', 1.0, adapters=[adapter]))['one'].tokens == alone
    both = answers(engine, mixed('sure', 1.0, 0.0, adapters=[adapter, '']))['sure']
    assert both.tokens == alone
    assert both.weights == (1.0, 0.0)


def test_a_mixture_draws_from_the_weighted_distribution(engine, adapter):
    messages = (SYSTEM, ('user', PROMPTS[0]))
    parts = {key: dict(engine.distribution(messages, 10 ** 6, key)) for key in ('', adapter)}
    expected = {token: 0.3 * parts[''][token] + 0.7 * parts[adapter][token] for token in parts['']}
    result = answers(engine, mixed('mixed', 0.3, 0.7, adapters=['', adapter], max_tokens=1,
                                   sampling=Sampling(temp=0.0, n_probs=5)))['mixed']
    best = sorted(expected, key=expected.get, reverse=True)[:5]
    assert [token for token, _value, _text in result.probs[0]] == best
    assert [value for _token, value, _text in result.probs[0]] == pytest.approx([expected[one] for one in best],
                                                                               abs=2e-3)
    token = result.tokens[0]
    posterior = (1.0 - SHARE) * 0.7 * parts[adapter][token] / expected[token] + SHARE * 0.7
    assert result.weights == pytest.approx((1 - posterior, posterior), abs=5e-3)
    assert sum(result.weights) == pytest.approx(1.0)


def test_a_scale_belongs_to_one_part_of_a_mixture(engine, adapter):
    plain = answers(engine, request('plain'))['plain'].tokens
    off = answers(engine, mixed('off', 1.0, 0.0, adapters=[adapter, ''], scales=(0.0, 1.0)))['off'].tokens
    assert off == plain
    with pytest.raises(EngineError, match='scale'):
        engine.submit(mixed('absurd', 1.0, 1.0, adapters=[adapter, ''], scales=(1.0, float('inf'))))


def test_mixtures_and_single_experts_run_together(engine, adapter):
    single = answers(engine, request('plain'))['plain'].tokens
    alone = answers(engine, mixed('mixed', 1.0, 1.0, adapters=['', adapter]))['mixed'].tokens
    engine.clear_cache()
    both = answers(engine, request('plain'), mixed('mixed', 1.0, 1.0, adapters=['', adapter]))
    assert (both['plain'].tokens, both['mixed'].tokens) == (single, alone)
    bound = answers(engine, mixed('json', 1.0, 1.0, adapters=['', adapter], json_schema=SCHEMA, max_tokens=60))['json']
    assert set(json.loads(bound.text)) == {'joint', 'by'}


@pytest.mark.parametrize('weights', [(-1.0, 1.0), (0.0, 0.0), (float('nan'), 1.0), (float('inf'), 1.0)])
def test_weights_that_mean_nothing_are_refused(engine, adapter, weights):
    with pytest.raises(EngineError) as caught:
        engine.submit(mixed('bad', *weights, adapters=['', adapter]))
    assert caught.value.code == 3004
