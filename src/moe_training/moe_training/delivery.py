"""From a trained model to files that may be served: converted, compared, scored, gated."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moe_training.adapter_file import write_adapter
from moe_training.atomic_files import atomic_path, sha256_of
from moe_training.chat import TokenRow, tokenize
from moe_training.dataset import Example
from moe_training.errors import TrainingError
from moe_training.foundation import Foundation
from moe_training.job import Job, Outcome
from moe_training.model_file import write_model
from moe_training.parity import check_greedy, check_loss, check_tokens
from moe_training.product import Product, fastest
from moe_training.quantization import BEST, file_type, quantize
from moe_training.serving_score import CONTEXT_TOKENS, ServedModel, mean_nats, score

PARITY_ROWS = 16
GREEDY_ROWS = 6
HALF = 'F16'
WORSE_SHARE = 1.02  # of the champion's loss, where the exact answers are as many


def whole_model(folder: Path, name: str, source: Path) -> Callable[[str], Path]:
    """Makes the files of a model that stands alone: NAME-FORMAT.gguf in a folder, from a Hugging Face folder."""
    def file(quantization: str) -> Path:
        target = folder / f'{name}-{quantization.lower()}.gguf'
        if not target.is_file():
            if quantization == HALF:
                write_model(source, target, name)
            else:
                quantize(file(HALF), target, quantization)
        return target
    return file


class Delivery:
    """The tail of a job.

    Args:
        folder: of the job; files are written there.
        tell: receives the phases "convert", "parity" and "evaluate".
    """

    def __init__(self, job: Job, folder: Path, foundation: Foundation, tokenizer: Any,
                 tell: Callable[[str, Any], None]) -> None:
        self._job, self._folder, self._foundation = job, folder, foundation
        self._tokenizer, self._tell = tokenizer, tell

    def deliver(self, model: Any, heldout: list[Example], rows: list[TokenRow], held_rows: list[TokenRow], digest: str,
                metrics: dict[str, float]) -> Outcome:
        """Convert, compare and score; raises TrainingError where a gate refuses the model."""
        job = self._job
        self._tell('convert', None)
        product = self._product(model.to('cpu'))
        self._tell('parity', None)
        compared = (held_rows or rows)[:PARITY_ROWS]
        self._check_half(product, model, compared)
        asked = [example for example in heldout if example.messages]  # a text has no answer to compare
        quantization = job.quantization
        if quantization == BEST:
            self._tell('evaluate', None)
            best, tried = fastest(product, self._rows(asked), asked, lambda _name: self._tell('evaluate', None))
            quantization = best.quantization
            with atomic_path(self._folder / 'formats.json') as temporary:
                temporary.write_text(json.dumps([asdict(each) for each in tried], indent=2))
        quantization = file_type(quantization)
        served = product.open(quantization)
        try:
            metrics |= check_loss(model, served, compared)
            if heldout:
                self._tell('evaluate', None)
                metrics |= self._evaluate(served, heldout, held_rows, asked)
                self._gate(heldout, asked, metrics)
        finally:
            served.close()
        artifact = product.artifact(quantization)
        base = product.file(quantization) if product.adapter else None
        return Outcome(str(artifact), sha256_of(artifact), self._foundation.name if base else '',
                       str(base) if base else '', sha256_of(base) if base else '', digest, quantization, metrics)

    def _product(self, model: Any) -> Product:
        name = self._job.expert
        context = max(CONTEXT_TOKENS, self._job.settings.max_seq_len)
        if self._job.settings.method == 'lora':
            adapter = write_adapter(model, self._folder / f'{name}.gguf', f'{name} on {self._foundation.name}')
            return Product(self._foundation.served, adapter, context)
        source = self._folder / 'model'
        model.save_pretrained(source)
        self._tokenizer.save_pretrained(source)
        for stale in self._folder.glob(f'{name}-*.gguf'):  # of an earlier try of this job
            stale.unlink()
        return Product(whole_model(self._folder, name, source), None, context)

    def _check_half(self, product: Product, model: Any, rows: list[TokenRow]) -> None:
        served = product.open(HALF)
        try:
            check_tokens(self._tokenizer, served)
            check_greedy(model, served, rows[:GREEDY_ROWS])
        finally:
            served.close()

    def _rows(self, asked: list[Example]) -> list[TokenRow]:
        return tokenize(asked, self._tokenizer, self._job.system_prompt, self._job.settings.max_seq_len)

    def _evaluate(self, served: ServedModel, heldout: list[Example], rows: list[TokenRow],
                  asked: list[Example]) -> dict[str, float]:
        loss = mean_nats(served, rows)
        found = {'heldout_loss': loss, 'heldout_perplexity': math.exp(min(loss, 700.0)),
                 'heldout_tokens_per_second': served.rate(rows[0].prompt),
                 'heldout_nats_per_character': _per_character(loss, rows, heldout)}
        if asked:
            answers = score(served, self._rows(asked), asked)
            with atomic_path(self._folder / 'answers.json') as temporary:
                temporary.write_text(json.dumps(answers.samples, indent=2, ensure_ascii=False))
            found |= {'heldout_exact': answers.exact, 'heldout_f1': answers.f1, 'heldout_rows': float(answers.rows)}
        return found

    def _gate(self, heldout: list[Example], asked: list[Example], metrics: dict[str, float]) -> None:
        """Refuse a model that answers the held-out rows worse than the champion; raises TrainingError."""
        champion = self._job.champion
        if not champion.artifact_path:
            return
        base, adapter = ((champion.base_path, Path(champion.artifact_path)) if champion.base_path
                         else (champion.artifact_path, None))
        served = ServedModel(Path(base), adapter, context=max(CONTEXT_TOKENS, self._job.settings.max_seq_len))

        def rows(examples: list[Example]) -> list[TokenRow]:  # the champion may have another vocabulary
            return [TokenRow(served.prompt(each.with_system(self._job.system_prompt)), served.tokenize(each.completion))
                    for each in examples]

        try:
            found = score(served, rows(asked), asked)
            theirs = _per_character(mean_nats(served, rows(heldout)), rows(heldout), heldout)
        finally:
            served.close()
        metrics |= {'champion_exact': found.exact, 'champion_f1': found.f1, 'champion_nats_per_character': theirs}
        exact, ours = metrics.get('heldout_exact', 0.0), metrics['heldout_nats_per_character']
        if exact < found.exact or (exact == found.exact and ours > WORSE_SHARE * theirs):
            raise TrainingError(
                f'The gate refuses the new version: {exact:.1%} exact answers and {ours:.3f} nats/character on '
                f'{len(heldout)} held-out rows, the champion has {found.exact:.1%} and {theirs:.3f}; train longer or '
                'on more rows, or leave the gate off.')


def _per_character(loss: float, rows: list[TokenRow], examples: list[Example]) -> float:
    """Loss per character of the answers: comparable between vocabularies."""
    return loss * sum(len(row.answer) for row in rows) / max(1, sum(len(each.completion) for each in examples))
