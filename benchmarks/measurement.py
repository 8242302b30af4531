"""What every benchmark shares: percentiles, the table a person reads, the JSON file a machine reads."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / 'results'


@dataclass(frozen=True)
class Figure:
    """One measured value beside its limit or peer; `holds` is None where it is only reported."""

    name: str
    value: float
    unit: str
    limit: str = ''
    holds: bool | None = None
    p99: float | None = None


def figure(name: str, values: Sequence[float], unit: str, *, most: float | None = None,
           least: float | None = None) -> Figure:
    """Median and p99 of values against a limit."""
    median, p99 = (float(np.percentile(values, share)) for share in (50, 99))
    limit = f'<= {most:g}' if most is not None else f'>= {least:g}' if least is not None else ''
    holds = median <= most if most is not None else median >= least if least is not None else None
    return Figure(name, median, unit, limit, holds, p99 if len(values) > 1 else None)


def report(name: str, figures: Sequence[Figure], detail: Any = None) -> None:
    """Print the table and write results/NAME.json."""
    width = max((len(row.name) for row in figures), default=0)
    print(f'\n{"":{width}}  {"median":>10}  {"p99":>10}  unit    limit       ')
    for row in figures:
        p99 = '' if row.p99 is None else f'{row.p99:10.3f}'
        verdict = '' if row.holds is None else 'holds' if row.holds else 'MISSED'
        print(f'{row.name:{width}}  {row.value:10.3f}  {p99:>10}  {row.unit:7} {row.limit:11} {verdict}')
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f'{name}.json'
    path.write_text(json.dumps({
        'benchmark': name, 'time': time.strftime('%Y-%m-%dT%H:%M:%S%z'), 'cores': os.cpu_count(),
        'machine': platform.machine(), 'figures': [asdict(row) for row in figures], 'detail': detail}, indent=2))
    print(f'\nWritten to {path}.')
