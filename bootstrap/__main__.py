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
from probes import SetupError
from steps import Setup
from testing import run_tests


def main() -> int:
    """Set up, then run; every failure is one sentence with its remedy."""
    root = Path(__file__).resolve().parents[1]
    arguments = sys.argv[1:]
    device = os.environ.get('MOE_DEVICE', 'cpu')
    if '--device' in arguments:
        at = arguments.index('--device')
        device = arguments[at + 1] if at + 1 < len(arguments) else ''
        del arguments[at:at + 2]
    if device not in ('cpu', 'cuda'):
        print('moe: --device takes cpu or cuda.', file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    testing = arguments[:1] == ['test']
    setup = Setup(root, device)
    try:
        with exclusive(root / 'log' / 'setup.lock'):
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
            return run_tests(root, environment, arguments[1:])
        except KeyboardInterrupt:
            return 130
    python = str(root / '.venv' / 'bin' / 'python')
    if arguments[:1] == ['exec']:  # any program in the environment of the workspace
        return execute(arguments[1:], environment)
    os.execve(python, [python, '-m', 'moe_client', *arguments], environment)


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
