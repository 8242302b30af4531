"""Vectors that are embedded once."""

import numpy as np
import pytest

from moe_router import kept_vectors
from moe_router.kept_vectors import KeptVectors, Stopped


class Counting:
    """An encoder that says what it was asked for: a vector of each text's length."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked += texts
        return np.array([[len(text), 1.0] for text in texts], np.float32)


@pytest.fixture
def kept(tmp_path):
    def make(encoder='mini', most=1000):
        counting = Counting()
        return KeptVectors(counting, tmp_path / 'vectors.npz', encoder, lambda: len(counting.asked) >= most), counting
    return make


def test_a_text_is_embedded_once_also_over_a_restart(kept):
    vectors, counting = kept()
    assert vectors.encode(['a', 'bb', 'a']).tolist() == [[1, 1], [2, 1], [1, 1]]
    assert vectors.encode(['bb', 'ccc']).tolist() == [[2, 1], [3, 1]]
    assert counting.asked == ['a', 'bb', 'ccc']
    vectors, counting = kept()
    assert vectors.encode(['ccc', 'a', 'dddd']).tolist() == [[3, 1], [1, 1], [4, 1]]
    assert counting.asked == ['dddd']


def test_vectors_of_another_encoder_are_not_used(kept):
    kept()[0].encode(['a'])
    vectors, counting = kept('maxi')
    vectors.encode(['a'])
    assert counting.asked == ['a']


@pytest.mark.parametrize('damage', [lambda data: data[:len(data) // 2], lambda _data: b'', lambda _data: b'no archive'])
def test_a_damaged_file_counts_as_none(kept, tmp_path, damage):
    kept()[0].encode(['a', 'bb'])
    file = tmp_path / 'vectors.npz'
    file.write_bytes(damage(file.read_bytes()))
    vectors, counting = kept()
    assert vectors.encode(['bb']).tolist() == [[2, 1]]
    assert counting.asked == ['bb'] and kept()[0].encode(['bb']).tolist() == [[2, 1]]


def test_where_nothing_can_be_written_it_serves_on(kept, tmp_path):
    vectors, counting = kept()
    (tmp_path / 'vectors.part').mkdir()
    assert vectors.encode(['a']).tolist() == vectors.encode(['a']).tolist() == [[1, 1]]
    assert counting.asked == ['a']


def test_a_node_that_ends_keeps_what_it_has(kept, monkeypatch):
    monkeypatch.setattr(kept_vectors, '_AT_ONCE', 2)
    vectors, counting = kept(most=2)
    with pytest.raises(Stopped):
        vectors.encode(['a', 'bb', 'ccc'])
    vectors, again = kept()
    vectors.encode(['a', 'bb', 'ccc'])
    assert (counting.asked, again.asked) == (['a', 'bb'], ['ccc'])


def test_the_oldest_are_forgotten(kept, monkeypatch):
    monkeypatch.setattr(kept_vectors, 'MOST', 2)
    vectors, counting = kept()
    vectors.encode(['a', 'bb', 'ccc'])
    assert vectors.encode(['ccc', 'bb']).tolist() == [[3, 1], [2, 1]]
    vectors.encode(['a'])
    assert counting.asked == ['a', 'bb', 'ccc', 'a']
