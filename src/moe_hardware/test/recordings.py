"""Recordings that tests play to the camera."""

import numpy

from moe_hardware.camera.opencv import cv2


def write_video(path, count=5, size=(64, 48)):
    """Write a Motion-JPEG file whose frame n is grey of level 40 n; returns its path."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 10.0, size)
    for number in range(count):
        writer.write(numpy.full((size[1], size[0], 3), 40 * number % 256, numpy.uint8))
    writer.release()
    return path
