"""train and build-experts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from moe_client.cli.output import console
from moe_client.errors import MoeError
from moe_client.types import TrainingProgress

# What the built-in adapters are trained with, where experts.yaml says nothing else; epochs stand there.
BUILT_IN_SETTINGS = {'batch_size': 16, 'learning_rate': 1e-3, 'lora_rank': 8, 'seed': 42}


def show(progress: Iterable[TrainingProgress]) -> TrainingProgress:
    """Print progress as it comes, a line each phase and every tenth of the steps; returns the last."""
    last, printed = TrainingProgress('', 0, 0, float('nan'), 0.0, -1.0), ('', -1)
    for last in progress:
        tenth = last.step * 10 // last.total_steps if last.total_steps else 0
        if (last.phase, tenth) != printed and last.phase != 'done':
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
    epochs: Annotated[float, typer.Option(min=0.01)] = 3.0,
    max_steps: Annotated[int, typer.Option(min=0, help='0 = by epochs.')] = 0,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    learning_rate: Annotated[float, typer.Option(help='0 = the method\'s own.')] = 0.0,
    lora_rank: Annotated[int, typer.Option(min=1)] = 8,
    seed: int = 42,
) -> None:
    """Train a new version of an expert and serve it."""
    from moe_client import Client
    with Client() as client:
        name = client.experts.get(expert).name
        last = show(client.training.train(name, str(dataset.absolute()), epochs=epochs, max_steps=max_steps,
                                          batch_size=batch_size, learning_rate=learning_rate, lora_rank=lora_rank,
                                          seed=seed))
    console.print(f'{name} is served as version {last.version}: '
                  + ', '.join(f'{key} {value:.4g}' for key, value in last.metrics.items()))


def build_experts(
    names: Annotated[list[str] | None, typer.Argument(help='Built-in experts; none = all.')] = None,
    output: Annotated[Path | None, typer.Option(
        file_okay=False, help='Folder for adapters and manifest.json; default: where they are served from.')] = None,
) -> None:
    """Remake the built-in adapters from their datasets, by the training action, and serve them."""
    from ament_index_python.packages import get_package_share_directory

    from moe_client import Client
    share = Path(get_package_share_directory('moe_bringup'))
    data = (share / 'data' / 'experts.yaml').resolve().parent  # the repository's, where install/ links to it
    catalogue = {row['name']: row for row in yaml.safe_load((data / 'experts.yaml').read_text())['experts']
                 if 'adapter' in row}
    unknown = [name for name in names or [] if name not in catalogue]
    if unknown:
        raise MoeError(f'Not built-in: {", ".join(unknown)}; there are {", ".join(catalogue)}.')
    with Client() as client:
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
    app.command()(train)
    app.command('build-experts')(build_experts)
