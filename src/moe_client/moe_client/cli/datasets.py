"""Datasets: validate-dataset, analyze-dataset, prepare-dataset. The training node reads the files."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from moe_client.cli.connection import connect
from moe_client.cli.output import Json, as_json, done, rows, shown, values
from moe_client.cli.plots import histogram

Dataset = Annotated[Path, typer.Argument(metavar='FILE', exists=True, dir_okay=False, help='JSONL file.')]


def validate_dataset(file: Dataset, json: Json = False) -> None:
    """Name every bad row of a dataset; exit code 1 where there is one."""
    with connect() as client:
        result = client.datasets.validate(str(file.absolute()))
    if json:
        as_json(result)
    else:
        print(f'{result["rows"]} rows, {result["bad_rows"]} bad, digest {result["digest"]}')
        if result['bad_rows']:
            rows(('line', 'problem'), list(zip(result['lines'], result['reasons'])))
    if result['bad_rows']:
        raise typer.Exit(1)


def analyze_dataset(
    file: Dataset,
    compared_with: Annotated[Path | None, typer.Option(exists=True, help='File whose rows must not be in it, for '
                                                       'example the held-out part.')] = None,
    plot: Annotated[Path | None, typer.Option(help='PNG to draw.')] = None,
    json: Json = False,
) -> None:
    """Lengths in tokens, duplicates and leakage of a dataset."""
    with connect() as client:
        report = client.datasets.analyze(str(file.absolute()), str(compared_with.absolute()) if compared_with else '',
                                         str(plot.absolute()) if plot else '')
    if json:
        as_json(report)
        return
    lengths = report.pop('lengths', {})
    values(report)
    if not lengths:
        return
    shares = list(next(iter(lengths.values()))['percentiles'])
    rows(('length', 'mean', *(f'p{share}' for share in shares)), [
        (name, shown(found['mean']), *(shown(found['percentiles'][share]) for share in shares))
        for name, found in lengths.items()])
    for name, found in lengths.items():
        histogram(f'rows by {name.replace("_", " ")}', **found['histogram'])


def prepare_dataset(
    files: Annotated[list[Path], typer.Argument(exists=True, metavar='FILES...', help='Files and folders.')],
    domain: Annotated[str, typer.Option(help='Names the dataset.')],
    output: Annotated[Path | None, typer.Option(file_okay=False, help='Default: $MOE_HOME/datasets/DOMAIN.')] = None,
    holdout: Annotated[float, typer.Option(min=0.0, max=0.5, help='Share that is kept for validation.')] = 0.1,
    json: Json = False,
) -> None:
    """Clean files, remove duplicates, split them and write what `moe train` reads."""
    with connect() as client:
        result = client.datasets.prepare(domain, [str(path.absolute()) for path in files],
                                         str(output.absolute()) if output else '', holdout)
    report = jsonlib.loads(result['report'] or '{}')
    done(f'{result["rows"]} rows to train on, {report.get("heldout_rows", 0)} held out, {result["dropped"]} dropped.\n'
         f'train: {result["train"]}\nheldout: {result["heldout"]}', json, **result)
    if not json and result['dropped']:
        values(report.get('reasons', {}))
        rows(('file', 'line', 'reason'), [(row['file'], row['line'], row['reason'])
                                          for row in report.get('problems', ())])


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (validate_dataset, analyze_dataset, prepare_dataset):
        app.command(verb.__name__.replace('_', '-'))(verb)
