"""check, report, bench."""

from __future__ import annotations

import subprocess
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rich.markup import escape

from moe_client.cli.output import Json, as_json, console, done
from moe_client.doctor import findings
from moe_client.errors import InvalidRequest
from moe_client.report import write_report

STYLES = {'ok': 'green', 'note': 'yellow', 'wrong': 'bold red'}


class Area(StrEnum):
    """What can be looked at."""

    ALL = 'all'
    DEVICES = 'devices'


def check(
    what: Annotated[Area, typer.Argument(
        help='devices: serial ports, cameras and I2C buses, USB speed, and the groups that may use them.')] = Area.ALL,
    json: Json = False,
) -> None:
    """Look at this machine and say, line by line, what is right or what to do; exit code 1 where something is wrong."""
    found = []
    for row in findings(devices_only=what == Area.DEVICES):
        found.append(row)
        if not json:
            if console.is_terminal:
                console.print(f'[{STYLES[row.state]}]{row.state:5}[/] {row.name}: {escape(row.found)}')
                if row.remedy:
                    console.print(f'      [dim]{escape(row.remedy)}[/]')
            else:
                print(row.state, row.name, row.found, row.remedy, sep='\t')
    if json:
        as_json(found)
    if any(row.state == 'wrong' for row in found):
        raise typer.Exit(1)


def report(
    output: Annotated[Path | None, typer.Option(help='Default: moe-report-TIME.tar.gz here.')] = None,
    json: Json = False,
) -> None:
    """Bundle versions, findings and logs for a bug report; keys and passwords are removed."""
    path = (output or Path(time.strftime('moe-report-%Y%m%d-%H%M%S.tar.gz'))).absolute()
    parts = write_report(path)
    done(f'{path} holds {len(parts)} files; look through it before you send it.', json, path=str(path), parts=parts)


def bench(
    names: Annotated[list[str] | None, typer.Argument(help='Benchmarks; none = all.')] = None,
    list_only: Annotated[bool, typer.Option('--list', help='Show which there are.')] = False,
    json: Json = False,
) -> None:
    """Run the benchmarks one after another; each prints its figures beside their limits."""
    programs = {path.stem: path for path in sorted(_folder().glob('*.py'))
                if "if __name__ == '__main__'" in path.read_text()}
    if list_only:
        if json:
            as_json(list(programs))
        else:
            print('\n'.join(programs))
        return
    if unknown := [name for name in names or () if name not in programs]:
        raise InvalidRequest(f'There is no benchmark {unknown[0]!r}; there are {", ".join(programs)}.')
    results = {}
    for name in names or programs:
        console.print(f'[bold]{name}[/bold]' if not json else '', end='\n' if not json else '')
        results[name] = subprocess.run([sys.executable, str(programs[name])], stdout=sys.stderr if json else None
                                       ).returncode
    if json:
        as_json(results)
    if any(results.values()):
        raise typer.Exit(1)


def _folder() -> Path:
    """The repository's benchmarks/; install/ links to its data."""
    try:
        share = Path(get_package_share_directory('moe_bringup'))
    except PackageNotFoundError:
        share = Path()
    folder = (share / 'data' / 'experts.yaml').resolve().parents[1] / 'benchmarks'
    if not folder.is_dir():
        raise InvalidRequest('The benchmarks are in the repository, which is not where this was installed from; run '
                             '`./moe bench` there.')
    return folder


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (check, report, bench):
        app.command()(verb)
