"""Profilers and the debugger that a process may be started under."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from moe_bringup.configuration import ConfigurationError

PROFILES = ('cpu', 'memory', 'line')


@dataclass(frozen=True)
class Instrument:
    """A profiler or the debugger of one process.

    Attributes:
        process: name in the process table.
        profile: one of PROFILES; '' = the debugger.
        port: that debugpy listens on at 127.0.0.1, for a debugger to attach.
    """

    process: str
    profile: str = ''
    port: int = 0

    def prefix(self, home: Path) -> list[str]:
        """Argument vector that stands before the executable."""
        if not self.profile:
            return [sys.executable, '-Xfrozen_modules=off', '-m', 'debugpy', '--listen', f'127.0.0.1:{self.port}',
                    '--wait-for-client']
        name = f'{self.process}-{self.profile}-{time.strftime("%Y%m%d-%H%M%S")}.html'
        return [sys.executable, '-m', 'moe_bringup.profiling', self.profile, str(home / 'profiles' / name)]


def profiler(text: str) -> Instrument:
    """`cpu:router` as an instrument. Raises ConfigurationError."""
    kind, _, process = text.partition(':')
    if kind not in PROFILES or not process:
        raise ConfigurationError(f'profile is {text!r}; it must be KIND:PROCESS, where KIND is one of '
                                 f'{", ".join(PROFILES)}, for example cpu:router.')
    return Instrument(process, profile=kind)


def debugger(text: str) -> Instrument:
    """`router:5678` as an instrument. Raises ConfigurationError."""
    process, _, port = text.partition(':')
    if not process or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(f'debug is {text!r}; it must be PROCESS:PORT, for example router:5678.')
    return Instrument(process, port=int(port))


def instruments(profile: str, debug: str) -> tuple[Instrument, ...]:
    """The wanted instruments; empty texts want none. Raises ConfigurationError."""
    found = [*([profiler(profile)] if profile else []), *([debugger(debug)] if debug else [])]
    if len(found) == 2 and found[0].process == found[1].process:
        raise ConfigurationError(f'{found[0].process} cannot run under a profiler and a debugger at once; choose one.')
    return tuple(found)
