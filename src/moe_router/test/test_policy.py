"""From scores to a decision."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moe_router.classifier import Head, Scores
from moe_router.fitting import fit
from moe_router.policy import decide

EXPERTS = ('general', 'linux', 'python')


def head(limit=0.3):
    return Head(EXPERTS, np.zeros((3, 2), np.float32), np.zeros(3, np.float32), np.arange(3),
                np.zeros((1, 2), np.float32), limit, '')


def scores(general, linux, python, nearness=0.9):
    return Scores(EXPERTS, np.array([general, linux, python]), nearness)


def test_the_best_available_expert_answers():
    decision = decide(head(), scores(0.1, 0.2, 0.7), {'linux', 'python'}, 'general', 0.5)
    assert (decision.choice, decision.confidence, decision.abstained) == ('python', 0.7, False)
    assert decision.ranked == ('python', 'linux')


def test_an_expert_that_cannot_answer_is_passed_over():
    assert decide(head(), scores(0.0, 0.45, 0.55), {'linux'}, 'general', 0.4).choice == 'linux'


def test_doubt_goes_to_the_fallback_expert():
    for found in (scores(0.2, 0.4, 0.4), scores(0.6, 0.0, 0.4), scores(0.0, 0.0, 1.0, nearness=0.1)):
        decision = decide(head(), found, {'linux', 'python'}, 'general', 0.5)
        assert (decision.choice, decision.abstained, decision.stage) == ('general', True, 'fallback')


@given(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3), st.floats(-1.0, 1.0), st.floats(0.0, 1.0),
       st.sets(st.sampled_from(['linux', 'python'])))
def test_nobody_unavailable_or_unsure_is_ever_chosen(shares, nearness, threshold, available):
    decision = decide(head(), scores(*shares, nearness), available, 'general', threshold)
    assert decision.choice in available | {'general'}
    assert decision.abstained == (decision.choice == 'general')
    assert decision.abstained or decision.confidence >= threshold


def toy(count=40):
    """Two experts with two intents each and a class of nothing, well apart, and noise (seeded)."""
    random = np.random.default_rng(3)
    centres = random.normal(size=(5, 384))
    vectors = np.concatenate([centre + 0.4 * random.normal(size=(count, 384)) for centre in centres])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = [('linux', 'a'), ('linux', 'b'), ('python', 'a'), ('python', 'b'), ('general', '')]
    return vectors.astype(np.float32), [label for label in labels for _ in range(count)]


def test_a_fitted_head_knows_its_toy_set_and_survives_a_file(tmp_path):
    vectors, labels = toy()
    fitted = fit(vectors, [expert for expert, _ in labels], [intent for _, intent in labels], 'digest')
    fitted.save(tmp_path / 'head.npz')
    loaded = Head.load(tmp_path / 'head.npz')
    assert loaded.digest == 'digest'
    for vector, (expert, _intent) in zip(vectors, labels, strict=True):
        found = loaded.score(vector)
        assert np.isclose(found.probabilities.sum(), 1.0)
        assert found.experts[int(found.probabilities.argmax())] == expert
        assert np.allclose(found.probabilities, fitted.score(vector).probabilities)
