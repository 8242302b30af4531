"""train and build-experts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
import yaml

from moe_client.cli.output import console
from moe_client.errors import MoeError
from moe_client.types import TrainingProgress


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
) -> None:
    """Remake the built-in adapters from their datasets, by the training action."""
    from ament_index_python.packages import get_package_share_directory

    from moe_client import Client
    data = Path(get_package_share_directory('moe_bringup')) / 'data'
    catalogue = {row['name']: row for row in yaml.safe_load((data / 'experts.yaml').read_text())['experts']
                 if 'adapter' in row}
    unknown = [name for name in names or [] if name not in catalogue]
    if unknown:
        raise MoeError(f'Not built-in: {", ".join(unknown)}; there are {", ".join(catalogue)}.')
    with Client() as client:
        for name in names or catalogue:
            console.print(f'[bold]{name}[/bold]')
            row = catalogue[name]
            settings = {key: value for key, value in row.get('training', {}).items()
                        if key in ('epochs', 'max_steps', 'batch_size', 'learning_rate', 'lora_rank', 'seed')}
            heldout = data / name / 'heldout.jsonl'
            last = show(client.training.train(name, str((data / row['samples']).resolve()),
                                              heldout=str(heldout.resolve()), **settings))
            console.print(f'  version {last.version}: {last.artifact_path}')


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(train)
    app.command('build-experts')(build_experts)
