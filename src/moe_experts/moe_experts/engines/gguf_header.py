"""The header of a GGUF file, read with every number doubted: what is wrong with it is said before llama.cpp maps it.

The format is ggml's docs/gguf.md, versions 2 and 3, little endian.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, MODEL_ARCH_NAMES, GGMLQuantizationType

from moe_experts.engines.engine import EngineError

ARCHITECTURES = frozenset(MODEL_ARCH_NAMES.values())
_MOST_ENTRIES = 1 << 17  # keys or tensors; the largest models have some thousands
_MOST_NAME_BYTES = 1 << 16
_MOST_TENSOR_NAME_BYTES = 63  # GGML_MAX_NAME with its NUL
_MOST_DIMENSIONS = 4
_STRING, _ARRAY = 8, 9
_SCALARS = {0: 'B', 1: 'b', 2: 'H', 3: 'h', 4: 'I', 5: 'i', 6: 'f', 7: '?', 10: 'Q', 11: 'q', 12: 'd'}


@dataclass(frozen=True)
class Header:
    """What a file says it is. `kind` is 'model' or 'adapter'; `types` counts the types of its matrices."""

    kind: str
    architecture: str
    types: Counter[str]
    parameter_count: int

    @property
    def quantization(self) -> str:
        """Types of the matrices, most frequent first, such as "Q5_0+Q4_K+Q8_0"."""
        names = [name for name, _count in self.types.most_common() if name != 'F32' or len(self.types) == 1]
        return '+'.join(names or ['F32'])


class _Reader:
    """Reads from a mapped file, never beyond its end."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self.at = data, 0

    def scalar(self, code: str) -> Any:
        """One little-endian number."""
        size = struct.calcsize('<' + code)
        self.need(size)
        (value,) = struct.unpack_from('<' + code, self._data, self.at)
        self.at += size
        return value

    def need(self, size: int) -> None:
        """Raise ValueError unless so many bytes are left."""
        if size > len(self._data) - self.at:
            raise ValueError(f'it ends within its header, {len(self._data)} bytes long')

    def text(self, most: int, what: str) -> str:
        """A string with its length before it."""
        length = self.scalar('Q')
        if length > most:
            raise ValueError(f'{what} of {length} bytes is too long')
        self.need(length)
        value = self._data[self.at:self.at + length]
        self.at += length
        return value.decode('utf-8', errors='replace')

    def value(self, kind: int, key: str) -> Any:
        """A value of a key; of arrays only the length is looked at."""
        if kind == _STRING:
            return self.text(len(self._data), f'{key}: a string')
        if kind == _ARRAY:
            return self._array(key)
        if kind not in _SCALARS:
            raise ValueError(f'{key} has the unknown type {kind}')
        return self.scalar(_SCALARS[kind])

    def _array(self, key: str) -> None:
        kind, count = self.scalar('I'), self.scalar('Q')
        if kind in _SCALARS:
            size = count * struct.calcsize('<' + _SCALARS[kind])
            self.need(size)
            self.at += size
            return
        if kind != _STRING:
            raise ValueError(f'{key} is an array of the unknown type {kind}')
        self.need(count * 8)
        data, end, at = self._data, len(self._data), self.at
        unpack = struct.Struct('<Q').unpack_from
        for _ in range(count):
            if at + 8 > end:
                raise ValueError(f'{key} ends within the file\'s header')
            at += 8 + unpack(data, at)[0]
        if at > end:
            raise ValueError(f'{key} ends behind the file')
        self.at = at


def read_header(path: Path) -> Header:
    """Read and check a file's header, tensors' places included; raises EngineError (1001) with what is wrong."""
    try:
        with path.open('rb') as file:
            if not file.seek(0, 2):
                raise ValueError('it is empty')
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(_Reader(data), len(data))
    except OSError as error:
        raise EngineError(f'{path} cannot be read: {error.strerror}.', 1001) from None
    except ValueError as error:
        raise EngineError(f'{path} is no usable GGUF file: {error}.', 1001) from None


def inspect_gguf(path: Path, kind: str, architecture: str = '') -> Header:
    """Read a header that must be of this kind and ('' = any known) architecture; raises EngineError (1001)."""
    header = read_header(path)
    if header.kind != kind:
        raise EngineError(f'{path} holds the weights of one {header.kind}; one {kind} is wanted here.', 1001)
    if header.architecture not in ARCHITECTURES:
        raise EngineError(f'{path} is of the architecture {header.architecture or "(none)"}, which llama.cpp does not '
                          'know.', 1001)
    if architecture and header.architecture != architecture:
        raise EngineError(f'{path} is made for {header.architecture} models, its base is {architecture}.', 1001)
    return header


def _parse(reader: _Reader, size: int) -> Header:
    reader.need(4)
    magic = struct.pack('<I', reader.scalar('I'))
    if magic != b'GGUF':
        raise ValueError(f'it begins with {magic!r}, not with GGUF')
    version = reader.scalar('I')
    if version not in (2, 3):
        raise ValueError(f'its version is {version}; 2 and 3 can be read')
    tensors, keys = reader.scalar('Q'), reader.scalar('Q')
    for count, what in ((tensors, 'tensors'), (keys, 'keys')):
        if count > min(size, _MOST_ENTRIES):
            raise ValueError(f'it claims to have {count} {what}')
    values: dict[str, Any] = {}
    for _ in range(keys):
        key = reader.text(_MOST_NAME_BYTES, 'a key')
        if key in values:
            raise ValueError(f'it has the key {key} twice')
        values[key] = reader.value(reader.scalar('I'), key)
    alignment = values.get('general.alignment', 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 20:
        raise ValueError(f'its alignment is {alignment}; it must be a power of two')
    if not tensors:
        raise ValueError('it holds no tensors')
    infos = [_tensor(reader, alignment) for _ in range(tensors)]
    if len({name for name, *_rest in infos}) < tensors:
        raise ValueError('it names a tensor twice')
    begin = -(-reader.at // alignment) * alignment
    for name, _type, _elements, offset, length, _dimensions in infos:
        if begin + offset + length > size:
            raise ValueError(f'its tensor {name} ends at byte {begin + offset + length}, behind its end at {size}')
    adapter = values.get('general.type') == 'adapter'
    return Header('adapter' if adapter else 'model', str(values.get('general.architecture', '')),
                  Counter(kind for _name, kind, _elements, _offset, _length, dimensions in infos if dimensions > 1),
                  sum(elements for _name, _kind, elements, *_rest in infos))


def _tensor(reader: _Reader, alignment: int) -> tuple[str, str, int, int, int, int]:
    """Name, type, elements, offset [bytes], length [bytes] and number of dimensions of the next tensor."""
    name = reader.text(_MOST_TENSOR_NAME_BYTES, 'the name of a tensor')
    count = reader.scalar('I')
    if not 1 <= count <= _MOST_DIMENSIONS:
        raise ValueError(f'its tensor {name} has {count} dimensions')
    shape = [reader.scalar('Q') for _ in range(count)]
    kind, offset = reader.scalar('I'), reader.scalar('Q')
    elements = math.prod(shape)
    if not 0 < elements < 1 << 62:
        raise ValueError(f'its tensor {name} has the shape {shape}')
    try:
        kind = GGMLQuantizationType(kind)
        block, block_bytes = GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError):
        raise ValueError(f'its tensor {name} has the unknown type {kind}') from None
    if shape[0] % block:
        raise ValueError(f'its tensor {name} has rows of {shape[0]}, no multiple of {block}')
    if offset % alignment:
        raise ValueError(f'its tensor {name} is not aligned to {alignment} bytes')
    return name, kind.name, elements, offset, elements // block * block_bytes, count
