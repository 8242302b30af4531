"""Weights of a mixture on distributions with known answers; whole mixtures are in test_engine_mixture.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_experts.engines.mixture import SHARE, Mixture, Posterior, log_softmax

LIKELIHOODS = st.lists(st.tuples(*[st.floats(-40.0, 0.0)] * 3), min_size=1, max_size=60)
PRIORS = st.tuples(*[st.floats(0.0, 1.0)] * 3).filter(lambda prior: sum(prior) > 1e-3)


@given(PRIORS, LIKELIHOODS, st.sampled_from([0.0, SHARE, 1.0]))
def test_weights_sum_to_one_and_who_has_none_gets_none(prior, likelihoods, share):
    posterior = Posterior(prior, share)
    for row in likelihoods:
        posterior.observe(np.array(row))
        weights = np.exp(posterior.logs)
        assert weights.sum() == pytest.approx(1.0)
        assert all(weight == 0.0 for weight, before in zip(weights, prior, strict=True) if before == 0.0)


@given(LIKELIHOODS)
def test_a_mixture_of_one_is_that_expert(likelihoods):
    posterior = Posterior([0.7])
    alone = [row[0] for row in likelihoods]
    assert [posterior.observe(np.array([one])) for one in alone] == pytest.approx(alone)
    assert np.exp(posterior.logs) == pytest.approx([1.0])


@given(PRIORS, LIKELIHOODS)
def test_without_a_share_it_is_bayes_rule(prior, likelihoods):
    posterior = Posterior(prior, 0.0)
    total = sum(posterior.observe(np.array(row)) for row in likelihoods)
    with np.errstate(divide='ignore'):
        joint = np.log(np.array(prior) / sum(prior)) + np.array(likelihoods).sum(axis=0)
    assert total == pytest.approx(float(np.logaddexp.reduce(joint)), abs=1e-6)
    assert posterior.logs == pytest.approx(joint - np.logaddexp.reduce(joint), abs=1e-6)


def test_an_answer_that_passes_to_the_next_domain_passes_to_the_next_expert():
    def cost(share):
        posterior = Posterior([0.5, 0.5], share)
        return -sum(posterior.observe(np.array(row)) for row in [(-0.1, -5.0)] * 20 + [(-5.0, -0.1)] * 20)

    assert cost(0.0) > 90.0, 'Bayes alone bets on the first expert to the end'
    assert cost(SHARE) < 20.0 < min(20 * 0.1 + 20 * 5.0, cost(0.0)), 'well below either expert alone'


def test_a_mixture_mixes_probabilities_and_believes_who_foresaw_the_token():
    logits = [np.array([2.0, 0.0, -1.0], np.float32), np.array([0.0, 2.0, 1.0], np.float32)]
    mixture = Mixture([3.0, 1.0])
    rows = np.exp([log_softmax(row) for row in logits])
    mixed = np.exp(mixture.mix(logits))
    assert mixed == pytest.approx(0.75 * rows[0] + 0.25 * rows[1], rel=1e-5)
    mixture.observe(1)
    bayes = 0.25 * rows[1][1] / mixed[1]
    assert mixture.weights[1] == pytest.approx((1.0 - SHARE) * bayes + SHARE * 0.25, rel=1e-5)


def test_a_token_that_nobody_thought_possible_changes_nothing():
    posterior = Posterior([0.2, 0.8])
    assert posterior.observe(np.array([-np.inf, -np.inf])) == -np.inf
    assert np.exp(posterior.logs) == pytest.approx([0.2, 0.8])
