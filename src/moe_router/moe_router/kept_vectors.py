"""Vectors of texts that were embedded before, kept in a file: a robot that starts does not embed its notes again."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moe_router.whole_file import replacing

MOST = 50_000  # vectors in the file: 75 MB
_AT_ONCE = 128  # texts: half a second
_DIGEST_BYTES = 16


class Stopped(Exception):
    """The node ends; what was embedded until now is kept."""


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode('utf-8', 'replace')).digest()[:_DIGEST_BYTES]


class KeptVectors:
    """An encoder with a memory; not for several threads at once.

    Args:
        encode: unit vectors (n, 384) of texts.
        path: file that holds them; a damaged one counts as none.
        encoder: names the encoder; vectors of another one are not used.
        stopped: asked between some texts and the next.
    """

    def __init__(self, encode: Callable[[Sequence[str]], NDArray[np.float32]], path: Path, encoder: str,
                 stopped: Callable[[], bool]) -> None:
        self._encode, self._path, self._encoder, self._stopped = encode, path, encoder, stopped
        self._vectors: dict[bytes, NDArray[np.float32]] = {}
        with contextlib.suppress(OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile), np.load(path) as kept:
            if str(kept['encoder']) == encoder:
                digests = kept['digests'].tobytes()
                self._vectors = {digests[at:at + _DIGEST_BYTES]: vector for at, vector in
                                 zip(range(0, len(digests), _DIGEST_BYTES), kept['vectors'], strict=True)}

    def knows(self, texts: Sequence[str]) -> bool:
        """Whether nothing of them would have to be embedded."""
        return all(_digest(text) in self._vectors for text in texts)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (texts, 384); those that were not there are kept. Where the disk is full they last till the end.

        Raises Stopped.
        """
        digests = list(map(_digest, texts))
        missing = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in self._vectors}
        rows = list(missing.items())
        try:
            for start in range(0, len(rows), _AT_ONCE):
                if self._stopped():
                    raise Stopped
                part = rows[start:start + _AT_ONCE]
                self._vectors.update(zip((digest for digest, _text in part),
                                         self._encode([text for _digest, text in part]), strict=True))
            return np.array([self._vectors[digest] for digest in digests], np.float32).reshape(len(texts), -1)
        finally:
            if rows:
                for digest in list(self._vectors)[:-MOST]:  # the oldest
                    del self._vectors[digest]
                with contextlib.suppress(OSError):
                    self._write()

    def _write(self) -> None:
        with replacing(self._path) as file:
            np.savez(file, encoder=np.array(self._encoder), vectors=np.array(list(self._vectors.values())),
                     digests=np.frombuffer(b''.join(self._vectors), np.uint8))
