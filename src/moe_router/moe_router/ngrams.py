"""Words and letters hashed into a fixed number of columns: what a linear model sees without an encoder.

Feature hashing (Weinberger et al., arXiv 0902.2206) of words, pairs of words and 3 to 5 letters within a word.
"""

from __future__ import annotations

import re
from itertools import pairwise
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

COLUMNS = 2**15
LONGEST = 2000  # characters that are looked at
_LETTERS = (3, 4, 5)
_WORD = re.compile(r'\w+')


def columns(text: str) -> NDArray[np.int64]:
    """Distinct columns of a text, sorted; empty where it has no word."""
    words = _WORD.findall(text[:LONGEST].lower())
    grams = set(words)
    grams.update(f'{first} {second}' for first, second in pairwise(words))
    for word in set(words):
        edged = f'<{word}>'
        for size in _LETTERS:
            grams.update(f'#{edged[start:start + size]}' for start in range(max(1, len(edged) - size + 1)))
    found = {crc32(gram.encode('utf-8', 'replace')) % COLUMNS for gram in grams}
    return np.fromiter(sorted(found), dtype=np.int64, count=len(found))


def rarity(rows: list[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Inverse document frequency of every column over the columns of many texts, smoothed."""
    counts = np.bincount(np.concatenate(rows), minlength=COLUMNS) if rows else np.zeros(COLUMNS)
    return (np.log((1 + len(rows)) / (1 + counts)) + 1).astype(np.float32)


def values(found: NDArray[np.int64], idf: NDArray[np.float32]) -> NDArray[np.float32]:
    """The features at those columns, a unit vector."""
    weights = idf[found]
    return np.asarray(weights / max(float(np.linalg.norm(weights)), 1e-9), dtype=np.float32)
