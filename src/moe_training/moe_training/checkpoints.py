"""Checkpoints: whole or absent, verified when they are read, and nothing in them is code (safetensors and JSON)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_training.atomic_files import sha256_of
from moe_training.errors import TrainingError

_NAME = re.compile(r'(?:step|epoch)_\d+|best')
_TENSORS, _DETAIL = 'state.safetensors', 'checkpoint.json'
SPARE_BYTES = 64_000_000  # left free beside a checkpoint: logs, the database and the adapter need room as well


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: its folder and what checkpoint.json says (step, digests, states)."""

    folder: Path
    detail: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimiser steps made before it."""
        return int(self.detail['step'])

    def tensors(self) -> dict[str, Any]:
        """All tensors by name; raises TrainingError where the file is not the one that was written."""
        from safetensors.torch import load_file

        path = self.folder / _TENSORS
        if not path.is_file() or sha256_of(path) != self.detail['sha256']:
            raise TrainingError(f'Checkpoint {self.folder} is damaged; resume from an earlier one.')
        return load_file(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_tensors(path: Path, tensors: dict[str, Any]) -> str:
    """Write CPU tensors as safetensors, synced; returns the file's SHA-256.

    safetensors' own writer holds the interpreter's lock until the disk has everything, and a fit would stand still as
    long. The format: length of the header (8 bytes, little endian), header as JSON, the tensors one after another.
    """
    import torch

    kinds = {torch.float32: 'F32', torch.float16: 'F16', torch.bfloat16: 'BF16', torch.float64: 'F64',
             torch.int64: 'I64', torch.int32: 'I32', torch.uint8: 'U8', torch.bool: 'BOOL'}
    header, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {'dtype': kinds[tensor.dtype], 'shape': list(tensor.shape), 'data_offsets': [begin, end]}
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    digest = hashlib.sha256()
    with open(path, 'wb') as file:
        for part in (len(text).to_bytes(8, 'little'), text,
                     *(tensor.reshape(-1).view(torch.uint8).numpy() for tensor in tensors.values())):
            file.write(part)
            digest.update(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


class CheckpointStore:
    """The checkpoints of a job.

    Args:
        folder: of checkpoints, one folder each.
        keep_last: of those between epochs; epoch_N and best stay.
    """

    def __init__(self, folder: Path, keep_last: int = 2) -> None:
        self.folder, self._keep = folder, keep_last
        self._writing: threading.Thread | None = None
        self._error: Exception | None = None

    def all(self) -> list[Checkpoint]:
        """Checkpoints by step, oldest first; a half-written one does not count."""
        found = []
        for path in self.folder.glob('*/' + _DETAIL):
            if _NAME.fullmatch(path.parent.name):
                found.append(Checkpoint(path.parent, json.loads(path.read_text())))
        return sorted(found, key=lambda each: (each.step, each.folder.name))

    def latest(self) -> Checkpoint | None:
        """The one with the most steps; None where there is none."""
        found = self.all()
        return found[-1] if found else None

    def named(self, name: str) -> Checkpoint:
        """By name: "latest", "epoch_3" (also "epoch_3.pt"), "step_400", "best"; raises TrainingError."""
        stem = name.removesuffix('.pt')
        if stem == 'latest':
            found = self.latest()
        elif _NAME.fullmatch(stem):
            found = next((each for each in self.all() if each.folder.name == stem), None)
        else:
            raise TrainingError(f'{name!r} is no name of a checkpoint; use latest, epoch_N, step_N or best.')
        if found is None:
            names = ', '.join(each.folder.name for each in self.all()) or 'none'
            raise TrainingError(f'There is no checkpoint {name} in {self.folder}; there are: {names}.')
        return found

    def save(self, name: str, tensors: dict[str, Any], detail: dict[str, Any]) -> None:
        """Write in a thread; the tensors must not change any more. Waits for the checkpoint before it.

        Raises TrainingError where the disk is too full, or the checkpoint before could not be written.
        """
        self.wait()
        needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if free < needed + SPARE_BYTES:
            raise TrainingError(f'The disk of {self.folder} is full: checkpoint {name} needs '
                                f'{(needed + SPARE_BYTES) / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; free some, or '
                                'lower keep_last.')
        self._writing = threading.Thread(target=self._write, args=(name, tensors, detail), name=f'checkpoint {name}')
        self._writing.start()

    def wait(self) -> None:
        """Return when the last save is on disk; raises TrainingError where it failed."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        if self._error is not None:
            error, self._error = self._error, None
            raise TrainingError(f'A checkpoint could not be written to {self.folder}: {error}; is the disk full?')

    def _write(self, name: str, tensors: dict[str, Any], detail: dict[str, Any]) -> None:
        temporary, target = self.folder / f'.{name}.tmp', self.folder / name
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            content = json.dumps({**detail, 'sha256': write_tensors(temporary / _TENSORS, tensors)}, indent=2)
            (temporary / _DETAIL).write_text(content)
            _fsync(temporary / _DETAIL)
            if target.exists():  # of a life before a rollback, or the best so far
                old = self.folder / f'.{name}.old'
                shutil.rmtree(old, ignore_errors=True)
                target.rename(old)
                temporary.rename(target)
                shutil.rmtree(old)
            else:
                temporary.rename(target)
            _fsync(self.folder)
            self._rotate()
        except Exception as error:  # whatever a full or broken disk raises, safetensors' own included
            shutil.rmtree(temporary, ignore_errors=True)
            self._error = error

    def _rotate(self) -> None:
        steps = [each for each in self.all() if each.folder.name.startswith('step_')]
        for each in steps[:-self._keep]:
            shutil.rmtree(each.folder)
