"""check_devices: which serial ports, cameras and I2C buses there are, and whether this user can work with them."""

from __future__ import annotations

import argparse
import fcntl
import getpass
import grp
import json
import os
import struct
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from serial.tools import list_ports

from moe_hardware import device_access

GROUPS = ('dialout', 'video', 'i2c')
_VIDIOC_QUERYCAP, _CAPTURE, _DEVICE_CAPS = 0x80685600, 0x1, 0x80000000  # linux/videodev2.h


@dataclass(frozen=True)
class DeviceState:
    """One device.

    Args:
        kind: 'serial', 'camera' or 'i2c'.
        path: /dev/...
        stable: name that stays, e.g. below /dev/serial/by-id; '' without one.
        description: what it says it is.
        usb_mbps: speed of its USB connection [Mbit/s]; 0 = not on USB or not known.
        latency_ms: how long an FTDI adapter holds answers back [ms]; 0 = not such an adapter.
        problem: why it cannot be used and what to do, '' = it can.
        holder_pid: process that has it open; 0 = none that this user can see.
    """

    kind: str
    path: str
    stable: str
    description: str
    usb_mbps: float = 0.0
    latency_ms: int = 0
    problem: str = ''
    holder_pid: int = 0


def serial_ports() -> list[DeviceState]:
    """Serial ports that are more than a number."""
    found = []
    for port in sorted(list_ports.comports()):
        if port.hwid == 'n/a':
            continue
        node = Path('/sys/class/tty') / Path(port.device).name / 'device'
        latency = _number(node / 'latency_timer')
        problem, holder = _problem(port.device)
        if not problem and latency > 2:
            problem = (f'Its latency timer is {latency:.0f} ms, so a servo answers that much later; see the udev rule '
                       'in docs/hardware.md.')
        found.append(DeviceState('serial', port.device, _stable(port.device, '/dev/serial/by-id'), port.description,
                                 _usb_speed(node), int(latency), problem, holder))
    return found


def cameras() -> list[DeviceState]:
    """V4L2 devices that capture."""
    found = []
    for path in sorted(Path('/dev').glob('video[0-9]*')):
        node = Path('/sys/class/video4linux') / path.name
        name = (node / 'name').read_text().strip() if (node / 'name').exists() else ''
        problem, holder = _problem(str(path))
        if not problem and not _captures(path):
            continue  # the metadata device of a camera
        speed = _usb_speed(node / 'device')
        if not problem and 0.0 < speed < 480.0:
            problem = f'It is connected at {speed:g} Mbit/s, too little for video; use another port or cable.'
        found.append(DeviceState('camera', str(path), _stable(str(path), '/dev/v4l/by-id'), name, speed, 0, problem,
                                 holder))
    return found


def i2c_buses() -> list[DeviceState]:
    """I2C buses."""
    found = []
    for path in sorted(Path('/dev').glob('i2c-[0-9]*')):
        problem, holder = _problem(str(path))
        found.append(DeviceState('i2c', str(path), '', '', problem=problem, holder_pid=holder))
    return found


def memberships() -> dict[str, bool]:
    """Whether this user is in the groups that own such devices, those that the system has."""
    mine = set(os.getgroups()) | {os.getegid()}
    found = {}
    for name in GROUPS:
        try:
            found[name] = grp.getgrnam(name).gr_gid in mine
        except KeyError:
            continue
    return found


def _problem(path: str) -> tuple[str, int]:
    """Return why a device cannot be used, and the process that has it open."""
    if found := device_access.holder(path):
        return f'Process {found[0]} ({found[1]}) has it open.', found[0]
    if os.access(path, os.R_OK | os.W_OK):
        return '', 0
    return device_access.explain(path, PermissionError(13, 'Permission denied'), ''), 0


def _captures(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return True
    answer = bytearray(104)
    try:
        fcntl.ioctl(descriptor, _VIDIOC_QUERYCAP, answer)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    capabilities, of_this = struct.unpack_from('<II', answer, 84)
    return bool((of_this if capabilities & _DEVICE_CAPS else capabilities) & _CAPTURE)


def _stable(path: str, folder: str) -> str:
    return next((str(link) for link in sorted(Path(folder).glob('*')) if os.path.realpath(link) == path), '')


def _usb_speed(node: Path) -> float:
    """Speed of the USB device that a sysfs node belongs to [Mbit/s]; 0 when it belongs to none."""
    resolved = node.resolve()
    return next((_number(folder / 'speed') for folder in (resolved, *resolved.parents) if (folder / 'speed').exists()),
                0.0)


def _number(path: Path) -> float:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return 0.0


def main(arguments: list[str] | None = None) -> int:
    """Print what is there; 1 when something cannot be used, 0 otherwise."""
    parser = argparse.ArgumentParser(prog='check_devices', description=__doc__)
    parser.add_argument('--json', action='store_true', help='for a program')
    options = parser.parse_args(arguments)
    devices, groups = [*serial_ports(), *cameras(), *i2c_buses()], memberships()
    if options.json:
        print(json.dumps({'devices': [asdict(one) for one in devices], 'groups': groups}, indent=2))
    else:
        for one in devices:
            speed = f', USB {one.usb_mbps:g} Mbit/s' if one.usb_mbps else ''
            print(f'{one.kind:7} {one.stable or one.path}  {one.description}{speed}')
            if one.problem:
                print(f'        {one.problem}')
        for kind, remedy in (('serial', 'plug in the USB adapter of the servos or of the IMU'),
                             ('camera', 'plug in a camera')):
            if not any(one.kind == kind for one in devices):
                print(f'{kind:7} none found; {remedy}, or go on with simulators (moe up --simulate)')
        for name, member in groups.items():
            if not member and os.geteuid():
                print(f'group   you are not in {name}: run `sudo usermod -aG {name} {getpass.getuser()}`, log in again')
    return int(any(one.problem for one in devices))


if __name__ == '__main__':
    sys.exit(main())
