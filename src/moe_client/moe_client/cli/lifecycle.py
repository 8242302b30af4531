"""up, down, status."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from moe_client import suite
from moe_client.cli.output import Json, as_json, console, rows
from moe_client.errors import MoeError


def up(
    simulate: Annotated[bool | None, typer.Option(
        help='Simulated servos, IMU and camera; by default only where no device is found.')] = None,
    detach: Annotated[bool, typer.Option('--detach', '-d', help='Return when the suite is ready.')] = False,
    config: Annotated[Path | None, typer.Option(dir_okay=False, help='One file for all settings; '
                                                'config/moe.example.yaml shows every key.')] = None,
    profile: Annotated[tuple[str, str], typer.Option(
        metavar='KIND PROCESS', help='KIND is cpu, memory or line; the report is in $MOE_HOME/profiles after '
        '`moe down`.')] = ('', ''),
    debug: Annotated[str, typer.Option(metavar='PROCESS:PORT', help='It waits there for a debugger.')] = '',
    log_level: Annotated[str, typer.Option(help='debug, info, warn, error or fatal; default: by the config file, or '
                                           'info.')] = '',
) -> None:
    """Start every node; Ctrl-C stops them in order."""
    if pid := suite.supervisor_pid():
        raise MoeError(f'The suite of {suite.home()} is running already (pid {pid}); `moe down` stops it.')
    if simulate is None:
        simulate = not (list(Path('/dev').glob('ttyUSB*')) + list(Path('/dev').glob('ttyACM*')))
    further = [*(['--config', str(config.absolute())] if config else []),
               *(['--profile', ':'.join(profile)] if any(profile) else []), *(['--debug', debug] if debug else [])]
    supervisor = suite.start(simulate=simulate, log_level=log_level, detach=detach, further=further)
    if not detach:
        raise typer.Exit(_foreground(supervisor))
    from moe_client import Client
    try:
        with Client() as client:
            seconds = suite.wait_until_ready(client, tell=lambda line: console.print(f'  waiting: {line}'))
    except BaseException:  # Ctrl-C too: whoever interrupts the start wants nothing to run; it is raised anew
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


def status(json: Json = False) -> None:
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


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (up, down, status):
        app.command()(verb)
