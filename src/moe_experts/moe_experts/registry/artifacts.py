"""Artifacts: files that are copied, synced, hashed and checked before a row points at them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from gguf import GGUFReader

from moe_experts.registry.errors import CreationFailed, DigestMismatch

LINK_BYTES = 64_000_000  # files of this size (base models) are linked, not copied: a robot's disk is small


@dataclass(frozen=True)
class Artifact:
    """What was found in a GGUF file. Sizes in bytes; quantization lists the types, most frequent first."""

    path: Path
    sha256: str
    size_bytes: int
    kind: str
    architecture: str
    quantization: str
    parameter_count: int


def _linked(source: Path, target: Path) -> bool:
    """Make a hard link; False where the file system cannot."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        return False
    return True


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def inspect(path: Path) -> Artifact:
    """Read a GGUF file's header; raises CreationFailed where it is none or not a model or adapter."""
    try:
        with path.open('rb') as file:
            magic = file.read(4)
    except OSError as error:
        raise CreationFailed(f'{path} cannot be read: {error.strerror}.') from None
    if magic != b'GGUF':
        raise CreationFailed(f'{path} is no GGUF file: it begins with {magic!r}.')
    try:
        reader = GGUFReader(path)
        field = reader.get_field('general.architecture')
        kind = reader.get_field('general.type')
        architecture = str(field.contents()) if field else ''
        adapter = bool(kind) and kind is not None and kind.contents() == 'adapter'
    except Exception as error:
        # the reader maps whatever the header says; a broken one may raise anything
        raise CreationFailed(f'{path} has a broken GGUF header: {error}.') from error
    if not architecture or not reader.tensors:
        raise CreationFailed(f'{path} names no architecture or holds no tensors.')
    matrices = Counter(tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) > 1)
    types = [name for name, _count in matrices.most_common() if name != 'F32' or len(matrices) == 1]
    return Artifact(path, sha256_of(path), path.stat().st_size, 'adapter' if adapter else 'model', architecture,
                    '+'.join(types or ['F32']), sum(int(tensor.n_elements) for tensor in reader.tensors))


def keep(source: Path, folder: Path, expected_sha256: str = '') -> Artifact:
    """Put a copy of a file into a folder of its own, safely against power cuts.

    Raises CreationFailed (unreadable, no GGUF, disk full) or DigestMismatch.
    """
    found = inspect(source)
    if expected_sha256 and found.sha256 != expected_sha256:
        raise DigestMismatch(f'{source} has the digest {found.sha256[:12]}..., not {expected_sha256[:12]}...; '
                             'it was changed or damaged.')
    target = folder / source.name
    temporary = folder / f'.{source.name}.{os.getpid()}.part'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if found.size_bytes < LINK_BYTES or not _linked(source, temporary):
            shutil.copyfile(source, temporary)
        with temporary.open('rb') as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CreationFailed(f'{source} cannot be kept in {folder}: {error.strerror}; make room or check its '
                             'permissions.') from error
    return Artifact(target, found.sha256, found.size_bytes, found.kind, found.architecture, found.quantization,
                    found.parameter_count)
