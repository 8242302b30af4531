"""The files of a version, and that they are what the registry says."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

from moe_experts.engines.engine import EngineError

_Stamp = tuple[str, int, int, int]


@dataclass(frozen=True)
class Weights:
    """A base and what stands on it; a digest '' is not checked.

    Attributes:
        base: GGUF file, or folder of safetensors.
        adapter: LoRA on it; None = the bare base.
        scale: of the adapter.
    """

    base: Path
    base_sha256: str = ''
    adapter: Path | None = None
    adapter_sha256: str = ''
    scale: float = 1.0


class Digests:
    """Checks files against their digests; a file that has not been touched since is not read again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[_Stamp, str] = {}

    def check(self, path: Path, sha256: str) -> None:
        """Raise EngineError (1001) where a file cannot be read or has another digest; folders are not checked."""
        try:
            found = path.stat()
            if path.is_dir() or not sha256:
                return
            stamp = (str(path), found.st_ino, found.st_size, found.st_mtime_ns)
            with self._lock:
                digest = self._known.get(stamp)
            if digest is None:
                with path.open('rb') as file:
                    digest = hashlib.file_digest(file, 'sha256').hexdigest()
                with self._lock:
                    self._known[stamp] = digest
        except OSError as error:
            raise EngineError(f'{path} cannot be read: {error.strerror}.', 1001) from None
        if digest != sha256:
            raise EngineError(f'{path} has the digest {digest[:12]}..., the registry says {sha256[:12]}...: it was '
                              'changed or damaged. Register it anew.', 1001)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; raises EngineError (1001)."""
    try:
        if path.is_dir():
            return sum(one.stat().st_size for one in path.iterdir() if one.is_file())
        return path.stat().st_size
    except OSError as error:
        raise EngineError(f'{path} cannot be read: {error.strerror}.', 1001) from None
