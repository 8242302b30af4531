"""What a person sees: tables on a terminal, plain untruncated rows in a pipe, JSON on demand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

console = Console(highlight=False, soft_wrap=True)


def fail(sentence: str) -> int:
    """Print an error on standard error; returns the exit code."""
    print(f'moe: {sentence}', file=sys.stderr)
    return 1


def rows(columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Print rows: a table on a terminal, tab-separated text elsewhere."""
    if console.is_terminal:
        table = Table(*columns, box=None, header_style='bold')
        for line in lines:
            table.add_row(*(str(value) for value in line))
        console.print(table)
        return
    print('\t'.join(columns))
    for line in lines:
        print('\t'.join(str(value) for value in line))


def as_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=vars))
