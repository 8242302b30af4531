"""Frames by OpenCV: V4L2 devices, video files, image sequences and URLs."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Any

import numpy

from moe_hardware import device_access
from moe_hardware.camera.opencv import cv2
from moe_hardware.camera.source import PLUG, Format, Image, Jpeg, Kind
from moe_hardware.errors import HardwareFault

_VIDIOC_QUERYCAP = 0x80685600  # linux/videodev2.h
_FOURCC = {'mjpeg': 'MJPG', 'mjpg': 'MJPG', 'yuyv': 'YUYV', 'yuv422': 'YUYV', 'uyvy': 'UYVY', 'm420': 'M420',
           'nv12': 'NV12', 'mono8': 'GREY', 'grey': 'GREY', 'rgb8': 'RGB3', 'h264': 'H264'}
_LONGEST_OPEN_MS = 5000
_JPEG_BEGIN = (0xFF, 0xD8)


class DeviceSource:
    """A V4L2 camera.

    Args:
        path: device or symlink such as /dev/v4l/by-id/..., followed anew at each open().
        wanted: format to ask the driver for; it may give another.
    """

    live = True

    def __init__(self, path: str, wanted: Format) -> None:
        self._path, self._wanted = path, wanted
        self._capture: Any = None
        self._passes = False  # frames come as the JPEG files that the camera makes

    def open(self) -> Format:
        """Open the camera. Raises HardwareFault: absent, busy, no permission, no camera."""
        _require_camera(self._path)
        self._capture = cv2.VideoCapture(os.path.realpath(self._path), cv2.CAP_V4L2)
        if not self._capture.isOpened():
            if device_access.holder(self._path):
                raise HardwareFault(device_access.busy(self._path))
            raise HardwareFault(f'{self._path} does not stream to OpenCV; it may be the metadata device of a camera, '
                                'try the other /dev/video* of it.')
        # set() returns True even when the driver refuses: only reading back tells.
        for name, fourcc in _FOURCC.items():
            if self._wanted.pixel_format.startswith((name, f'raw_{name}')):
                self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc))
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._wanted.width)
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._wanted.height)
        self._capture.set(cv2.CAP_PROP_FPS, self._wanted.rate)
        actual = _actual(self._capture)
        self._passes = actual.pixel_format == 'MJPG' and bool(self._capture.set(cv2.CAP_PROP_CONVERT_RGB, 0))
        return actual

    def wait(self) -> bool:
        """Wait for a frame, a second at most. Raises HardwareFault when the camera was unplugged."""
        if self._capture.grab():
            return True
        if not os.path.exists(self._path):
            raise HardwareFault(f'{self._path} was unplugged; plug the camera in again.')
        return False

    def image(self) -> Image | None:
        """Decode the frame."""
        return _retrieve(self._capture, self._passes)

    def jpeg(self) -> Jpeg | None:
        """Return the frame undecoded, where it is a JPEG file."""
        return _raw(self._capture) if self._passes else None

    def close(self) -> None:
        """Give the camera back."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


class RecordingSource:
    """A video file, a pattern of images, or a stream.

    Args:
        name: path, pattern such as frame_%04d.png, or URL.
        kind: of Kind.
        loop: begin again at the end of a file or sequence.
        timeout_s: how long a stream may keep a reader waiting [s].
    """

    def __init__(self, name: str, kind: Kind, loop: bool, timeout_s: float) -> None:
        self.live = kind == Kind.URL
        self._name, self._kind, self._loop, self._timeout_s = name, kind, loop, timeout_s
        self._capture: Any = None
        self._passes = False  # frames come as the JPEG files of the recording
        self._count = 0

    def open(self) -> Format:
        """Open it from its beginning. Raises HardwareFault when it is no video."""
        if self._kind == Kind.URL:
            self._capture = cv2.VideoCapture(self._name, cv2.CAP_FFMPEG, [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _LONGEST_OPEN_MS,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(1000 * self._timeout_s)])
        else:
            self._capture = cv2.VideoCapture(self._name, cv2.CAP_IMAGES if self._kind == Kind.PATTERN else cv2.CAP_ANY)
        self._count = 0
        if not self._capture.isOpened():
            raise HardwareFault(self._refusal())
        actual = _actual(self._capture)
        self._passes = (actual.pixel_format == 'MJPG' and self._kind != Kind.PATTERN
                        and bool(self._capture.set(cv2.CAP_PROP_FORMAT, -1)))
        return actual

    def wait(self) -> bool:
        """Go to the next frame. Raises HardwareFault at the end, unless it loops."""
        if not self._capture.grab():
            if self._kind == Kind.URL:
                raise HardwareFault(f'{self._name} ended or stalled for {self._timeout_s:.0f} s; it is opened again, '
                                    'check its sender.')
            if not self._count:
                raise HardwareFault(f'{self._name} holds no frame that OpenCV can decode; set video_device to '
                                    'another.')
            if not self._loop:
                raise RecordingEnded(f'{self._name} has ended after {self._count} frames; set loop, or video_device '
                                     'to another.')
            self.close()
            self.open()
            if not self._capture.grab():
                return False
        self._count += 1
        return True

    def image(self) -> Image | None:
        """Decode the frame."""
        return _retrieve(self._capture, self._passes)

    def jpeg(self) -> Jpeg | None:
        """Return the frame undecoded, where it is a JPEG file."""
        return _raw(self._capture) if self._passes else None

    def close(self) -> None:
        """Close it."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _refusal(self) -> str:
        if self._kind == Kind.URL:
            return f'{self._name} cannot be opened; check the address and that its sender runs.'
        if self._kind == Kind.PATTERN:
            return f'No image fits {self._name}; the numbers begin at 0 to 4 and every image exists.'
        try:
            with open(self._name, 'rb'):
                return f'{self._name} is no video that OpenCV can read; set video_device to another.'
        except OSError as error:
            return device_access.explain(self._name, error, PLUG)


class RecordingEnded(HardwareFault):
    """A recording that does not loop is over."""


def _require_camera(path: str) -> None:
    """Raise HardwareFault with the cause when a path cannot be opened or is no V4L2 device."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        raise HardwareFault(device_access.explain(path, error, PLUG)) from error
    try:
        fcntl.ioctl(descriptor, _VIDIOC_QUERYCAP, bytearray(104))
    except OSError as error:
        raise HardwareFault(f'{path} is not a V4L2 camera; {PLUG}.') from error
    finally:
        os.close(descriptor)


def _actual(capture: Any) -> Format:
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    letters = code.to_bytes(4, 'little', signed=False).decode('latin-1').strip('\0') if code > 0 else ''
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    return Format(int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
                  rate if rate > 0 else 0.0, letters if letters.isprintable() else '')


def _raw(capture: Any) -> Jpeg | None:
    """Return the bytes of a frame that is not decoded; None when it is no whole JPEG file."""
    good, data = capture.retrieve()
    if not good or data is None:
        return None
    data = data.reshape(-1)
    whole = data.size > 4 and tuple(data[:2]) == _JPEG_BEGIN
    return numpy.ascontiguousarray(data, dtype=numpy.uint8) if whole else None


def _retrieve(capture: Any, passes: bool) -> Image | None:
    good, image = False, None
    with contextlib.suppress(cv2.error):
        if passes:
            data = _raw(capture)
            image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data is not None else None
            good = image is not None
        else:
            good, image = capture.retrieve()
    if not good or image is None or not image.size:
        return None
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return numpy.ascontiguousarray(image, dtype=numpy.uint8)
