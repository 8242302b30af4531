"""A served version in another number format: its own file, or for an adapter the base that serves it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moe_training.atomic_files import exclusive, sha256_of
from moe_training.chat import TokenRow
from moe_training.conversion import text_rows
from moe_training.dataset import Example, read_dataset
from moe_training.errors import TrainingError
from moe_training.paths import BASE_NAME, moe_home, served_base
from moe_training.prepare_base import prepare_base
from moe_training.product import KEPT_SHARE, SPEED_ROUNDS, value
from moe_training.quantization import BEST, CANDIDATES, file_type, quantize, tensor_types
from moe_training.serving_score import ServedModel, mean_nats, score

ROWS = 64
Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Requantised:
    """The files of the new version; base fields are '' for a whole model."""

    artifact_path: str
    base_path: str
    base_sha256: str
    quantization: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class _Measured:
    nats: float
    kept: float
    rate: float


class _Version:
    """A version's files in any format."""

    def __init__(self, artifact: str, finest: str, base: str, base_name: str, folder: Path) -> None:
        self._artifact, self._base, self._base_name = Path(artifact), base, base_name
        self._finest, self._folder = Path(finest or artifact), folder

    @property
    def adapter(self) -> Path | None:
        return self._artifact if self._base else None

    @property
    def source(self) -> Path:
        """The model file that serves the version now."""
        return Path(self._base) if self._base else self._artifact

    def file(self, quantization: str) -> Path:
        if self._base and self._base_name == BASE_NAME:
            return prepare_base(served_base(quantization), quantization)
        source = Path(self._base) if self._base else self._finest
        name = f'{self._base_name or source.stem.rsplit("-", 1)[0]}-{quantization.lower()}.gguf'
        target = (moe_home() / 'models' if self._base else self._folder) / name
        if target.resolve() == source.resolve():
            return source
        with exclusive(target):
            if not target.is_file() or not self._base:
                quantize(source, target, quantization)
        return target


def requantise(artifact: str, finest: str, base: str, base_name: str, folder: str, quantization: str,
               max_perplexity_ratio: float, heldout: str, system_prompt: str, tell: Tell) -> Requantised:
    """Write the files of a format and compare them with what is served now.

    Args:
        finest: F16 file that a whole model was quantised from; '' = the artifact itself is quantised again.
        base: file that serves an adapter; '' = the artifact is a whole model.
        folder: that new files of a whole model are written to.
        quantization: llama.cpp's name, or "best": the fastest of CANDIDATES that passes and keeps the score.
        max_perplexity_ratio: largest perplexity against what is served now.
        heldout: dataset to compare by; '' = built-in texts.

    Raises TrainingError where no format passes.
    """
    version = _Version(artifact, finest, base, base_name, Path(folder))
    names = CANDIDATES if quantization == BEST else (file_type(quantization),)
    asked = [each for each in (read_dataset(Path(heldout)).examples if heldout else []) if each.messages][:ROWS]
    tell('measure', 0.0)
    before = _measure(version.source, version.adapter, asked, system_prompt)
    passed: dict[str, _Measured] = {}
    ratios: dict[str, float] = {}
    for number, name in enumerate(names):
        tell(name, (number + 0.5) / (len(names) + 1))
        found = _measure(version.file(name), version.adapter, asked, system_prompt)
        ratios[name] = math.exp(found.nats - before.nats)
        if ratios[name] <= max_perplexity_ratio and found.kept >= KEPT_SHARE * before.kept:
            passed[name] = found
    if not passed:
        raise TrainingError(
            f'No format passes: perplexity against what is served now is '
            f'{", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())} times, allowed is '
            f'{max_perplexity_ratio:g} with {KEPT_SHARE:.0%} of the held-out score; take a finer format.')
    best = max(passed, key=lambda name: passed[name].rate)
    model = version.file(best)
    metrics = {'perplexity_ratio': ratios[best], 'served_loss': passed[best].nats,
               'heldout_tokens_per_second': passed[best].rate}
    if asked:
        metrics['heldout_score'] = passed[best].kept
    serves = version.adapter is not None
    return Requantised(str(version.adapter or model), str(model) if serves else '', sha256_of(model) if serves else '',
                       tensor_types(model), metrics)


def _measure(model: Path, adapter: Path | None, asked: list[Example], system_prompt: str) -> _Measured:
    served = ServedModel(model, adapter)
    try:
        rows = [TokenRow(served.prompt(each.with_system(system_prompt)), served.tokenize(each.completion))
                for each in asked]
        kept = value(score(served, rows, asked)) if rows else 0.0
        texts = rows or text_rows(served.tokenize)
        rate = max(served.rate(texts[0].prompt) for _ in range(SPEED_ROUNDS))
        return _Measured(mean_nats(served, texts), kept, rate)
    finally:
        served.close()
