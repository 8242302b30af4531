"""The exported encoder against the floating-point model that it was made from."""

import numpy as np
import pytest

from moe_router.encoder import Encoder
from moe_router.prepare_encoder import shipped_encoder

TEXTS = ['How do I list topics?', 'Look left 30 degrees', 'x', 'A long sentence about nothing in particular. ' * 9]




def test_vectors_are_those_of_the_original_model(encoder):
    import torch
    from transformers import AutoModel, AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(shipped_encoder())
    model = AutoModel.from_pretrained(shipped_encoder()).eval()
    inputs = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors='pt')
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    weights = inputs['attention_mask'][:, :, None]
    means = ((states * weights).sum(1) / weights.sum(1)).numpy()
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines = (encoder.encode(TEXTS) * means).sum(axis=1)
    assert cosines.min() > 0.95


def test_vectors_have_unit_length_and_hardly_depend_on_company(encoder):
    together = encoder.encode(TEXTS)
    assert np.allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    # int8 activations are scaled by the largest value of the batch, so company shows a little
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert (together * alone).sum(axis=1).min() > 0.95


@pytest.mark.parametrize('text', ['', '   ', '\x00\x07', '日本語の質問', '🤖' * 50, 'a' * 100_000])
def test_odd_texts_give_finite_vectors(encoder, text):
    assert np.isfinite(encoder.encode([text])).all()


def test_a_missing_model_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match='prepare_encoder'):
        Encoder(tmp_path)
