"""What training costs, and whether it survives being killed.

    ./moe exec python benchmarks/training.py
    ./moe exec python benchmarks/training.py --only speed memory

Speed is compared with a bare transformers.Trainer script on the same model, rows, batch size, precision and threads, in
turns in one process; tokens are those of prompts and answers, without padding. The other figures take the real worker
process on a model of the size that is named.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from measurement import Figure, figure, report

from moe_training.chat import TokenRow, tokenize
from moe_training.checkpoints import CheckpointStore
from moe_training.command import ask
from moe_training.dataset import Example, read_dataset
from moe_training.errors import TrainingError
from moe_training.fitting import Fit, autocast_dtype
from moe_training.job import Job
from moe_training.scratch import make_model
from moe_training.settings import Progress, Settings, Upkeep
from moe_training.trainable_base import prepare_trainable_base
from moe_training.trainable_model import load_model
from moe_training.worker import TrainingWorker, WorkerLost

DATA = Path(__file__).parents[1] / 'data' / 'python' / 'train.jsonl'
SYSTEM = 'You answer questions about Python.'
LEAST_SPEED, MOST_START_S, MOST_BLOCKED_S, MOST_GROWTH = 0.97, 8.0, 0.5, 2.0
WARM_STEPS = 200


def examples(count: int) -> list[Example]:
    """Rows of a built-in expert."""
    return read_dataset(DATA).require_valid().examples[:count]


def quiet(_progress: Progress) -> None:
    """Hear nothing."""


def _rate(stamps: list[float], tokens: list[int]) -> float:
    """Tokens per second of all steps but the first."""
    return sum(tokens[1:]) / (stamps[-1] - stamps[0])


def ours(base: Path, rows: list[TokenRow], settings: Settings) -> float:
    """Tokens per second of the suite's own loop."""
    model = load_model(base, settings)
    stamps: list[float] = []
    seen: list[float] = []

    def tell(progress: Progress) -> None:
        stamps.append(time.monotonic())
        seen.append(progress.tokens_per_second)

    begin = time.monotonic()
    Fit(model, rows, settings, tell).run()
    totals = [rate * (stamp - begin) for rate, stamp in zip(seen, stamps, strict=True)]
    return (totals[-1] - totals[0]) / (stamps[-1] - stamps[0])


def trainers(base: Path, rows: list[TokenRow], settings: Settings) -> float:
    """Tokens per second of a bare transformers.Trainer with the same settings."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    counts: list[int] = []
    stamps: list[float] = []

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, Any]:
        width = max(len(row['ids']) for row in batch)
        counts.append(sum(len(row['ids']) for row in batch))
        ids, labels, mask = (torch.full((len(batch), width), fill) for fill in (0, -100, 0))
        for index, row in enumerate(batch):
            size = len(row['ids'])
            ids[index, :size], mask[index, :size] = torch.tensor(row['ids']), 1
            labels[index, row['prompt']:size] = ids[index, row['prompt']:size]  # type: ignore[index]
        return {'input_ids': ids, 'labels': labels, 'attention_mask': mask}

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_arguments: Any, **_more: Any) -> None:
            stamps.append(time.monotonic())

    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            model=load_model(base, settings), data_collator=collate, callbacks=[Clock()],
            train_dataset=[{'ids': row.prompt + row.answer, 'prompt': len(row.prompt)} for row in rows],  # type: ignore
            args=TrainingArguments(
                output_dir=folder, max_steps=settings.max_steps, per_device_train_batch_size=settings.batch_size,
                learning_rate=settings.learning_rate, lr_scheduler_type=settings.scheduler, use_cpu=True,
                bf16=autocast_dtype(settings.precision, 'cpu') is torch.bfloat16,
                report_to=[], save_strategy='no', logging_strategy='no', remove_unused_columns=False,
                disable_tqdm=True, seed=settings.seed, dataloader_pin_memory=False)).train()
    return _rate(stamps, counts[:len(stamps)])


def speed(rounds: int) -> tuple[list[Figure], Any]:
    """Both loops in turns, for an adapter of the shared base and for a whole small model."""
    from transformers import AutoTokenizer

    found, detail = [], {}
    with tempfile.TemporaryDirectory() as folder:
        small = make_model('small', examples(400), SYSTEM, Path(folder) / 'small', 1)
        cases = (('adapter of the shared base', prepare_trainable_base(), Settings(max_steps=6, batch_size=8)),
                 ('small, all weights', small, Settings(method='full', max_steps=6, batch_size=8)))
        for name, base, settings in cases:
            rows = tokenize(examples(400), AutoTokenizer.from_pretrained(base), SYSTEM, 256)
            pairs = [(ours(base, rows, settings), trainers(base, rows, settings)) for _ in range(rounds)]
            mine, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
            ratio = statistics.median(one / other for one, other in pairs)
            found += [figure(f'{name}: this loop', mine, 'tok/s'), figure(f'{name}: bare Trainer', theirs, 'tok/s'),
                      Figure(f'{name}: this loop against it', ratio, '', f'>= {LEAST_SPEED}', ratio >= LEAST_SPEED)]
            detail[name] = pairs
    return found, detail


def tiny_job(folder: Path, **settings: Any) -> Job:
    """A job on the tiny size."""
    path = folder / 'rows.jsonl'
    path.write_text(''.join(json.dumps({'prompt': each.prompt, 'completion': each.completion}) + '\n'
                            for each in examples(96)))
    return Job('benchmark', str(path), SYSTEM, base='tiny', upkeep=Upkeep(checkpoint_steps=5), settings=Settings(
        **{'method': 'full', 'max_steps': 40, 'batch_size': 4, 'learning_rate': 1e-3, **settings}))


def follow(worker: TrainingWorker, until: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Messages of a worker up to the first that `until` accepts; it is killed then."""
    heard = []
    try:
        for message in worker.progress(lambda: False):
            heard.append(message)
            if until(message):
                break
    except TrainingError as error:
        raise SystemExit(f'The worker failed: {error}') from error
    finally:
        worker.close()
    return heard


def start(repeats: int) -> tuple[list[Figure], Any]:
    """Seconds from a goal to its first step, checks included."""
    values = []
    with tempfile.TemporaryDirectory() as name:
        for number in range(repeats):
            folder = Path(name) / str(number)
            folder.mkdir()
            job = tiny_job(folder)
            begin = time.monotonic()
            ask('validate', path=job.dataset)
            follow(TrainingWorker.start(number, job, folder, folder / 'log'), lambda message: 'step' in message)
            values.append(time.monotonic() - begin)
    return [figure('goal to the first step, tiny', values, 's', most=MOST_START_S)], values


def checkpoint(repeats: int) -> tuple[list[Figure], Any]:
    """Seconds that a fit of `small` stands still for a checkpoint with all of the optimiser's state."""
    values: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        base = make_model('small', examples(400), SYSTEM, Path(name) / 'small', 1)
        settings = Settings(method='full', max_steps=1, batch_size=2, precision='fp32')
        rows = [TokenRow([1, 2, 3], [4, 5])] * 8
        store = CheckpointStore(Path(name) / 'checkpoints')
        fit = Fit(load_model(base, settings), rows, settings, quiet, store=store)
        fit.run()
        size = sum(path.stat().st_size for path in store.folder.rglob('*.safetensors')) / len(store.all()) / 1e6
        for number in range(repeats):
            begin = time.monotonic()
            fit._save(f'step_{100 + number}')
            values.append(time.monotonic() - begin)
            store.wait()  # a disk may take far longer to write it than the fit stands still
    return [figure('checkpoint of small, blocked', values, 's', most=MOST_BLOCKED_S),
            Figure('  its size (this dataset\'s vocabulary)', size, 'MB')], values


def memory(steps: int) -> tuple[list[Figure], Any]:
    """Growth of the worker's resident memory from warm-up to the end, checkpoints on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = replace(tiny_job(folder, max_steps=steps), upkeep=Upkeep(checkpoint_steps=100))
        heard = follow(TrainingWorker.start(1, job, folder, folder / 'log'),
                       lambda message: message.get('step') == steps)
    sizes = [message['memory_bytes'] / 1e6 for message in heard if 'step' in message]
    window = max(1, min(WARM_STEPS, steps // 4))
    before, after = statistics.median(sizes[window:2 * window]), statistics.median(sizes[-window:])
    growth = 100 * (after / before - 1)
    warm = sizes[window:]
    # a step takes what its rows are long, 2 % to and fro, which its two ends may show instead of a growth
    trend = 100 * statistics.linear_regression(range(len(warm)), warm).slope * len(warm) / statistics.median(warm)
    return [Figure(f'memory after {steps} steps', after, 'MB'),
            Figure('  against after warm-up', growth, '%', f'<= {MOST_GROWTH:g}', growth <= MOST_GROWTH),
            Figure('  trend of all steps after warm-up', trend, '%')], sizes[::20]


def resume(kills: int) -> tuple[list[Figure], Any]:
    """How often a worker that was killed at a random step ends with the weights and losses of one that was not."""
    chance, same, steps = random.Random(8), 0, []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        job = tiny_job(root)
        last = job.settings.max_steps

        def ended(message: dict[str, Any]) -> bool:
            return bool(message['phase'] == 'convert') if 'phase' in message else False

        def weights(folder: Path) -> str:
            return str(CheckpointStore(folder / 'checkpoints').named(f'step_{last}').detail['sha256'])

        whole = follow(TrainingWorker.start(0, job, root / 'whole', root / 'log'), ended)
        losses = {row['step']: row['loss'] for row in whole if 'step' in row}
        for number in range(1, kills + 1):
            folder, at = root / str(number), chance.randrange(1, last)
            first = TrainingWorker.start(number, job, folder, root / 'log')
            seen = {}
            with contextlib.suppress(WorkerLost):  # after its last words: it may have made steps until it was killed
                for message in first.progress(lambda: False):
                    if 'step' in message:
                        seen[message['step']] = message['loss']
                        if message['step'] == at:
                            os.kill(first.pid, signal.SIGKILL)
            first.close()
            rest = follow(TrainingWorker.start(number, job, folder, root / 'log'), ended)
            seen |= {row['step']: row['loss'] for row in rest if 'step' in row}
            equal = weights(folder) == weights(root / 'whole') and seen == losses
            same += equal
            steps.append((at, equal))
            shutil.rmtree(folder)
    return [Figure(f'identical weights and losses after SIGKILL, of {kills}', same, '', f'>= {kills}',
                   same == kills)], steps


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('--only', nargs='+', choices=('speed', 'start', 'checkpoint', 'memory', 'resume'))
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--steps', type=int, default=2000)
    parser.add_argument('--kills', type=int, default=20)
    options = parser.parse_args()
    parts: dict[str, Callable[[], tuple[list[Figure], Any]]] = {
        'speed': lambda: speed(options.rounds), 'start': lambda: start(options.rounds),
        'checkpoint': lambda: checkpoint(min(3, options.rounds)), 'memory': lambda: memory(options.steps),
        'resume': lambda: resume(options.kills)}
    figures: list[Figure] = []
    detail: dict[str, Any] = {}
    for name in options.only or parts:
        found, detail[name] = parts[name]()
        figures += found
        print(f'{name}: ' + ', '.join(f'{each.name.strip()} {each.value:.3g} {each.unit}' for each in found),
              flush=True)
    report('training', figures, detail)


if __name__ == '__main__':
    main()
