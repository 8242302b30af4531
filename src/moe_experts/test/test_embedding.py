"""Lengths of embeddings."""

import pytest

from moe_experts.embedding import normalise
from moe_experts.engines.engine import EngineError


def test_lengths_are_one_by_the_named_norm():
    assert normalise([3.0, -4.0], 2) == pytest.approx([0.6, -0.8])
    assert normalise([3.0, -4.0], 1) == pytest.approx([3 / 7, -4 / 7])
    assert normalise([3.0, -4.0], -1) == [3.0, -4.0]
    assert normalise([0.0, 0.0], 2) == [0.0, 0.0]


def test_unknown_norms_are_refused():
    with pytest.raises(EngineError):
        normalise([1.0], 3)
