"""Entry of `./moe`: set-up on demand, then the installed command, or `exec` and a program of the same environment.

Needs nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from lock import exclusive
from probes import SetupError, sourced_ros
from steps import DEFAULT_DISTRO, Setup
from testing import run_tests


def main() -> int:
    """Set up, then run; every failure is one sentence with its remedy."""
    root = Path(__file__).resolve().parents[1]
    arguments = sys.argv[1:]
    device = option(arguments, '--device', os.environ.get('MOE_DEVICE', 'cpu'))
    if device not in ('cpu', 'cuda'):
        print('moe: --device takes cpu or cuda.', file=sys.stderr)
        return 2
    sourced = sourced_ros()
    distro = option(arguments, '--distro', sourced or DEFAULT_DISTRO)
    if sourced and distro != sourced:
        print(f'moe: ROS 2 {sourced} is sourced and would be used; for another one start from a shell without it.',
              file=sys.stderr)
        return 2
    known = [path.stem.removeprefix('ros-') for path in sorted((root / 'requirements').glob('ros-*.txt'))]
    if not sourced and distro not in known:
        print(f'moe: --distro takes {" or ".join(known)}; any other is used where it is sourced.', file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    testing = arguments[:1] == ['test']
    setup = Setup(root, device, DEFAULT_DISTRO if sourced else distro)
    try:
        with exclusive(setup.workspace / 'log' / 'setup.lock'):
            setup.run(testing)
        environment = setup.environment()
    except SetupError as error:
        print(f'moe: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nmoe: set-up interrupted; the next start goes on where it was.', file=sys.stderr)
        return 130
    if testing:
        try:
            return run_tests(root, setup.workspace, environment, arguments[1:])
        except KeyboardInterrupt:
            return 130
    python = str(setup.venv / 'bin' / 'python')
    if arguments[:1] == ['exec']:  # any program in the environment of the workspace
        return execute(arguments[1:], environment)
    os.execve(python, [python, '-m', 'moe_client', *arguments], environment)


def option(arguments: list[str], name: str, default: str) -> str:
    """Take an option and its value out of the arguments; '' = its value is missing."""
    if name not in arguments:
        return default
    at = arguments.index(name)
    value = arguments[at + 1] if at + 1 < len(arguments) else ''
    del arguments[at:at + 2]
    return value


def execute(line: list[str], environment: dict[str, str]) -> int:
    """Become a program of the workspace's environment, as `./moe exec python benchmarks/demo.py`."""
    if not line:
        print('moe: exec takes a command, for example `./moe exec python benchmarks/demo.py`.', file=sys.stderr)
        return 2
    try:
        os.execvpe(line[0], line, environment)
    except OSError as error:
        print(f'moe: {line[0]} cannot be started: {error.strerror}.', file=sys.stderr)
        return 127


if __name__ == '__main__':
    sys.exit(main())
