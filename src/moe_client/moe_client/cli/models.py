"""Model files: quantize, convert-to-gguf, benchmark-expert."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from moe_client import suite
from moe_client.cli import plots
from moe_client.cli.connection import connect
from moe_client.cli.experts import Expert
from moe_client.cli.output import Json, as_json, done, follow, metrics_line, rows
from moe_client.errors import ExpertNotReady


def quantize(
    expert: Expert,
    to: Annotated[str, typer.Argument(metavar='[QUANTIZATION]', show_default=False,
                                      help='The same as --quantization.')] = '',
    quantization: Annotated[str, typer.Option('--quantization', '-q', help='Q8_0 (Q8), Q4_0 (Q4), Q4_K_M, ...; best = '
                                              'the fastest that answers as well.')] = 'best',
    version: Annotated[int, typer.Option(min=0, help='0 = the one that is served.')] = 0,
    max_perplexity_ratio: Annotated[float, typer.Option(help='Refuse what is worse than this.')] = 1.02,
    promote: Annotated[bool, typer.Option(help='Serve it.')] = False,
    json: Json = False,
) -> None:
    """Make a version of an expert in another number format; one that answers worse is refused."""
    with connect() as client:
        result = follow(client.experts.quantize(expert, to or quantization, promote=promote, version=version,
                                                max_perplexity_ratio=max_perplexity_ratio), json)
    done(f'Version {result.get("version")} is in {result.get("quantization")}: {metrics_line(result)}', json, **result)


def convert_to_gguf(
    source: Annotated[str, typer.Argument(metavar='SOURCE', help='Hugging Face folder, adapter folder, or the id or '
                                          'name of an expert.')],
    quantization: Annotated[str, typer.Option('--quantization', '-q', help='llama.cpp\'s name.')] = 'F16',
    output: Annotated[Path | None, typer.Option(help='File to write; default: $MOE_HOME/exports/NAME.gguf.')] = None,
    base: Annotated[Path | None, typer.Option(exists=True, help='For an adapter: folder of its base.')] = None,
    check: Annotated[bool, typer.Option(help='Refuse a file that does not answer as the source does.')] = True,
    json: Json = False,
) -> None:
    """Write a model as a GGUF file, for llama.cpp or any program that reads it."""
    folder = Path(source)
    with connect() as client:
        name = folder.name
        if not folder.exists():
            row = client.experts.get(source)
            served = next((each for each in row.versions if each['version'] == row.champion_version), None)
            if served is None:
                raise ExpertNotReady(f'{row.name} has no version that is served; `moe train` makes one.')
            folder, name = Path(served['artifact']), f'expert_{row.id}'
        target = (output or suite.home() / 'exports' / f'{name}.gguf').absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        result = follow(client.experts.convert(str(folder.absolute()), str(target), quantization,
                                               base=str(base.absolute()) if base else '', parity_check=check), json)
    done(f'{result.get("path")}: {result.get("quantization")}, {result.get("size_bytes")} bytes', json, **result)


def benchmark_expert(
    expert: Expert,
    streams: Annotated[list[int] | None, typer.Option(min=1, help='Simultaneous callers; may be given again. '
                                                      'Default: 1, 2, 4, 8.')] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1)] = 64,
    max_tokens: Annotated[int, typer.Option(min=1)] = 64,
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    heldout: Annotated[Path | None, typer.Option(exists=True, help='JSONL file to score it on.')] = None,
    plot: Annotated[Path | None, typer.Option(dir_okay=False, help='PNG to draw.')] = None,
    json: Json = False,
) -> None:
    """Measure an expert: tokens per second at several loads, memory, score; and what that means."""
    with connect() as client:
        result = follow(client.experts.benchmark(
            expert, streams=streams or [], prompt_tokens=prompt_tokens, max_tokens=max_tokens, repeats=repeats,
            heldout=str(heldout.absolute()) if heldout else ''), json)
    report = jsonlib.loads(result.get('report') or '{}')
    if plot and report:
        plots.write_speeds(report, plot)
    if json:
        as_json({**result, 'report': report})
        return
    rows(('metric', 'value'), [(row['name'], row['value']) for row in result.get('metrics', ())])
    plots.curves('tokens/s of all together', plots.speeds(report.get('loads', ())), 'callers at once')
    print(result.get('verdict', ''))


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (quantize, convert_to_gguf, benchmark_expert):
        app.command(verb.__name__.replace('_', '-'))(verb)
