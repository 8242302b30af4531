"""Complementary filter: the gyroscope says how the body turns, gravity pulls the tilt back slowly."""

from __future__ import annotations

import math

from moe_hardware.imu.reading import Vector

NOMINAL_RATE_HZ = 100.0  # at which `alpha` is meant
LONGEST_GAP_S = 0.5
GRAVITY_MPS2 = 9.80665
ACCELERATING_SHARE = 0.2  # |a| further than this from g is no direction of gravity

Quaternion = tuple[float, float, float, float]  # x, y, z, w, as in geometry_msgs


class ComplementaryFilter:
    """Orientation of the body in a frame with z up whose heading is that of the body at the start.

    The tilt is a first-order blend of the integrated angular velocity and the direction of the measured gravity; the
    heading is integrated only. State is a quaternion, so nothing wraps and no attitude is singular.

    Args:
        alpha: weight of the gyroscope per sample at 100 Hz, 0..1; it stands for the time constant
            alpha / (1 - alpha) / 100 s (0.98: 0.49 s), which is held at every rate.
    """

    def __init__(self, alpha: float = 0.98) -> None:
        if not 0.0 <= alpha < 1.0:
            raise ValueError(f'alpha is at least 0 and below 1, not {alpha}.')
        self.time_constant_s = alpha / (1.0 - alpha) / NOMINAL_RATE_HZ
        self._orientation: Quaternion | None = None
        self._stamp_ns = 0

    @property
    def orientation(self) -> Quaternion:
        """Rotation from the body to the world; the identity before the first reading."""
        return self._orientation or (0.0, 0.0, 0.0, 1.0)

    def update(self, stamp_ns: int, angular_velocity: Vector, linear_acceleration: Vector) -> Quaternion:
        """Take a reading and return the orientation.

        A reading that is not newer than the last (a clock set back, a stamp twice) moves the stamp and nothing else.
        After a gap of more than 0.5 s the tilt is taken from gravity alone and the heading is kept.

        Args:
            stamp_ns: [ns].
            angular_velocity: of the body [rad/s].
            linear_acceleration: [m/s^2], gravity included, +9.80665 along the axis that points up.
        """
        dt = (stamp_ns - self._stamp_ns) * 1e-9
        self._stamp_ns = stamp_ns
        if self._orientation is None or dt > LONGEST_GAP_S:
            heading = yaw(self.orientation)
            self._orientation = tilted(linear_acceleration, heading) or self.orientation
        elif dt > 0.0:
            turned = _product(self._orientation, _rotation(*(rate * dt for rate in angular_velocity)))
            share = dt / (self.time_constant_s + dt)
            self._orientation = _normalised(_product(turned, _towards_gravity(turned, linear_acceleration, share)))
        return self._orientation


def roll_pitch_yaw(orientation: Quaternion) -> Vector:
    """Return fixed-axis roll, pitch, yaw [rad] (REP 103); roll and yaw within +-pi, pitch within +-pi/2."""
    x, y, z, w = orientation
    return (math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
            math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x)))), yaw(orientation))


def yaw(orientation: Quaternion) -> float:
    """Return the heading [rad], counter-clockwise from above, within +-pi."""
    x, y, z, w = orientation
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def _product(a: Quaternion, b: Quaternion) -> Quaternion:
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (aw * bx + ax * bw + ay * bz - az * by, aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw, aw * bw - ax * bx - ay * by - az * bz)


def _rotation(x: float, y: float, z: float) -> Quaternion:
    """Return the rotation about a vector by its length [rad]."""
    angle = math.sqrt(x * x + y * y + z * z)
    scale = math.sin(angle / 2) / angle if angle > 1e-12 else 0.5
    return (x * scale, y * scale, z * scale, math.cos(angle / 2))


def _normalised(q: Quaternion) -> Quaternion:
    length = math.sqrt(sum(value * value for value in q))
    return (q[0] / length, q[1] / length, q[2] / length, q[3] / length)


def tilted(acceleration: Vector, heading: float) -> Quaternion | None:
    """Return the orientation with gravity's tilt and a heading [rad]; None when nothing is felt (free fall)."""
    x, y, z = acceleration
    if math.sqrt(x * x + y * y + z * z) < 0.1 * GRAVITY_MPS2:
        return None
    half_roll, half_pitch = math.atan2(y, z) / 2, math.atan2(-x, math.hypot(y, z)) / 2
    q = _product((0.0, 0.0, math.sin(heading / 2), math.cos(heading / 2)),
                 (0.0, math.sin(half_pitch), 0.0, math.cos(half_pitch)))
    return _product(q, (math.sin(half_roll), 0.0, 0.0, math.cos(half_roll)))


def _towards_gravity(q: Quaternion, acceleration: Vector, share: float) -> Quaternion:
    """Return the rotation, in the body's frame, by a share of the angle between felt and expected gravity."""
    ax, ay, az = acceleration
    norm = math.sqrt(ax * ax + ay * ay + az * az)
    if abs(norm - GRAVITY_MPS2) > ACCELERATING_SHARE * GRAVITY_MPS2:
        return (0.0, 0.0, 0.0, 1.0)
    ax, ay, az = ax / norm, ay / norm, az / norm
    x, y, z, w = q
    ux, uy, uz = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)  # up, as the body should feel it
    # The axis is level in the world, so the heading stays: felt x expected.
    cx, cy, cz = ay * uz - az * uy, az * ux - ax * uz, ax * uy - ay * ux
    sine, cosine = math.sqrt(cx * cx + cy * cy + cz * cz), ax * ux + ay * uy + az * uz
    if sine < 1e-12:
        # Nothing to correct, or upside down, where any level axis will do.
        return (0.0, 0.0, 0.0, 1.0) if cosine > 0 else _rotation(*_level_axis(ux, uy, uz, share * math.pi))
    scale = share * math.atan2(sine, cosine) / sine
    return _rotation(cx * scale, cy * scale, cz * scale)


def _level_axis(ux: float, uy: float, uz: float, length: float) -> Vector:
    """Return a vector of a length at right angles to up."""
    x, y, z = (0.0, uz, -uy) if abs(ux) < 0.9 else (-uz, 0.0, ux)
    norm = math.sqrt(x * x + y * y + z * z)
    return (x * length / norm, y * length / norm, z * length / norm)
