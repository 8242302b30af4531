"""Cameras: sources of frames, capture, intrinsic calibration, JPEG."""
