"""The running suite of this MOE_HOME: start it, wait for it, stop it, look at it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix

from moe_client.errors import MoeError, Unavailable

if TYPE_CHECKING:
    from moe_client.client import Client


@dataclass(frozen=True)
class ProcessState:
    """A supervised process; pid 0 = it is between two lives."""

    name: str
    pid: int
    restarts: int
    last_exit: int | None

    @property
    def resident_bytes(self) -> int:
        """Resident memory of the process and its children [bytes], shared pages counted once (PSS)."""
        total = 0
        for pid in self.family():
            with contextlib.suppress(OSError, ValueError, IndexError):
                for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines():
                    if line.startswith('Pss:'):
                        total += int(line.split()[1]) * 1024
        return total

    def family(self) -> list[int]:
        """Pids of the process and all its descendants."""
        found, open_pids = [], [self.pid] if self.pid else []
        while open_pids:
            pid = open_pids.pop()
            found.append(pid)
            for task in Path(f'/proc/{pid}/task').glob('*/children'):
                with contextlib.suppress(OSError):
                    open_pids += [int(child) for child in task.read_text().split()]
        return found


def home() -> Path:
    """MOE_HOME, by default ~/.local/share/moe."""
    return Path(os.environ.get('MOE_HOME') or '~/.local/share/moe').expanduser().absolute()


def supervisor_pid() -> int:
    """Pid of the supervisor that runs this MOE_HOME; 0 = nothing runs."""
    try:
        pid = int(json.loads((home() / 'run' / 'supervisor.json').read_text())['pid'])
        os.kill(pid, 0)
    except (OSError, ValueError, KeyError):
        return 0
    return pid


def processes() -> list[ProcessState]:
    """The supervised processes; [] = nothing runs."""
    if not supervisor_pid():
        return []
    try:
        state = json.loads((home() / 'run' / 'supervisor.json').read_text())
    except (OSError, ValueError):
        return []
    return [ProcessState(**row) for row in state['processes']]


def program(package: str, name: str) -> Path:
    """An executable of a package of the suite; raises MoeError where it is not installed."""
    try:
        path = Path(get_package_prefix(package)) / 'lib' / package / name
    except PackageNotFoundError:
        path = Path(name)
    if not path.is_file():
        raise MoeError(f'{name} is not installed; {package} brings it: run `./moe` at the top of the repository, or '
                       'source install/setup.bash.')
    return path


def start(*, simulate: bool = True, quiet: bool = False, log_level: str = '',
          detach: bool = False, further: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start the supervisor, with further arguments of its own; with `detach` it outlives this process.

    Raises MoeError with its sentence where it refuses its settings.
    """
    line = [str(program('moe_bringup', 'supervisor')),
            '--simulate' if simulate else '--no-simulate', *further]
    if log_level:
        line += ['--log-level', log_level]
    if quiet:
        line.append('--quiet')
    if not detach:
        return subprocess.Popen(line, stdin=subprocess.DEVNULL, start_new_session=True)
    (home() / 'logs').mkdir(parents=True, exist_ok=True)
    path = home() / 'logs' / 'supervisor.log'
    with path.open('ab') as log:
        supervisor = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    while supervisor_pid() != supervisor.pid:
        if supervisor.poll() is not None:
            raise MoeError((path.read_text(errors='replace').splitlines() or ['The supervisor ended.'])[-1])
        time.sleep(0.02)
    return supervisor


def training_defaults() -> dict[str, Any]:
    """Options of `moe train` that the configuration file of the running suite sets."""
    try:
        return dict(json.loads((home() / 'run' / 'training.json').read_text()))
    except (OSError, ValueError):
        return {}


def stop(timeout_s: float = 100.0) -> bool:
    """Stop the suite in order, reports of profilers included; False when nothing ran.

    Raises MoeError when it does not end in time.
    """
    pid = supervisor_pid()
    if not pid:
        return False
    os.kill(pid, signal.SIGTERM)
    give_up = time.monotonic() + timeout_s
    while supervisor_pid() == pid:
        if time.monotonic() > give_up:
            raise MoeError(f'The supervisor (pid {pid}) did not stop within {timeout_s:.0f} s; see `moe logs`.')
        time.sleep(0.05)
    return True


def wait_until_ready(client: Client, timeout_s: float = 120.0, tell: Callable[[str], None] = lambda _line: None,
                     joints: bool = False) -> float:
    """Wait until the registry answers and the router routes, which needs an expert that can answer; returns seconds.

    With `joints` the servos must report their positions as well. Raises Unavailable with what is missing.
    """
    begin = time.monotonic()
    missing = ''
    while time.monotonic() - begin < timeout_s:
        now = _missing(client, joints)
        if not now:
            return time.monotonic() - begin
        if now != missing:
            missing = now
            tell(now)
        time.sleep(0.2)
    raise Unavailable(f'The suite is not ready after {timeout_s:.0f} s: {missing}; see `moe logs`.')


def _missing(client: Client, joints: bool) -> str:
    try:
        client.experts.list()  # the router alone may route by the table that it knew last
        client.router.route('Are you ready?')
        if joints:
            client.robot.joints()
    except MoeError as error:
        return str(error)
    return ''


@contextlib.contextmanager
def running(*, simulate: bool = True) -> Iterator[bool]:
    """The suite for the time of a with block; yields True when it was started here and is stopped at the end."""
    if supervisor_pid():
        yield False
        return
    supervisor = start(simulate=simulate, quiet=True, detach=True)
    try:
        yield True
    finally:
        if supervisor.poll() is None:
            supervisor.send_signal(signal.SIGTERM)
        supervisor.wait()
