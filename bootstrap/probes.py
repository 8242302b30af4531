"""What the machine must have, checked before anything is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

NEEDED_BYTES = 6_000_000_000  # the environment, its build and the models


class SetupError(Exception):
    """One sentence: what is wrong, and the remedy."""


def check_machine(root: Path) -> None:
    """Raise SetupError where set-up cannot succeed."""
    if not any(shutil.which(name) for name in ('g++', 'c++', 'clang++')):
        raise SetupError('No C++ compiler found; install one, for example with `sudo apt install g++`.')
    header = Path(sysconfig.get_paths()['include']) / 'Python.h'
    if not header.is_file():
        raise SetupError(f'{header} is missing; install the Python headers, for example with '
                         '`sudo apt install python3-dev`.')
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise SetupError('Python has no venv module; install it with `sudo apt install python3-venv`.') from None
    free = shutil.disk_usage(root).free
    if free < NEEDED_BYTES:
        raise SetupError(f'Only {free / 1e9:.1f} GB are free in {root}; set-up needs {NEEDED_BYTES / 1e9:.0f} GB. '
                         'Make room, or clone the repository to another disk.')
    check_sourced_ros()


def sourced_ros() -> str:
    """Distribution of a sourced ROS 2 with rclpy for this Python, '' = none."""
    distro = os.environ.get('ROS_DISTRO', '')
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    return distro if distro and any(Path(prefix, 'share', 'rclpy').is_dir() for prefix in prefixes if prefix) else ''


def check_sourced_ros() -> None:
    """A sourced ROS 2 must belong to this Python."""
    if not sourced_ros():
        return
    probe = subprocess.run([sys.executable, '-c', 'import rclpy'], capture_output=True, text=True)
    if probe.returncode:
        raise SetupError(f'ROS 2 {sourced_ros()} is sourced, but its rclpy does not load in Python '
                         f'{sys.version_info[0]}.{sys.version_info[1]}; set MOE_PYTHON to the Python of that ROS 2, or '
                         'start from a shell without it.')


def explain(step: str, output: str, log: Path) -> SetupError:
    """Turn a failed step's output into one sentence with its remedy."""
    text = output.lower()
    if 'no space left' in text or 'errno 28' in text:
        return SetupError(f'The disk is full ({step}); make room and start again, it goes on where it was.')
    network = ('temporary failure in name resolution', 'failed to establish a new connection', 'connection refused',
               'network is unreachable', 'newconnectionerror', 'read timed out', 'max retries exceeded')
    if any(sign in text for sign in network):
        return SetupError(f'No network, or the package index does not answer ({step}); connect and start again.')
    useful = [line.strip() for line in output.splitlines() if 'error' in line.lower()]
    reason = useful[-1] if useful else (output.strip().splitlines() or ['no output'])[-1].strip()
    return SetupError(f'{step} failed: {reason[:300]} (all of it: {log})')
