"""Capturing: a source opened, paced and read in the device's thread, each frame stamped when it was taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from moe_hardware.camera.source import Format, Image, Jpeg, Kind, Source, expanded, kind_of
from moe_hardware.camera.synthetic import SyntheticSource
from moe_hardware.camera.video import DeviceSource, RecordingEnded, RecordingSource
from moe_hardware.errors import HardwareFault
from moe_hardware.pacing import Pacer, RateMeter


@dataclass(frozen=True)
class Settings:
    """What to capture, and how."""

    video_device: str
    wanted: Format
    read_timeout_s: float  # without a frame for so long the source counts as stalled [s]
    loop: bool  # begin a file again at its end


@dataclass(frozen=True)
class Wanted:
    """In which forms somebody wants a frame."""

    image: bool = False
    jpeg: bool = False


@dataclass(frozen=True)
class Frame:
    """A frame in the forms that were wanted and could be had: an image, the camera's own JPEG file."""

    image: Image | None = None
    jpeg: Jpeg | None = None


class Capture:
    """A device for DeviceThread that reads frames and hands them on, in the device's thread.

    Args:
        settings: see there.
        now: stamp of a frame [ns].
        wanted: asked for each frame in which forms it is wanted.
        publish: takes each frame in those forms, its size and its stamp [ns].
    """

    def __init__(self, settings: Settings, now: Callable[[], int], wanted: Callable[[], Wanted],
                 publish: Callable[[Frame, Format, int], None]) -> None:
        self.settings = settings
        self.enabled = True  # False: the source stays open, nothing is handed on
        self.actual: Format | None = None  # while it is open
        self.meter = RateMeter()
        self.undecodable = 0
        self._now, self._wanted, self._publish = now, wanted, publish
        self._source: Source | None = None
        self._pacer = Pacer(settings.wanted.rate)
        self._seen = self._due = 0.0
        self._ended: RecordingEnded | None = None

    def open(self) -> None:
        """Find and open the source. Raises HardwareFault."""
        if self._ended is not None:
            raise self._ended  # opening it again would be another loop
        self._source = _make(self.settings)
        self.actual = self._source.open()
        self._pacer = Pacer(self.settings.wanted.rate)
        self._seen = self._due = time.monotonic()

    def close(self) -> None:
        """Let go of the source."""
        source, self._source, self.actual = self._source, None, None
        if source is not None:
            source.close()

    def step(self, stop: threading.Event) -> None:
        """Hand on the next frame. Raises HardwareFault when the source is gone, ended or stalled."""
        source, actual = self._source, self.actual
        assert source is not None and actual is not None
        if not source.live:
            self._pacer.wait(stop)
            if not self.enabled:
                return
        if not self._next(source):
            if time.monotonic() - self._seen > self.settings.read_timeout_s:
                raise HardwareFault(f'{self.settings.video_device} has sent no frame for '
                                    f'{self.settings.read_timeout_s:.1f} s; it is opened again, check its cable and '
                                    'the bandwidth of its USB port.')
            stop.wait(0.02)
            return
        stamp_ns = self._now()
        self._seen = time.monotonic()
        if not self.enabled or (source.live and self._too_early()):
            return
        wanted = self._wanted()
        # A camera's own JPEG is passed on as it is, and then nothing needs to be decoded for it.
        jpeg = source.jpeg() if wanted.jpeg else None
        image = None
        if wanted.image or (wanted.jpeg and jpeg is None):
            image = source.image()
            if image is None:
                self.undecodable += 1
                return
            if image.shape[:2] != (actual.height, actual.width):
                actual = Format(image.shape[1], image.shape[0], actual.rate, actual.pixel_format)
                self.actual = actual
        self.meter.tick()
        self._publish(Frame(image, jpeg), actual, stamp_ns)

    def _next(self, source: Source) -> bool:
        try:
            return source.wait()
        except RecordingEnded as end:
            self._ended = end
            raise

    def _too_early(self) -> bool:
        """Tell whether a camera that is faster than asked has one frame too many now."""
        period = 1.0 / self.settings.wanted.rate
        if self._seen < self._due - 0.2 * period:
            return True
        self._due = max(self._due + period, self._seen)
        return False


def _make(settings: Settings) -> Source:
    name = expanded(settings.video_device)
    kind = kind_of(name)
    if kind == Kind.SYNTHETIC:
        return SyntheticSource(settings.wanted)
    if kind == Kind.DEVICE:
        return DeviceSource(name, settings.wanted)
    return RecordingSource(name, kind, settings.loop, settings.read_timeout_s)
