"""Texts that say nearly the same, found by MinHash and locality-sensitive hashing (Broder 1997)."""

from __future__ import annotations

import itertools
import re
import zlib
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

HASHES, BANDS = 64, 16  # two texts of Jaccard similarity 0.8 meet in a band with probability 0.9998
SIMILAR = 0.8
_PRIME = (1 << 31) - 1
_WORDS = re.compile(r'\w+')


def normalised(text: str) -> str:
    """Words in lower case, joined by one space."""
    return ' '.join(_WORDS.findall(text.lower()))


class NearDuplicates:
    """Texts seen so far; finds an earlier one that shares at least SIMILAR of a text's parts.

    Parts are words and pairs of neighbouring words. About 300 bytes a text are kept.
    """

    def __init__(self) -> None:
        random = np.random.default_rng(20)
        self._a = random.integers(1, _PRIME, HASHES, dtype=np.int64)
        self._b = random.integers(0, _PRIME, HASHES, dtype=np.int64)
        self._signatures: list[NDArray[np.int32]] = []
        self._lines: list[int] = []
        self._buckets: list[dict[bytes, list[int]]] = [defaultdict(list) for _ in range(BANDS)]

    def _signature(self, text: str) -> NDArray[np.int32]:
        words = normalised(text).split() or [text]
        parts = {*words, *(f'{one} {two}' for one, two in itertools.pairwise(words))}
        hashes = np.fromiter((zlib.crc32(part.encode()) for part in parts), dtype=np.int64) % _PRIME
        mixed = (hashes[:, None] * self._a + self._b) % _PRIME  # below 2^62: no overflow
        return np.asarray(mixed.min(axis=0), dtype=np.int32)

    def find(self, text: str) -> int:
        """Line of an earlier text that is nearly the same; 0 = none."""
        return self._find(self._signature(text))

    def _find(self, signature: NDArray[np.int32]) -> int:
        for band, bucket in enumerate(self._buckets):
            for index in bucket.get(self._band(signature, band), ()):
                if (self._signatures[index] == signature).mean() >= SIMILAR:
                    return self._lines[index]
        return 0

    @staticmethod
    def _band(signature: NDArray[np.int32], band: int) -> bytes:
        width = HASHES // BANDS
        return signature[band * width:(band + 1) * width].tobytes()

    def add(self, text: str, line: int) -> int:
        """Remember a text; returns the line of an earlier one like it, 0 = none (only then it is kept)."""
        signature = self._signature(text)
        if found := self._find(signature):
            return found
        index = len(self._lines)
        self._lines.append(line)
        self._signatures.append(signature)
        for band, bucket in enumerate(self._buckets):
            bucket[self._band(signature, band)].append(index)
        return 0
