"""Conversion on its own: a Hugging Face folder, a PEFT adapter or a GGUF file into a GGUF file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe_training.adapter_file import write_adapter
from moe_training.atomic_files import sha256_of
from moe_training.chat import TokenRow
from moe_training.errors import RequestError, TrainingError
from moe_training.model_file import write_model
from moe_training.parity import EDGE_TEXTS, check_greedy, check_loss, check_tokens
from moe_training.quantization import file_type, quantize, tensor_types
from moe_training.serving_score import ServedModel
from moe_training.trainable_model import load_folder

HALF = 'F16'
Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Converted:
    """The file that was written; `quantization` lists the types in it, most frequent first."""

    path: str
    sha256: str
    size_bytes: int
    quantization: str
    metrics: dict[str, float] = field(default_factory=dict)


def text_rows(tokenize: Callable[[str], list[int]]) -> list[TokenRow]:
    """The edge texts as rows to compare models by: the first token is given, the others are predicted."""
    tokens = [tokenize(text) for text in EDGE_TEXTS]
    return [TokenRow(each[:1], each[1:]) for each in tokens if len(each) > 1]


def convert(source: str, destination: str, quantization: str, base: str, parity_check: bool, tell: Tell) -> Converted:
    """Write `destination`; with `parity_check` only where it answers as the source does.

    Args:
        source: Hugging Face folder, folder of a PEFT adapter, or GGUF file.
        base: Hugging Face folder of an adapter's base.
        tell: receives the phases "read", "convert", "quantize", "parity" with the share that is done.

    Raises TrainingError and RequestError.
    """
    path, target, name = Path(source), Path(destination), file_type(quantization)
    tell('read', 0.0)
    if target.suffix != '.gguf':
        raise RequestError(f'Destination {destination} must end with .gguf.')
    if path.resolve() == target.resolve():
        raise RequestError(f'{source} would be read and written at once; choose another destination.')
    if path.is_file():
        tell('quantize', 0.3)
        quantize(path, target, name)
        return _found(target, {})
    if (path / 'adapter_config.json').is_file():
        return _adapter(path, target, base, parity_check, tell)
    if not (path / 'config.json').is_file():
        raise TrainingError(f'{source} is neither a GGUF file nor a folder with config.json or adapter_config.json.')
    return _model(path, target, name, parity_check, tell)


def _found(target: Path, metrics: dict[str, float]) -> Converted:
    return Converted(str(target), sha256_of(target), target.stat().st_size, tensor_types(target), metrics)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _compare(folder: Path, model: Any, half: ServedModel, rows: list[TokenRow] | None = None) -> list[TokenRow]:
    tokenizer = _tokenizer(folder)
    check_tokens(tokenizer, half)
    rows = rows or text_rows(lambda text: list(tokenizer(text, add_special_tokens=False)['input_ids']))
    check_greedy(model, half, rows)
    return rows


def _model(folder: Path, target: Path, quantization: str, parity_check: bool, tell: Tell) -> Converted:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix='.convert-') as scratch:
        tell('convert', 0.1)
        half = write_model(folder, Path(scratch) / 'half.gguf', folder.name)
        final = Path(scratch) / 'final.gguf'
        if quantization == HALF:
            final = half
        else:
            tell('quantize', 0.5)
            quantize(half, final, quantization)
        metrics: dict[str, float] = {}
        if parity_check:
            tell('parity', 0.6)
            model = load_folder(folder)
            served = ServedModel(half, None)
            try:
                rows = _compare(folder, model, served)
            finally:
                served.close()
            served = ServedModel(final, None)
            try:
                metrics = check_loss(model, served, rows)
            finally:
                served.close()
        final.replace(target)
    return _found(target, metrics)


def _adapter(folder: Path, target: Path, base: str, parity_check: bool, tell: Tell) -> Converted:
    if not (Path(base) / 'config.json').is_file():
        raise RequestError(f'{folder} is an adapter; name the Hugging Face folder of its base (base is "{base}").')
    if not (folder / 'adapter_model.safetensors').is_file():
        raise TrainingError(f'{folder} holds no adapter_model.safetensors; pickled weights are never loaded.')
    from peft import PeftModel

    model: Any = PeftModel.from_pretrained(load_folder(Path(base)), str(folder))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix='.convert-') as scratch:
        tell('convert', 0.2)
        adapter = write_adapter(model, Path(scratch) / 'adapter.gguf', folder.name)
        metrics: dict[str, float] = {}
        if parity_check:
            tell('parity', 0.5)
            served = ServedModel(write_model(Path(base), Path(scratch) / 'base.gguf', 'base'), adapter)
            try:
                rows = _compare(Path(base), model.eval(), served)
                metrics = check_loss(model, served, rows)
            finally:
                served.close()
        adapter.replace(target)
    return _found(target, metrics)
