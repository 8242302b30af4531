"""Fits a model to rows of question and answer, on a CPU in minutes, on a GPU where there is one.

A plain loop instead of transformers' Trainer: the loss needs the logits of the answers alone, and the logits over
49,152 tokens are what costs most on a CPU (benchmarks/training.py shows both). Several processes started by torchrun
share a step's rows and add up their gradients.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from moe_training.batching import Batch, Sequences, StepRows, collate, microbatches
from moe_training.chat import TokenRow
from moe_training.checkpoints import Checkpoint, CheckpointStore
from moe_training.errors import CancelledError, TrainingError
from moe_training.loss_watch import LossGuard, Verdict, Warnings
from moe_training.schedule import Schedule
from moe_training.settings import Progress, Settings, Upkeep

_EVALUATION_BATCH = 8


class Fit:
    """One fit, from the start or from a checkpoint.

    Args:
        model: of transformers or peft; the parameters that want gradients are fitted, in place.
        rows: to learn.
        tell: receives every step.
        warn: receives sentences for people.
        heldout: rows whose loss is taken each epoch.
        store: of checkpoints; None = none are written, and nothing can be rolled back to.
        identity: written into checkpoints (digests), so that a resume can be refused.
    """

    def __init__(self, model: Any, rows: Sequence[TokenRow], settings: Settings, tell: Callable[[Progress], None],
                 cancelled: Callable[[], bool] = lambda: False, *, warn: Callable[[str], None] = lambda _text: None,
                 heldout: Sequence[TokenRow] = (), store: CheckpointStore | None = None, upkeep: Upkeep | None = None,
                 identity: dict[str, str] | None = None) -> None:
        import torch
        import torch.distributed as distributed

        self._upkeep = upkeep or Upkeep()
        self._model, self._settings, self._tell, self._cancelled, self._warn = model, settings, tell, cancelled, warn
        self._heldout = list(heldout[:self._upkeep.evaluation_rows])
        self._store, self._identity = store, identity or {}
        self._shared = distributed.is_available() and distributed.is_initialized()
        self._rank, self._world = (distributed.get_rank(), distributed.get_world_size()) if self._shared else (0, 1)
        self._device = next(model.parameters()).device
        self._precision = autocast_dtype(settings.precision, self._device.type, warn)
        self._parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self._optimiser = torch.optim.AdamW(self._parameters.values(), lr=settings.learning_rate, weight_decay=0.0,
                                            fused=True)
        half = self._precision is torch.float16
        self._scaler = torch.amp.GradScaler(self._device.type) if half else None
        self._rows = StepRows(rows, settings.step_rows, settings.seed)
        self.total = settings.max_steps or max(1, round(settings.epochs * self._rows.per_epoch))
        self._schedule = Schedule(self._optimiser, settings, self.total)
        self._guard, self._warnings = LossGuard(self._upkeep), Warnings()
        self.step = 0
        self._best, self._without_gain, self._validation = math.inf, 0, math.nan
        self._stopped = self._halved = False
        torch.manual_seed(settings.seed)

    def run(self, resume: Checkpoint | None = None) -> None:
        """Fit until all steps are made or early stopping ends it.

        Raises TrainingError when the loss stays no number or memory is too small, CancelledError (after a
        checkpoint) when `cancelled` says so.
        """
        self._model.train()
        if resume is not None:
            self._restore(resume)
        elif self._store is not None:
            self._save('step_0')
        self._began, self._first, self._seen = time.monotonic(), self.step, 0
        while self.step < self.total and not self._stopped:
            self._go_on()
        if self._stopped and self._store is not None:
            self._store.wait()
            self._restore(self._store.named('best'))
        if self._store is not None:
            self._store.wait()
        self._model.eval()

    def _go_on(self) -> None:
        """Make steps until the end, or until the order of things changed (rolled back, batches halved)."""
        for batches in self._batches():
            rate = self._schedule.set(self.step)
            try:
                loss, norm, tokens, asked = self._gradients(batches)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                self._halve(error)
                return
            if asked:
                self._cancel()
            verdict = self._guard.judge(self.step + 1, loss, norm, rate)
            if verdict is Verdict.ROLL_BACK and self._store is not None:
                self._roll_back(loss, norm)
                return
            if verdict is Verdict.LEARN:
                self._learn()
            else:
                self._warn(f'Step {self.step + 1} was skipped: loss {loss}, gradient norm {norm}.')
            self._optimiser.zero_grad(set_to_none=True)
            self.step += 1
            self._seen += tokens
            self._after_step(loss, norm, rate)
            if self._stopped:
                return

    def _batches(self) -> Iterator[list[Batch]]:
        """The batches of every step from the present one on; of this process alone where several share the steps."""
        from torch import Generator
        from torch.utils.data import DataLoader

        settings, rows, rank, world = self._settings, self._rows, self._rank, self._world

        def build(step: int) -> list[Batch]:
            mine = rows[step][rank::world]
            return [collate(sequences) for sequences in microbatches(mine, settings)] if mine else []

        steps: Any = _Steps(build)
        loader: Any = DataLoader(
            steps, batch_size=None, sampler=range(self.step, self.total),
            num_workers=settings.num_workers, generator=Generator())
        yield from loader

    def _gradients(self, batches: list[Batch]) -> tuple[float, float, int, bool]:
        """Mean loss, gradient norm before clipping, tokens, and whether someone cancelled, over all processes."""
        import torch

        answers, tokens, asked = self._sums([
            float(sum(len(batch.targets) for batch in batches)), float(sum(batch.tokens for batch in batches)),
            float(self._cancelled())])
        total = 0.0
        for batch in batches:
            loss = answer_loss_sum(self._model, batch.to(self._device), self._precision) / answers
            (self._scaler.scale(loss) if self._scaler is not None else loss).backward()
            total += loss.item()
        if self._shared:
            for parameter in self._parameters.values():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                torch.distributed.all_reduce(parameter.grad)
            total = self._sums([total])[0]
        if self._scaler is not None:
            self._scaler.unscale_(self._optimiser)
        norm = float(torch.nn.utils.clip_grad_norm_(
            self._parameters.values(), self._settings.max_grad_norm or math.inf))
        return total, norm, int(tokens), asked > 0

    def _sums(self, values: list[float]) -> list[float]:
        """Values added up over all processes."""
        import torch

        if not self._shared:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self._device)
        torch.distributed.all_reduce(tensor)
        return [float(value) for value in tensor]

    def _learn(self) -> None:
        if self._scaler is not None:
            self._scaler.step(self._optimiser)
            self._scaler.update()
        else:
            self._optimiser.step()

    def _after_step(self, loss: float, norm: float, rate: float) -> None:
        """Evaluate, say, save."""
        epoch, rest = divmod(self.step, self._rows.per_epoch)
        at_end = rest == 0
        if self._heldout and (at_end or self.step == self.total):
            self._evaluate()
        elapsed, made = time.monotonic() - self._began, self.step - self._first
        progress = Progress(
            self.step, self.total, self.step / self._rows.per_epoch, loss, rate, norm, self._seen / elapsed,
            made / elapsed, elapsed / max(1, made) * (self.total - self.step), self._validation)
        if self._rank == 0:
            self._tell(progress)
            for text in self._warnings.of(progress):
                self._warn(text)
        if self._store is not None and (at_end or self.step % self._upkeep.checkpoint_steps == 0
                                        or self.step == self.total):
            self._save(f'epoch_{epoch}' if at_end else f'step_{self.step}')

    def _evaluate(self) -> None:
        self._model.eval()
        self._validation = answer_loss(self._model, self._heldout)
        self._model.train()
        self._schedule.evaluated(self._validation)
        if not self._settings.patience:
            return
        if self._validation < self._best:
            self._best, self._without_gain = self._validation, 0
            if self._store is not None:
                self._save('best')
        else:
            self._without_gain += 1
            self._stopped = self._without_gain >= self._settings.patience
            if self._stopped:
                self._warn(f'The validation loss has not fallen below {self._best:.4f} for {self._without_gain} '
                           'evaluations; the best weights are taken.')

    def _cancel(self) -> None:
        """Save and end."""
        if self._store is not None:
            self._save(f'step_{self.step}', required=True)
            self._store.wait()
        raise CancelledError(f'Training was cancelled at step {self.step} of {self.total}; what was reached is saved.')

    def _halve(self, error: Exception) -> None:
        """Go on with half the batch and twice the accumulation, once."""
        import torch

        self._optimiser.zero_grad(set_to_none=True)
        if self._halved or self._settings.batch_size < 2 or self._shared:
            raise TrainingError(
                f'Memory ran out at step {self.step + 1} with batch_size {self._settings.batch_size}; lower batch_size '
                'or max_seq_len, set gradient_checkpointing, use method lora or a smaller base.') from error
        self._halved = True
        smaller = self._settings.batch_size // 2
        self._settings = replace(self._settings, batch_size=smaller,
                                 gradient_accumulation=math.ceil(self._settings.step_rows / smaller))
        if self._device.type == 'cuda':
            torch.cuda.empty_cache()
        self._warn(f'Memory ran out at step {self.step + 1}; going on with batch_size {smaller} and '
                   f'gradient_accumulation {self._settings.gradient_accumulation}.')

    def _roll_back(self, loss: float, norm: float) -> None:
        assert self._store is not None
        self._store.wait()
        if self._shared:
            import torch.distributed as distributed

            distributed.barrier()
        checkpoint = self._store.latest()
        if checkpoint is None:
            raise TrainingError(f'The loss is {loss} at step {self.step + 1} and no checkpoint is left to go back to; '
                                'lower learning_rate.')
        scale = self._schedule.scale
        self._optimiser.zero_grad(set_to_none=True)
        reached = self.step
        self._restore(checkpoint)
        self._schedule.scale = scale / 2
        self._warn(f'Loss {loss} and gradient norm {norm} at step {reached + 1}: back to step {self.step} with '
                   f'{self._schedule.scale:g} of the learning rate.')

    def _save(self, name: str, *, required: bool = False) -> None:
        """Copy everything and have it written; a full disk is told, and ends the fit only where `required`."""
        if self._store is None or self._rank:
            return
        try:
            self._store.wait()
            self._store.save(name, self._tensors(), self._detail())
        except TrainingError as error:
            if required:
                raise
            self._warn(f'{error} Training goes on without this checkpoint.')

    def _tensors(self) -> dict[str, Any]:
        """Copies of weights, optimiser state and random state, by name."""
        import torch

        found = {f'model/{name}': each for name, each in self._parameters.items()}
        for name, parameter in self._parameters.items():
            found |= {f'optimiser/{name}/{key}': value for key, value in self._optimiser.state[parameter].items()}
        found['random/cpu'] = torch.get_rng_state()
        if self._device.type == 'cuda':
            found['random/cuda'] = torch.cuda.get_rng_state(self._device)
        return {name: tensor.detach().to('cpu', copy=True).contiguous() for name, tensor in found.items()}

    def _detail(self) -> dict[str, Any]:
        return {'step': self.step, 'identity': self._identity, 'schedule': self._schedule.state(),
                'scaler': self._scaler.state_dict() if self._scaler is not None else {},
                'batch_size': self._settings.batch_size, 'halved': self._halved,
                'best': self._best, 'without_gain': self._without_gain, 'validation': self._validation}

    def _restore(self, checkpoint: Checkpoint) -> None:
        import torch

        tensors, detail = checkpoint.tensors(), checkpoint.detail
        if missing := [name for name in self._parameters if f'model/{name}' not in tensors]:
            raise TrainingError(f'Checkpoint {checkpoint.folder} has no {missing[0]}; it is of another model.')
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(tensors[f'model/{name}'])
                prefix = f'optimiser/{name}/'
                self._optimiser.state[parameter] = {
                    key.removeprefix(prefix): value if key.endswith('/step') and self._device.type == 'cpu'
                    else value.to(self._device) for key, value in tensors.items() if key.startswith(prefix)}
        torch.set_rng_state(tensors['random/cpu'])
        if 'random/cuda' in tensors and self._device.type == 'cuda':
            torch.cuda.set_rng_state(tensors['random/cuda'], self._device)
        self._schedule.restore(detail['schedule'])
        if self._scaler is not None and detail['scaler']:
            self._scaler.load_state_dict(detail['scaler'])
        size = min(detail['batch_size'], self._settings.batch_size)
        self._settings = replace(self._settings, batch_size=size,
                                 gradient_accumulation=math.ceil(self._settings.step_rows / size))
        self.step, self._halved = detail['step'], detail['halved']
        self._best, self._without_gain, self._validation = (
            detail['best'], detail['without_gain'], detail['validation'])


class _Steps:
    """The steps as a dataset of torch's loader."""

    def __init__(self, build: Callable[[int], list[Batch]]) -> None:
        self._build = build

    def __getitem__(self, step: int) -> list[Batch]:
        return self._build(step)


def fit(model: Any, rows: Sequence[TokenRow], settings: Settings, tell: Callable[[Progress], None],
        cancelled: Callable[[], bool] = lambda: False) -> Any:
    """Fit without checkpoints and return the model."""
    Fit(model, rows, settings, tell, cancelled).run()
    return model


def autocast_dtype(precision: str, device: str, warn: Callable[[str], None] = lambda _text: None) -> Any:
    """torch's type to compute in; None = float32. fp16 on a CPU is slow and overflows, so bf16 is taken."""
    import torch

    if precision == 'fp32':
        return None
    if device == 'cpu':
        if precision == 'fp16':
            warn('precision fp16 is not for CPUs; bf16 is taken.')
        if precision == 'auto' and not computes_bf16(Path('/proc/cpuinfo').read_text()):
            return None
        return torch.bfloat16
    if precision == 'fp16' or (precision == 'auto' and not torch.cuda.is_bf16_supported()):
        return torch.float16
    return torch.bfloat16


def computes_bf16(cpuinfo: str) -> bool:
    """Whether a CPU multiplies bf16 itself, by Linux's names of the feature on x86 and ARM.

    Emulated it is slower than float32: 762 ms instead of 8 for a product of two 1024 x 1024 matrices on an AVX2 CPU.
    """
    return bool(re.search(r'\b(avx512_bf16|amx_bf16|bf16)\b', cpuinfo))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory of the host or the GPU ran out."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return "can't allocate memory" in text or 'out of memory' in text or 'not enough memory' in text


def answer_loss_sum(model: Any, batch: Batch, dtype: Any) -> Any:
    """Cross-entropy summed over the answer tokens of a batch [nats]."""
    import torch

    causal = model.get_base_model() if hasattr(model, 'get_base_model') else model
    with torch.autocast(batch.ids.device.type, dtype=dtype) if dtype is not None else nullcontext():
        extra = {} if batch.mask is None else {'attention_mask': batch.mask, 'position_ids': batch.positions}
        states = causal.model(input_ids=batch.ids, use_cache=False, **extra).last_hidden_state
        logits = causal.lm_head(states[batch.rows, batch.columns])
    return torch.nn.functional.cross_entropy(logits.float(), batch.targets, reduction='sum')


def answer_loss(model: Any, rows: Sequence[TokenRow], batch_size: int = _EVALUATION_BATCH) -> float:
    """Mean cross-entropy of the answers [nats/token], in float32 whatever it was trained in."""
    import torch

    device = next(model.parameters()).device
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            sequences: Sequences = [[row] for row in rows[start:start + batch_size]]
            total += answer_loss_sum(model, collate(sequences).to(device), None).item()
    return total / sum(len(row.answer) for row in rows)
