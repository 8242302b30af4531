"""logs: what every process said."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from moe_client import suite
from moe_client.errors import MoeError

POLL_S = 0.2


def logs(
    names: Annotated[list[str] | None, typer.Argument(help='Processes; none = all.')] = None,
    follow: Annotated[bool, typer.Option('--follow', '-f', help='Go on as lines arrive.')] = False,
    lines: Annotated[int, typer.Option('--lines', '-n', help='Last lines of each to begin with.')] = 20,
) -> None:
    """Show the logs of $MOE_HOME/logs."""
    folder = suite.home() / 'logs'
    files = sorted(path for path in folder.glob('*.log') if (path.stem in names if names else path.stem != 'app'))
    if not files:
        raise MoeError(f'No log in {folder}' + (f' for {", ".join(names)}.' if names else '.'))
    tail(files, lines, follow)


def tail(files: list[Path], lines: int, follow: bool, prefix: bool = True) -> None:
    """Print the last lines of files and, with `follow`, those that come."""
    def say(path: Path, text: str) -> None:
        for line in text.splitlines():
            print(f'[{path.stem}] {line}' if prefix else line, flush=follow)

    positions: dict[Path, int] = {}
    for path in files:
        text = path.read_text(errors='replace')
        positions[path] = path.stat().st_size
        say(path, '\n'.join(text.splitlines()[-lines:]))
    while follow:
        time.sleep(POLL_S)
        for path in files:
            if path.stat().st_size < positions[path]:  # rotated
                positions[path] = 0
            with path.open(errors='replace') as log:
                log.seek(positions[path])
                say(path, log.read())
                positions[path] = log.tell()


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(logs)
