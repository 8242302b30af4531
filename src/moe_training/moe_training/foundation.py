"""What a job starts from: the shared base, a Hugging Face folder, a GGUF file, or a size to make from scratch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from moe_training.atomic_files import exclusive, sha256_of
from moe_training.dataset import Example
from moe_training.errors import RequestError, TrainingError
from moe_training.model_file import write_model
from moe_training.paths import BASE_NAME, moe_home, served_base
from moe_training.prepare_base import prepare_base, shipped_base
from moe_training.quantization import quantize
from moe_training.scratch import SIZES, make_model
from moe_training.trainable_base import prepare_trainable_base


def check_base(base: str, method: str) -> None:
    """Raise RequestError or TrainingError for a base that no job can start from."""
    if base in SIZES:
        if method != 'full':
            raise RequestError(f'Size {base} is trained from scratch; use method full.')
        return
    if base in ('', BASE_NAME):
        return
    path = Path(base)
    if path.is_dir() and (path / 'config.json').is_file():
        if not any(path.glob('*.safetensors')):
            raise TrainingError(f'Base {base} holds no safetensors file; pickled weights are never loaded.')
    elif not path.is_file():
        raise TrainingError(f'Base {base} does not exist; use {BASE_NAME}, one of {", ".join(SIZES)}, a Hugging Face '
                            'folder or a GGUF file.')
    elif _magic(path) != b'GGUF':
        raise TrainingError(f'Base {base} is no GGUF file, and pickled weights are never loaded.')


def _magic(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(4)


@dataclass(frozen=True)
class Foundation:
    """A base as it is trained on and served.

    Attributes:
        name: of the base in the registry.
        folder: Hugging Face folder with safetensors.
        source: GGUF file that the folder was made from; None = the folder was there first.
    """

    name: str
    folder: Path
    source: Path | None

    def served(self, quantization: str) -> Path:
        """The base as GGUF in a number format, made once; for adapters."""
        if self.name == BASE_NAME:
            return prepare_base(served_base(quantization), quantization)
        target = moe_home() / 'models' / f'{self.name}-{quantization.lower()}.gguf'
        with exclusive(target):
            if not target.is_file():
                quantize(self.source or self._half(), target, quantization)
        return target

    def _half(self) -> Path:
        target = moe_home() / 'models' / f'{self.name}-f16.gguf'
        return target if target.is_file() else write_model(self.folder, target, self.name)


def _digest(folder: Path) -> str:
    """Digest of a folder's weights, settings and tokenizer."""
    files = sorted([*folder.glob('*.safetensors'), *folder.glob('*.json')])
    return hashlib.sha256(''.join(sha256_of(path) for path in files).encode()).hexdigest()


def open_foundation(base: str, job_folder: Path, examples: Iterable[Example], system_prompt: str,
                    seed: int) -> Foundation:
    """The foundation a job names; a from-scratch model is made in the job's folder. Raises TrainingError."""
    if base in ('', BASE_NAME):
        return Foundation(BASE_NAME, prepare_trainable_base(), shipped_base())
    if base in SIZES:
        return Foundation(base, make_model(base, examples, system_prompt, job_folder / 'scratch', seed), None)
    path = Path(base).resolve()
    if path.is_dir():
        return Foundation(f'{path.name.lower()}-{_digest(path)[:8]}', path, None)
    name = f'{path.stem.lower()}-{sha256_of(path)[:8]}'
    return Foundation(name, prepare_trainable_base(moe_home() / 'models' / f'{name}-hf', path), path)
