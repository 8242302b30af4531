"""Why a device file cannot be used, in words that say what to do."""

from __future__ import annotations

import contextlib
import errno
import getpass
import grp
import os
from pathlib import Path


def explain(path: str, error: Exception, plug: str) -> str:
    """Return one sentence for a failed open: absent, busy, permission denied (which group), or as the system says.

    Args:
        path: device as the user named it, symlinks included.
        error: what open raised; pyserial's carry errno or only a text.
        plug: what to plug in and which parameter names it, e.g. 'plug in the IMU or set port_name'.
    """
    number = getattr(error, 'errno', None)
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO) or not os.path.exists(path):
        dangling = f' (it leads to {os.path.realpath(path)})' if os.path.islink(path) else ''
        return f'{path} does not exist{dangling}; {plug}.'
    if number in (errno.EACCES, errno.EPERM):
        return f'No permission for {path}; {_remedy(path)}.'
    if number in (errno.EBUSY, errno.EAGAIN) or 'exclusively lock' in str(error):
        return busy(path)
    if number == errno.EISDIR or os.path.isdir(path):
        return f'{path} is a folder, not a device; {plug}.'
    return f'{path} cannot be opened ({error}); {plug}.'


def busy(path: str) -> str:
    """Return the sentence for a device that another process uses, naming it where /proc shows it."""
    found = holder(path)
    who = f'process {found[0]} ({found[1]})' if found else 'another process'
    return f'{path} is busy: {who} has it open; stop it, this node then takes the device by itself.'


def holder(path: str) -> tuple[int, str] | None:
    """Return pid and name of another process that has path open; None when none is visible to this user."""
    target = os.path.realpath(path)
    for process in Path('/proc').iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it ended, or belongs to somebody else
            for descriptor in (process / 'fd').iterdir():
                if os.readlink(descriptor) == target:
                    return int(process.name), (process / 'comm').read_text(encoding='utf-8').strip()
    return None


def _remedy(path: str) -> str:
    """Say how this user gets the permission: by the group that owns the device, or not by a group."""
    try:
        status = os.stat(path)
    except OSError:
        return 'make the folders above it accessible'
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    if group == 'root' or not status.st_mode & 0o060:
        return f'its group {group} has no access either: add a udev rule that gives it to dialout or video'
    return f'run `sudo usermod -aG {group} {getpass.getuser()}` and log in again'
