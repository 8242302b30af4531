"""Lengths of embeddings."""

from __future__ import annotations

import numpy as np

from moe_experts.engines.engine import EngineError

NONE, TAXICAB, EUCLIDEAN = -1, 1, 2


def normalise(values: list[float], kind: int) -> list[float]:
    """An embedding (width,) with length 1 by the named norm; raises EngineError for an unknown one."""
    if kind not in (NONE, TAXICAB, EUCLIDEAN):
        raise EngineError(f'normalization is {kind}; it must be -1 (none), 1 (taxicab) or 2 (Euclidean).')
    if kind == NONE:
        return values
    length = float(np.linalg.norm(values, ord=kind))
    return [value / length for value in values] if length else values
