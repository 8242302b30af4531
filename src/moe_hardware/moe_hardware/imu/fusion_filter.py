"""The Fusion filter of x-io (Madgwick's revised AHRS) in the shape of our own filter; needs the package imufusion."""

from __future__ import annotations

import math

import imufusion
import numpy

from moe_hardware.imu.complementary_filter import GRAVITY_MPS2, LONGEST_GAP_S, Quaternion, tilted, yaw
from moe_hardware.imu.reading import Vector

_REJECTION_DEG, _RECOVERY_S = 10.0, 5.0


class FusionFilter:
    """Orientation by gradient descent with acceleration rejection; heading is integrated only.

    Args:
        gain: weight of gravity against the gyroscope, > 0; 0.5 is the author's.
        rate: readings per second [Hz], for the time that rejected acceleration is trusted again.
    """

    def __init__(self, gain: float = 0.5, rate: float = 100.0) -> None:
        if gain <= 0.0:
            raise ValueError(f'gain is above 0, not {gain}.')
        self._ahrs = imufusion.Ahrs()
        settings = imufusion.AhrsSettings()
        settings.convention = imufusion.CONVENTION_NWU  # z up
        settings.gain, settings.sample_rate = gain, rate
        settings.acceleration_rejection, settings.rejection_timeout = _REJECTION_DEG, _RECOVERY_S
        settings.gyroscope_range = 0.0  # the drivers reject what is out of range
        self._ahrs.set_settings(settings)
        self._stamp_ns: int | None = None

    @property
    def orientation(self) -> Quaternion:
        """Rotation from the body to the world."""
        w, x, y, z = (float(value) for value in self._ahrs.get_quaternion())
        return (x, y, z, w)

    def update(self, stamp_ns: int, angular_velocity: Vector, linear_acceleration: Vector) -> Quaternion:
        """Take a reading and return the orientation; see ComplementaryFilter.update() for stamps and gaps."""
        dt = (stamp_ns - self._stamp_ns) * 1e-9 if self._stamp_ns is not None else math.inf
        self._stamp_ns = stamp_ns
        if dt > LONGEST_GAP_S:
            x, y, z, w = tilted(linear_acceleration, yaw(self.orientation)) or self.orientation
            self._ahrs.set_quaternion(numpy.array((w, x, y, z)))
            self._ahrs.skip_startup()  # during which the heading would be held at 0
        elif dt > 0.0:
            self._step(dt, angular_velocity, linear_acceleration)
        return self.orientation

    def _step(self, dt: float, angular_velocity: Vector, linear_acceleration: Vector) -> None:
        self._ahrs.set_sample_period(dt)
        self._ahrs.update_no_magnetometer(numpy.degrees(angular_velocity),
                                          numpy.asarray(linear_acceleration) / GRAVITY_MPS2)
