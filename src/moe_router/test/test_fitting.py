"""Fits on sets whose answer is known."""

import json

import numpy as np
import pytest

from moe_router import measures
from moe_router.classifier import NONE, Head
from moe_router.fitting import fit
from moe_router.gate import refusal
from moe_router.worker import FitError, fit_in_worker

WORDS = {'linux': ('disk', 'process'), 'python': ('list', 'dict'), NONE: ('weather', 'football')}


def toy(count=40, noise=0.4, seed=3):
    """Two experts with two intents each and a class of nothing, with unit vectors around centres (seeded)."""
    random = np.random.default_rng(seed)
    rows, vectors = [], []
    for expert, intents in WORDS.items():
        for intent in intents:
            centre = np.random.default_rng(sum(intent.encode())).normal(size=384)
            for number in range(count):
                rows.append((f'{intent} question {number}', expert, intent))
                vectors.append(centre + noise * 3 * random.normal(size=384))
    found = np.array(vectors, np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    texts, experts, intents = map(list, zip(*rows, strict=True))
    return texts, found, experts, intents


@pytest.fixture(scope='module')
def head():
    return fit(*toy(), 'digest')


def test_a_fitted_head_knows_its_toy_set_and_survives_a_file(head, tmp_path):
    head.save(tmp_path / 'head.npz')
    loaded = Head.load(tmp_path / 'head.npz')
    assert loaded.digest == 'digest'
    texts, vectors, experts, _intents = toy()
    right = 0
    for text, vector, expert in zip(texts, vectors, experts, strict=True):
        found = loaded.score(vector, loaded.gram_logits(text))
        assert np.isclose(found.probabilities.sum(), 1.0)
        assert np.allclose(found.probabilities, head.score(vector, head.gram_logits(text)).probabilities)
        right += found.experts[int(found.probabilities.argmax())] == expert
    assert right / len(texts) > 0.98


def test_no_number_leaves_a_head_that_is_none(head, tmp_path):
    broken = Head(**{**head.__dict__, 'weights': np.full_like(head.weights, np.nan)})
    broken.save(tmp_path / 'head.npz')
    with pytest.raises(ValueError, match='weights'):
        Head.load(tmp_path / 'head.npz')


def test_strangers_are_less_familiar_than_samples(head):
    texts, vectors, experts, _intents = toy(seed=8)
    known = [head.score(vector, head.gram_logits(text)).familiarity
             for text, vector, expert in zip(texts, vectors, experts, strict=True) if expert != NONE]
    random = np.random.default_rng(5).normal(size=(80, 384)).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    strangers = [head.score(vector, head.gram_logits('zzz qqq')).familiarity for vector in random]
    assert measures.recall_of_strangers(np.array(known), np.array(strangers)) > 0.95


def test_confidences_are_shares_of_right_answers():
    # labels are flipped for one in five, so no honest confidence is far above 0.8
    texts, vectors, experts, _intents = toy(count=120)
    random = np.random.default_rng(0)
    rows = [row for row, expert in enumerate(experts) if expert != NONE]
    flipped = [('linux' if experts[row] == 'python' else 'python') if random.random() < 0.2 else experts[row]
               for row in rows]
    plain = [f'{texts[row].split()[0]} same words' for row in rows]
    head = fit(plain, vectors[rows], flipped, [''] * len(rows), 'digest')
    report = json.loads(head.report)
    assert report['ece'] < 0.06
    assert 0.7 < report['accuracy'] < 0.88


def test_one_class_alone_cannot_be_learned():
    texts, vectors, _experts, intents = toy(count=3)
    with pytest.raises(ValueError, match='two experts'):
        fit(texts, vectors, ['linux'] * len(texts), intents, 'digest')


def test_the_gate_keeps_a_head_that_is_better_on_a_domain(head):
    experts = {int(key): ('linux' if row < 80 else 'python') for row, key in enumerate(head.checked)}
    worse = head.passed.copy()
    worse[:20] = False
    new = Head(**{**head.__dict__, 'passed': worse})
    assert 'linux' in refusal(new, head, experts, 0.05)
    assert refusal(head, new, experts, 0.05) == ''
    assert refusal(new, None, experts, 0.05) == ''
    assert refusal(new, head, experts, 0.5) == ''


SAMPLES = [(expert, '', f'{verb} the {thing} {number}') for expert, things in (
    ('linux', ('disk', 'process', 'kernel', 'shell')), ('python', ('list', 'decorator', 'dict', 'module')))
    for verb in ('show', 'explain') for thing in things for number in range(4)]


def test_the_worker_fits_reports_and_draws(models, tmp_path, monkeypatch):
    monkeypatch.setenv('MOE_HOME', str(models.parent))
    phases = []
    fitted = fit_in_worker([*SAMPLES, ('general', '', 'who won the match'), ('', '', 'tell me a joke')], 'd1',
                           tmp_path / 'fit', tmp_path / 'none.npz', 'general', 0.05,
                           lambda phase, _share: phases.append(phase), lambda: False)
    assert fitted.refusal == ''
    assert set(fitted.head.experts) == {NONE, 'linux', 'python'}
    assert (tmp_path / 'fit' / 'confusion.png').read_bytes().startswith(b'\x89PNG')
    assert json.loads((tmp_path / 'fit' / 'report.json').read_text())['samples'] == len(SAMPLES) + 2
    assert phases[0] == 'embed' and phases[-1] == 'gate'
    assert fitted.metrics()['accuracy'] > 0.5


def test_a_cancelled_or_impossible_fit_says_so(models, tmp_path, monkeypatch):
    monkeypatch.setenv('MOE_HOME', str(models.parent))
    with pytest.raises(FitError, match='two experts'):
        fit_in_worker([('linux', '', 'a'), ('linux', '', 'b')], 'd', tmp_path / 'a', tmp_path / 'none.npz', 'general',
                      0.05, lambda _phase, _share: None, lambda: False)
    with pytest.raises(FitError, match='cancelled'):
        fit_in_worker(SAMPLES, 'd', tmp_path / 'b', tmp_path / 'none.npz', 'general', 0.05,
                      lambda _phase, _share: None, lambda: True)
