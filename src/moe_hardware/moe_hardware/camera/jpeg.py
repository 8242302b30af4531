"""JPEG encoding of frames."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

from moe_hardware.camera.opencv import cv2
from moe_hardware.camera.source import Image


def encode(image: Image, quality: int) -> NDArray[numpy.uint8]:
    """Return the bytes of the JPEG file.

    Args:
        image: height x width x 3, blue-green-red.
        quality: 1..100.
    """
    good, buffer = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise ValueError(f'OpenCV could not encode an image of shape {image.shape}.')
    return buffer.reshape(-1)
