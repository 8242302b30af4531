"""train, training-status, training-stop, training-fail, training-logs, build-experts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from ament_index_python.packages import get_package_share_directory
from rich.progress_bar import ProgressBar

from moe_client import suite
from moe_client.cli import plots
from moe_client.cli.connection import connect
from moe_client.cli.logs import tail
from moe_client.cli.output import Json, as_json, console, done, local_time, rows, values
from moe_client.errors import InvalidRequest, MoeError
from moe_client.types import TrainingProgress

# What the built-in adapters are trained with, where experts.yaml says nothing else; epochs stand there.
BUILT_IN_SETTINGS = {'batch_size': 16, 'learning_rate': 1e-3, 'lora_rank': 8, 'seed': 42}


def show(progress: Iterable[TrainingProgress], quiet: bool = False) -> TrainingProgress:
    """Print progress as it comes, a line each phase and every tenth of the steps; returns the last."""
    last, printed = TrainingProgress('', 0, 0, float('nan'), 0.0, -1.0), ('', -1)
    for last in progress:
        tenth = last.step * 10 // last.total_steps if last.total_steps else 0
        if (last.phase, tenth) != printed and last.phase != 'done' and not quiet:
            printed = (last.phase, tenth)
            line = f'  {last.phase}'
            if last.step:
                line += (f' step {last.step}/{last.total_steps}, loss {last.loss:.3f}, '
                         f'{last.tokens_per_second:.0f} tokens/s')
            console.print(line)
    return last


def train(
    expert: Annotated[str, typer.Argument(help='Id or name.')],
    dataset: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help='JSONL file.')],
    method: Annotated[str, typer.Option(help='lora or full.')] = 'lora',
    epochs: Annotated[float, typer.Option(min=0.01)] = 3.0,
    max_steps: Annotated[int, typer.Option(min=0, help='0 = by epochs.')] = 0,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    gradient_accumulation: Annotated[int, typer.Option(min=1, help='Steps per update.')] = 1,
    learning_rate: Annotated[float, typer.Option(help='0 = the method\'s own.')] = 0.0,
    max_grad_norm: Annotated[float, typer.Option(min=0.0, help='0 = off.')] = 1.0,
    precision: Annotated[str, typer.Option(help='auto, fp32, bf16 or fp16.')] = 'auto',
    gradient_checkpointing: Annotated[bool, typer.Option(help='Less memory, slower.')] = False,
    num_workers: Annotated[int, typer.Option(min=0, help='Of the data loader.')] = 0,
    max_seq_len: Annotated[int, typer.Option(min=8, help='Longer rows are an error [tokens].')] = 256,
    packing: Annotated[bool, typer.Option(help='Several rows a sequence.')] = False,
    base: Annotated[str, typer.Option(help='Name, folder, GGUF file, or a size for a model of its own; default: the '
                                      'expert\'s, or the shared base.')] = '',
    scheduler: Annotated[str, typer.Option(help='Of the learning rate, by transformers\' names.')] = 'cosine',
    warmup_ratio: Annotated[float, typer.Option(min=0.0, max=1.0, help='Of the steps.')] = 0.05,
    lora_rank: Annotated[int, typer.Option(min=1)] = 8,
    lora_alpha: Annotated[float, typer.Option(min=0.0, help='0 = twice the rank.')] = 0.0,
    lora_target: Annotated[list[str] | None, typer.Option(help='A layer to adapt, for example q_proj; may be given '
                                                          'again. Default: all linear ones.')] = None,
    quantization: Annotated[str, typer.Option(help='Of what serves it: Q8_0, Q4_K_M, ..., or best.')] = 'Q8_0',
    seed: Annotated[int, typer.Option()] = 42,
    heldout: Annotated[Path | None, typer.Option(exists=True, help='JSONL file; default: split by hash.')] = None,
    holdout: Annotated[float, typer.Option(min=0.0, max=0.5, help='Share that is split off.')] = 0.05,
    early_stopping: Annotated[int, typer.Option(min=0, help='Evaluations without gain; 0 = off.')] = 0,
    notes: Annotated[int, typer.Option(min=0, max=20, help='Learn to read as many notes in front of a prompt: the '
                                       'answers of the dataset, which the expert then carries.')] = 0,
    resume: Annotated[bool, typer.Option('--resume', help='Go on from the latest checkpoint.')] = False,
    checkpoint: Annotated[str, typer.Option(help='With --resume: from this one.')] = '',
    promote: Annotated[bool, typer.Option(help='Serve the new version.')] = True,
    gate: Annotated[bool, typer.Option(help='Refuse a version that scores worse than the one served.')] = False,
    force: Annotated[bool, typer.Option(help='Resume although dataset or settings differ.')] = False,
    detach: Annotated[bool, typer.Option('--detach', '-d', help='Return when the job is queued.')] = False,
    json: Json = False,
) -> None:
    """Train a new version of an expert and serve it; Ctrl-C cancels the job."""
    if checkpoint and not resume:
        raise InvalidRequest('--checkpoint goes with --resume.')
    fields: dict[str, Any] = {
        'method': method, 'epochs': epochs, 'max_steps': max_steps, 'batch_size': batch_size,
        'gradient_accumulation': gradient_accumulation, 'learning_rate': learning_rate,
        'max_grad_norm': max_grad_norm, 'precision': precision, 'gradient_checkpointing': gradient_checkpointing,
        'num_workers': num_workers, 'max_seq_len': max_seq_len, 'packing': packing, 'base': base,
        'scheduler': scheduler, 'warmup_ratio': warmup_ratio, 'lora_rank': lora_rank,
        'lora_alpha': lora_alpha or 2.0 * lora_rank, 'lora_targets': lora_target or [], 'quantization': quantization,
        'seed': seed, 'holdout': holdout,
        'heldout': str(heldout.absolute()) if heldout else '', 'early_stopping_patience': early_stopping,
        'notes': notes,
        'resume': (checkpoint or 'latest') if resume else '', 'promote': promote, 'gate': gate, 'force': force}
    with connect() as client:
        name = client.experts.name_of(expert)
        if detach:
            job = client.training.start(name, str(dataset.absolute()), **fields)
            done(f'Training job {job.id} of {name}; `moe training-status {job.id}` shows it.', json, job=job.id)
            return
        last = show(client.training.train(name, str(dataset.absolute()), **fields), json)
    measured = ', '.join(f'{key} {value:.4g}' for key, value in last.metrics.items())
    done(f'{name} has version {last.version}: {measured}', json, expert=name,
         version=last.version, metrics=last.metrics, artifact=last.artifact_path)


def training_status(
    job: Annotated[int, typer.Argument(metavar='JOB', help='0 = list all jobs.')] = 0,
    expert: Annotated[str, typer.Option(help='List only the jobs of this expert.')] = '',
    json: Json = False,
) -> None:
    """Show a training job, one value a line, on a terminal also its progress and loss curve; or list the jobs."""
    with connect() as client:
        if job:
            row = client.training.status(job)
        else:
            jobs = client.training.list(client.experts.name_of(expert) if expert else '')
    if job:
        shown = {**vars(row), **{key: local_time(getattr(row, key)) for key in ('created_at', 'started_at',
                                                                               'finished_at')}}
        values(vars(row) if json else shown, json)
        if console.is_terminal and not json:
            console.print(ProgressBar(max(1, row.total_steps), row.step, plots.WIDTH))
            plots.curves('loss by step [nats/token]', plots.losses(_log_of(job)), 'step')
        return
    if json:
        as_json(jobs)
        return
    rows(('id', 'expert', 'status', 'step', 'loss', 'started', 'problem'),
         [(row.id, row.expert, row.status, f'{row.step}/{row.total_steps}',
           '-' if row.loss is None else f'{row.loss:.4f}', local_time(row.started_at), row.error_msg or '-')
          for row in jobs])


def _log_of(job: int) -> Path:
    return suite.home() / 'logs' / f'training_{job}.log'


def training_stop(job: Annotated[int, typer.Argument(metavar='JOB')], json: Json = False) -> None:
    """Cancel a training job."""
    with connect() as client:
        row = client.training.stop(job)
    done(f'Training job {row.id} is {row.status}.', json, id=row.id, status=row.status)


def training_fail(job: Annotated[int, typer.Argument(metavar='JOB')],
                  reason: Annotated[str, typer.Option(help='Why, for the job and its history.')] = '',
                  json: Json = False) -> None:
    """Mark a training job as failed, which also ends its worker."""
    with connect() as client:
        row = client.training.fail(job, reason)
    done(f'Training job {row.id} is {row.status}.', json, id=row.id, status=row.status)


def training_logs(
    job: Annotated[int, typer.Argument(metavar='JOB')],
    follow: Annotated[bool, typer.Option('--follow', '-f', help='Go on as lines arrive.')] = False,
    lines: Annotated[int, typer.Option('--lines', '-n', min=1, help='Last lines to begin with.')] = 50,
) -> None:
    """Show the log of a training job."""
    path = _log_of(job)
    if not path.is_file():
        raise MoeError(f'There is no {path}; `moe training-status` lists the jobs.')
    tail([path], lines, follow, prefix=False)


def build_experts(
    names: Annotated[list[str] | None, typer.Argument(help='Built-in experts; none = all.')] = None,
    output: Annotated[Path | None, typer.Option(
        file_okay=False, help='Folder for adapters and manifest.json; default: where they are served from.')] = None,
) -> None:
    """Remake the built-in adapters from their datasets, by the training action, and serve them."""
    share = Path(get_package_share_directory('moe_bringup'))
    data = (share / 'data' / 'experts.yaml').resolve().parent  # the repository's, where install/ links to it
    catalogue = {row['name']: row for row in yaml.safe_load((data / 'experts.yaml').read_text())['experts']
                 if 'adapter' in row}
    unknown = [name for name in names or [] if name not in catalogue]
    if unknown:
        raise MoeError(f'Not built-in: {", ".join(unknown)}; there are {", ".join(catalogue)}.')
    with connect() as client:
        for name in names or catalogue:
            console.print(f'[bold]{name}[/bold]')
            row = catalogue[name]
            settings = {**BUILT_IN_SETTINGS, **row.get('training', {})}
            last = show(client.training.train(name, str(data / row['samples']),
                                              heldout=str(data / name / 'heldout.jsonl'), **settings))
            version = next(each for each in client.experts.get(name).versions if each['version'] == last.version)
            target = keep(version, output or (data / row['adapter']).parent, name, settings)
            console.print(f'  {name}@{last.version}, kept in {target}: '
                          + ', '.join(f'{key} {value:.4g}' for key, value in last.metrics.items()))


def keep(version: dict[str, Any], folder: Path, name: str, settings: dict[str, Any]) -> Path:
    """Copy a version's adapter into a folder and write its digests, settings and metrics into the manifest there."""
    folder.mkdir(parents=True, exist_ok=True)
    target, manifest = folder / f'{name}.gguf', folder / 'manifest.json'
    content = json.loads(manifest.read_text()) if manifest.is_file() else {'adapters': {}}
    content['command'] = 'moe build-experts'
    content['adapters'][name] = {
        'sha256': version['sha256'], 'size_bytes': version['size_bytes'], 'base_sha256': version['base_sha256'],
        'dataset_sha256': version['dataset_digest'], 'settings': settings, 'metrics': version['metrics']}
    _replace(target, Path(version['artifact']).read_bytes())
    _replace(manifest, (json.dumps(content, indent=2, sort_keys=True) + '\n').encode())
    return target


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f'.{path.name}.part')
    temporary.write_bytes(content)
    temporary.replace(path)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (train, training_status, training_stop, training_fail, training_logs, build_experts):
        app.command(verb.__name__.replace('_', '-'))(verb)
