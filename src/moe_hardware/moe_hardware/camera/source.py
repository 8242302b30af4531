"""Where frames come from, and which source a `video_device` names."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

import numpy
from numpy.typing import NDArray

from moe_hardware import device_access
from moe_hardware.errors import HardwareFault

Image = NDArray[numpy.uint8]  # height x width x 3, blue-green-red, contiguous
Jpeg = NDArray[numpy.uint8]  # bytes of a JPEG file

PLUG = 'plug in the camera or set video_device (see ls /dev/video*)'


@dataclass(frozen=True)
class Format:
    """Size and rate of frames, asked for or as they are."""

    width: int  # [pixels]
    height: int  # [pixels]
    rate: float  # [Hz]; 0.0: unknown
    pixel_format: str = ''  # usb_cam's name, e.g. mjpeg2rgb, yuyv2rgb; '' leaves it to the device


class Source(Protocol):
    """A source of frames."""

    live: bool  # frames come at the source's own pace; otherwise the reader sets it

    def open(self) -> Format:
        """Open it anew and return the actual format. Raises HardwareFault with what is wrong and what to do."""

    def wait(self) -> bool:
        """Wait for the next frame, up to a second or two; False when none came. Raises HardwareFault at the end."""

    def image(self) -> Image | None:
        """Return the frame that wait() found, as an array of its own; None when it cannot be decoded."""

    def jpeg(self) -> Jpeg | None:
        """Return the frame that wait() found as the device sent it, where that is a JPEG file; None otherwise."""

    def close(self) -> None:
        """Let go of the source."""


class Kind(Enum):
    """What a `video_device` is."""

    SYNTHETIC = 'drawn scene'
    URL = 'stream'
    PATTERN = 'image sequence'
    DEVICE = 'V4L2 device'
    FILE = 'file'


def kind_of(video_device: str) -> Kind:
    """Tell what a video_device names, by its form and by what is there.

    Raises:
        HardwareFault: it is a folder, or nothing is there.
    """
    if video_device == 'synthetic':
        return Kind.SYNTHETIC
    if re.match(r'[a-z][a-z0-9+.-]+://', video_device):
        return Kind.URL
    path = Path(video_device)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if re.search(r'%0?\d*d', path.name) and path.parent.is_dir():
            return Kind.PATTERN
        raise HardwareFault(device_access.explain(video_device, error, PLUG)) from error
    if stat.S_ISDIR(mode):
        raise HardwareFault(f'{video_device} is a folder; set video_device to a device, a video file, a URL, '
                            f'"synthetic", or a pattern of images such as {video_device.rstrip("/")}/frame_%04d.png.')
    return Kind.DEVICE if stat.S_ISCHR(mode) else Kind.FILE


def expanded(video_device: str) -> str:
    """Return the device behind usb_cam's short forms: '0' is /dev/video0, '~' the home folder."""
    if video_device.isdigit():
        return f'/dev/video{video_device}'
    return os.path.expanduser(video_device) if video_device.startswith('~') else video_device
