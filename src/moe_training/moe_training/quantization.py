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

# What people write for llama.cpp's name.
SHORT_NAMES = {'Q8': 'Q8_0', 'Q6': 'Q6_K', 'Q5': 'Q5_0', 'Q4': 'Q4_0', 'FP16': 'F16', 'FP32': 'F32'}
FILE_TYPES['F32'] = llama.LLAMA_FTYPE_ALL_F32
BEST = 'best'
CANDIDATES = ('F16', 'BF16', 'Q8_0', 'Q5_0', 'Q4_K_M', 'Q4_1', 'Q4_0')  # what "best" chooses from


def file_type(name: str) -> str:
    """llama.cpp's name of a number format ("Q8" is Q8_0); raises RequestError where it has none of that name."""
    upper = SHORT_NAMES.get(name.upper(), name.upper())
    if upper not in FILE_TYPES:
        raise RequestError(f'Quantization {name!r} is unknown; llama.cpp has {", ".join(sorted(FILE_TYPES))}.')
    return upper


@llama.llama_log_callback  # type: ignore[untyped-decorator]
def _silence(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """Swallows llama.cpp's log; the default callback can raise on bytes that are no UTF-8."""


def silence_log() -> None:
    """Switches llama.cpp's own log off in this process."""
    llama.llama_log_set(_silence, ctypes.c_void_p(0))


def quantize(source: Path, target: Path, quantization: str = 'Q8_0', threads: int | None = None) -> None:
    """Writes `source` (GGUF of any type) as `target`, atomically.

    Raises RequestError where llama.cpp has no such type, TrainingError where it cannot read or write a file.
    """
    number = FILE_TYPES[file_type(quantization)]
    silence_log()
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype = number
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
