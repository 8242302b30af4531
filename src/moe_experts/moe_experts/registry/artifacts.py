"""Artifacts: files that are copied, synced, hashed and checked before a row points at them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gguf import GGUFReader

from moe_experts.registry.errors import CreationFailed, DigestMismatch

LINK_BYTES = 64_000_000  # files of this size (base models) are linked, not copied: a robot's disk is small
PART = '.part'  # ends the name of what is not whole yet
_HEADER_BYTES = 100_000_000  # the format's own limit on a safetensors header
_FOLDER_SUFFIXES = ('.safetensors', '.json', '.txt', '.model', '.jinja', '.md')  # what of a folder is kept; no pickle


@dataclass(frozen=True)
class Artifact:
    """What was found in a GGUF file or a folder of safetensors.

    Args:
        sha256: of the file; of a folder: over the names and digests of its files.
        size_bytes: of all files.
        quantization: types, most frequent first.
    """

    path: Path
    sha256: str
    size_bytes: int
    kind: str
    backend: str
    architecture: str
    quantization: str
    parameter_count: int


def sha256_of(path: Path) -> str:
    """Hex digest of a file, or of the names and digests of a folder's files."""
    if path.is_dir():
        lines = [f'{file.relative_to(path)} {sha256_of(file)}\n' for file in _files(path)]
        return hashlib.sha256(''.join(lines).encode()).hexdigest()
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def inspect(path: Path) -> Artifact:
    """Read the header of a GGUF file, or of every safetensors file of a folder; raises CreationFailed."""
    return _inspect_folder(path) if path.is_dir() else _inspect_file(path)


def _inspect_file(path: Path) -> Artifact:
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
    return Artifact(path, sha256_of(path), path.stat().st_size, 'adapter' if adapter else 'model', 'llama_cpp',
                    architecture, '+'.join(types or ['F32']), sum(int(tensor.n_elements) for tensor in reader.tensors))


def _inspect_folder(folder: Path) -> Artifact:
    adapter = (folder / 'adapter_config.json').is_file()
    config = _json(folder / ('adapter_config.json' if adapter else 'config.json'))
    weights = sorted(folder.glob('*.safetensors'))
    if not weights:
        raise CreationFailed(f'{folder} holds no safetensors; pickled weights can run code and are not taken.')
    types: Counter[str] = Counter()
    parameters = 0
    for path in weights:
        for tensor in _tensors(path):
            elements = 1
            for size in tensor['shape']:
                elements *= size
            parameters += elements
            types[tensor['dtype']] += len(tensor['shape']) > 1
    names = config.get('architectures') or [config.get('peft_type') or config.get('model_type') or '']
    if not names[0]:
        raise CreationFailed(f'{folder} names no architecture in its configuration.')
    return Artifact(folder, sha256_of(folder), sum(file.stat().st_size for file in _files(folder)),
                    'adapter' if adapter else 'model', 'transformers', str(names[0]),
                    '+'.join(name for name, _count in types.most_common()), parameters)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise CreationFailed(f'{path} cannot be read: {error}.') from None
    if not isinstance(content, dict):
        raise CreationFailed(f'{path} holds no JSON object.')
    return content


def _tensors(path: Path) -> Iterator[dict[str, Any]]:
    """Header entries of a safetensors file (8 bytes length, JSON, data), their offsets checked against its size."""
    try:
        with path.open('rb') as file:
            length = int.from_bytes(file.read(8), 'little')
            if not 2 <= length <= min(_HEADER_BYTES, path.stat().st_size - 8):
                raise ValueError(f'a header of {length} bytes')
            header = json.loads(file.read(length))
            data = path.stat().st_size - 8 - length
            tensors = [entry for name, entry in header.items() if name != '__metadata__']
            if not tensors or any(entry['data_offsets'][1] > data or entry['data_offsets'][0] < 0
                                  for entry in tensors):
                raise ValueError('no tensors, or data that is cut off')
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CreationFailed(f'{path} is no sound safetensors file: {error}.') from None
    yield from tensors


def _files(folder: Path) -> list[Path]:
    """The files of a folder that belong to a model."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in _FOLDER_SUFFIXES)


def keep(source: Path, folder: Path, expected_sha256: str = '') -> Artifact:
    """Put a copy of a file, or of a model's folder, below folder/DIGEST/, safely against power cuts.

    Raises CreationFailed (unreadable, no model, disk full) or DigestMismatch.
    """
    found = inspect(source)
    if expected_sha256 and found.sha256 != expected_sha256:
        raise DigestMismatch(f'{source} has the digest {found.sha256[:12]}..., not {expected_sha256[:12]}...; '
                             'it was changed or damaged.')
    folder = folder / found.sha256[:16]
    target = folder / (source.resolve().name if source.name in ('', '..') else source.name)
    if target.exists() and sha256_of(target) == found.sha256:
        return replace(found, path=target)
    temporary = folder / f'.{target.name}.{os.getpid()}{PART}'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            for file in _files(source):
                _copy(file, temporary / file.name)
            _sync(temporary)
            shutil.rmtree(target, ignore_errors=True)  # a damaged one: the digest above was another
        else:
            _copy(source, temporary)
        temporary.replace(target)
        for parent in (folder, folder.parent):
            _sync(parent)
    except OSError as error:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise CreationFailed(f'{source} cannot be kept in {folder}: {error.strerror}; make room or check its '
                             'permissions.') from error
    if not (target.is_file() and target.samefile(source)) and sha256_of(target) != found.sha256:
        raise DigestMismatch(f'{source} changed while it was copied; try again.')
    return replace(found, path=target)


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    if source.stat().st_size < LINK_BYTES or not _linked(source, target):
        shutil.copyfile(source, target)
    _sync(target)


def _linked(source: Path, target: Path) -> bool:
    """Make a hard link; False where the file system cannot."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        return False
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
