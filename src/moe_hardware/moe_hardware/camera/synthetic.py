"""A drawn scene that moves: a camera for machines without one."""

from __future__ import annotations

import math
import time

import numpy

from moe_hardware.camera.opencv import cv2
from moe_hardware.camera.source import Format, Image, Jpeg

_BALL_PERIOD_S, _SWEEP_PERIOD_S = 4.0, 10.0


class SyntheticSource:
    """A floor under a sky, a ball that rolls, a hand that sweeps, the number of the frame.

    The background is drawn once, a frame costs a copy of it and a few strokes.

    Args:
        wanted: size and rate of the frames.
    """

    live = False

    def __init__(self, wanted: Format) -> None:
        self._format = wanted
        self._background: Image | None = None
        self._count = 0
        self._begin = time.monotonic()

    def open(self) -> Format:
        """Draw the background; there is always a scene."""
        self._background = _background(self._format.width, self._format.height)
        return self._format

    def wait(self) -> bool:
        """Count the frame."""
        self._count += 1
        return True

    def image(self) -> Image | None:
        """Draw the frame of this moment."""
        if self._background is None:
            return None
        image, seconds = self._background.copy(), time.monotonic() - self._begin
        width, height = self._format.width, self._format.height
        radius, phase = max(2, height // 12), 2 * math.pi * seconds / _BALL_PERIOD_S
        centre = (round(width * (0.5 + 0.4 * math.sin(phase))), round(height * 0.75 - radius * abs(math.cos(phase))))
        cv2.circle(image, centre, radius, (40, 60, 220), cv2.FILLED)
        angle, length = 2 * math.pi * seconds / _SWEEP_PERIOD_S, height // 6
        middle = (width - length - 8, length + 8)
        tip = (round(middle[0] + length * math.sin(angle)), round(middle[1] - length * math.cos(angle)))
        cv2.circle(image, middle, length, (80, 80, 80), 1)
        cv2.line(image, middle, tip, (30, 30, 30), 2)
        cv2.putText(image, f'synthetic {self._count:06d} {seconds:9.2f} s', (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5,
                    (20, 20, 20), 1)
        return image

    def jpeg(self) -> Jpeg | None:
        """Say that the scene is drawn, not compressed."""
        return None

    def close(self) -> None:
        """Forget the background."""
        self._background = None


def _background(width: int, height: int) -> Image:
    image = numpy.empty((height, width, 3), numpy.uint8)
    horizon = height * 6 // 10
    shade = numpy.linspace(0.0, 1.0, max(1, horizon))[:, None, None]
    image[:horizon] = (numpy.array([230, 180, 120]) * (1 - shade) + numpy.array([240, 230, 215]) * shade)
    rows, columns = numpy.mgrid[horizon:height, 0:width]
    depth = (rows - horizon + 1) / max(1, height - horizon)
    across = numpy.floor((columns - width / 2) / (0.1 + depth) / (width / 10)).astype(int)
    along = numpy.floor(2.0 / (0.1 + depth)).astype(int)
    image[horizon:] = numpy.where(((across + along) % 2)[..., None], [150, 160, 165], [95, 105, 110])
    return image
