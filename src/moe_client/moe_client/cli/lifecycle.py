"""up, down, status, logs."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from moe_client import suite
from moe_client.cli.output import as_json, console, rows
from moe_client.errors import MoeError


def up(
    simulate: Annotated[bool | None, typer.Option(
        help='Simulated servos, IMU and camera; by default only where no device is found.')] = None,
    detach: Annotated[bool, typer.Option('--detach', '-d', help='Return when the suite is ready.')] = False,
    log_level: Annotated[str, typer.Option(help='debug, info, warn, error or fatal.')] = 'info',
) -> None:
    """Start every node; Ctrl-C stops them in order."""
    if pid := suite.supervisor_pid():
        raise MoeError(f'The suite of {suite.home()} is running already (pid {pid}); `moe down` stops it.')
    if simulate is None:
        simulate = not (list(Path('/dev').glob('ttyUSB*')) + list(Path('/dev').glob('ttyACM*')))
    supervisor = suite.start(simulate=simulate, log_level=log_level, detach=detach)
    if not detach:
        raise typer.Exit(_foreground(supervisor))
    from moe_client import Client
    try:
        with Client() as client:
            seconds = suite.wait_until_ready(client, tell=lambda line: console.print(f'  waiting: {line}'))
    except BaseException:
        # Whoever interrupts the start wants nothing to run.
        supervisor.send_signal(signal.SIGTERM)
        supervisor.wait()
        raise
    console.print(f'The suite is ready after {seconds:.1f} s. `moe ask "..."` asks it, `moe down` stops it.')


def _foreground(supervisor: subprocess.Popen[bytes]) -> int:
    """Pass signals on until the supervisor has stopped everything."""
    def on_signal(_number: int, _frame: FrameType | None) -> None:
        supervisor.send_signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    return supervisor.wait()


def down() -> None:
    """Stop every node, servos first."""
    console.print('Stopped.' if suite.stop() else f'Nothing runs in {suite.home()}.')


def status(json: Annotated[bool, typer.Option('--json')] = False) -> None:
    """Show the processes with their memory; exit code 1 when one is down or nothing runs."""
    table = suite.processes()
    if json:
        as_json([{'name': row.name, 'pid': row.pid, 'restarts': row.restarts, 'last_exit': row.last_exit,
                  'memory_bytes': row.resident_bytes} for row in table])
    elif table:
        rows(('process', 'state', 'pid', 'restarts', 'MB'),
             [(row.name, 'up' if row.pid else 'down', row.pid, row.restarts, round(row.resident_bytes / 1e6))
              for row in table])
    else:
        console.print(f'Nothing runs in {suite.home()}; `moe up` starts the suite.')
    if not table or not all(row.pid for row in table):
        raise typer.Exit(1)


def logs(
    names: Annotated[list[str] | None, typer.Argument(help='Processes; none = all.')] = None,
    follow: Annotated[bool, typer.Option('--follow', '-f', help='Go on as lines arrive.')] = False,
    lines: Annotated[int, typer.Option('--lines', '-n', help='Last lines of each to begin with.')] = 20,
) -> None:
    """Show the logs of $MOE_HOME/logs."""
    folder = suite.home() / 'logs'
    files = sorted(path for path in folder.glob('*.log') if not names or path.stem in names)
    if not files:
        raise MoeError(f'No log in {folder}' + (f' for {", ".join(names)}.' if names else '.'))
    positions: dict[Path, int] = {}
    for path in files:
        text = path.read_text(errors='replace')
        positions[path] = path.stat().st_size
        for line in text.splitlines()[-lines:]:
            print(f'[{path.stem}] {line}')
    while follow:
        time.sleep(0.2)
        for path in files:
            with path.open(errors='replace') as log:
                log.seek(positions[path])
                for line in log.read().splitlines():
                    print(f'[{path.stem}] {line}', flush=True)
                positions[path] = log.tell()


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (up, down, status, logs):
        app.command()(verb)
