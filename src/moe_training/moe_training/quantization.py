"""llama.cpp's quantiser: a GGUF file into one of another type."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from pathlib import Path

import gguf
import llama_cpp.llama_cpp as llama

from moe_training.atomic_files import atomic_path
from moe_training.errors import RequestError, TrainingError

FILE_TYPES: dict[str, int] = {
    name.removeprefix('LLAMA_FTYPE_MOSTLY_'): value
    for name, value in vars(llama).items()
    if name.startswith('LLAMA_FTYPE_MOSTLY_') and isinstance(value, int)
}


@llama.llama_log_callback  # type: ignore[untyped-decorator]
def _silence(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """Swallows llama.cpp's log; the default callback can raise on bytes that are no UTF-8."""


def silence_log() -> None:
    """Switches llama.cpp's own log off in this process."""
    llama.llama_log_set(_silence, ctypes.c_void_p(0))


def quantize(source: Path, target: Path, file_type: str = 'Q8_0', threads: int | None = None) -> None:
    """Writes `source` (GGUF of any type) as `target`, atomically.

    Raises RequestError where llama.cpp has no such type, TrainingError where it cannot read or write a file.
    """
    if file_type not in FILE_TYPES:
        raise RequestError(f'Quantization {file_type!r} is unknown; llama.cpp has {", ".join(sorted(FILE_TYPES))}.')
    silence_log()
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype = FILE_TYPES[file_type]
    parameters.nthread = threads or os.cpu_count() or 1
    parameters.allow_requantize = True
    with atomic_path(target) as temporary:
        code = llama.llama_model_quantize(os.fsencode(source), os.fsencode(temporary), ctypes.byref(parameters))
        if code != 0 or not temporary.is_file():
            raise TrainingError(f'llama.cpp could not quantise {source} into {target}: is it whole, the disk full?')


def tensor_types(path: Path) -> str:
    """Types really used in a GGUF file for matrices, most frequent first, joined by "+" ("Q8_0", "Q5_0+Q4_K")."""
    tensors = gguf.GGUFReader(path).tensors
    counts = Counter(tensor.tensor_type.name for tensor in tensors if len(tensor.shape) > 1)
    return '+'.join(name for name, _ in counts.most_common())


def parameter_count(path: Path) -> int:
    """Number of weights in a GGUF file."""
    return int(sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(path).tensors))
