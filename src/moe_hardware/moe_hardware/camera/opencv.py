"""OpenCV as the cameras need it; the one place of the package that imports it."""

from __future__ import annotations

import os

# Read once, while the library loads: a V4L2 camera that sends nothing would block a read for 10 s otherwise.
os.environ.setdefault('OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT', '1')
# What it would print is told by the sources in their own words.
os.environ.setdefault('OPENCV_LOG_LEVEL', 'FATAL')
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')

import cv2

cv2.setNumThreads(1)  # the other cores are the language models'

__all__ = ['cv2']
