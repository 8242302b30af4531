"""What a person sees: tables on a terminal, plain untruncated rows in a pipe, JSON on demand."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from moe_client.transport import Event, Values

console = Console(highlight=False, soft_wrap=True)
Json = Annotated[bool, typer.Option('--json', help='Print the result as JSON.')]


def fail(sentence: str) -> int:
    """Print an error on standard error; returns the exit code."""
    print(f'moe: {sentence}', file=sys.stderr)
    return 1


def rows(columns: Sequence[str], lines: Iterable[Sequence[Any]], json: bool = False) -> None:
    """Print rows: a table on a terminal, tab-separated text elsewhere, a list of objects with `json`."""
    if json:
        as_json([dict(zip(columns, line)) for line in lines])
        return
    if console.is_terminal:
        table = Table(*columns, box=None, header_style='bold')
        for line in lines:
            table.add_row(*(str(value) for value in line))
        console.print(table)
        return
    print('\t'.join(columns))
    for line in lines:
        print('\t'.join(str(value) for value in line))


def values(pairs: Mapping[str, Any], json: bool = False) -> None:
    """Print one "key: value" a line; lists and objects as JSON in their line."""
    if json:
        as_json(pairs)
        return
    for key, value in pairs.items():
        print(f'{key}: {shown(value)}')


def shown(value: Any) -> str:
    """A value for people: numbers to six digits, lists and objects as JSON."""
    if isinstance(value, float):
        return f'{value:.6g}'
    return json_text(value, None) if isinstance(value, (dict, list)) else str(value)


def done(sentence: str, json: bool = False, **facts: Any) -> None:
    """Say that something was done; with `json` its facts alone."""
    if json:
        as_json(facts)
    else:
        print(sentence)


def as_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json_text(value, 2))


def json_text(value: Any, indent: int | None) -> str:
    """A value as JSON; NaN, which JSON does not know, as null."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, default=lambda other: _finite(vars(other)))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value


def rate(tokens_per_second: float) -> str:
    """How fast an answer was decoded; one that came in one step has no rate."""
    return f'{tokens_per_second:.0f} tokens/s' if tokens_per_second else 'all at once'


def local_time(seconds: float) -> str:
    """A time for people; '-' = not yet."""
    return time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds)) if seconds else '-'


def follow(events: Iterable[Event], quiet: bool = False) -> Values:
    """Show the progress of an action: a bar on a terminal, a line each phase elsewhere; returns the result."""
    result: Values = {}
    with Progress(TextColumn('{task.description}'), BarColumn(), TextColumn('{task.percentage:3.0f} %'),
                  TimeElapsedColumn(), console=console, transient=True,
                  disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task('', total=1.0)
        told = ''
        for event in _watched(events):
            if event.kind == 'result':
                result = event.data
                continue
            phase = str(event.data.get('phase', ''))
            bar.update(task, description=phase, completed=float(event.data.get('progress') or 0.0))
            if phase != told and not quiet and not console.is_terminal:
                told = phase
                print(f'  {phase}', flush=True)
    return result


def _watched(events: Iterable[Event]) -> Iterator[Event]:
    """The events; what makes them is closed, and so cancelled, when nobody goes on reading."""
    try:
        yield from events
    finally:
        if hasattr(events, 'close'):
            events.close()


def metrics_line(result: Values) -> str:
    """The metrics of a result in a line."""
    return ', '.join(f'{row["name"]} {row["value"]:.4g}' for row in result.get('metrics', ())
                     if row['value'] is not None)
