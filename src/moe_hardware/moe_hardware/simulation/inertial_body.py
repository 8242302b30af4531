"""What an inertial sensor feels: a body at rest or swaying, and the errors of a real sensor on top."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

GRAVITY = 9.80665  # [m/s^2], CODATA standard gravity
TICK_HZ = 100.0  # output data rate of the chip
AMBIENT_C, WARM_C = 24.0, 38.0
GYRO_NOISE_RPS = math.radians(0.1)  # rms at 32 Hz bandwidth (BMX055 data sheet)
ACC_NOISE_MPS2 = 0.015  # rms: 150 ug/sqrt(Hz) at 62.5 Hz bandwidth
GYRO_BIAS_RPS, ACC_BIAS_MPS2 = math.radians(0.6), 0.08  # one sigma of the offsets drawn
WARMUP_DRIFT_RPS = math.radians(0.25)  # gyro offset of the cold chip on top, dies out with warm-up
# Sway: amplitude [rad] and period [s] of roll, pitch, yaw.
SWAY = ((math.radians(10.0), 8.0), (math.radians(6.0), 11.0), (math.radians(15.0), 20.0))

_NOISE = (ACC_NOISE_MPS2,) * 3 + (GYRO_NOISE_RPS,) * 3
_BLOCK = 128  # ticks

Vector = NDArray[numpy.float64]


@dataclass(frozen=True)
class Truth:
    """Exact state of the body: x forward, y left, z up (REP 103)."""

    euler: Vector  # roll, pitch, yaw [rad]
    angular_velocity: Vector  # in the body's frame [rad/s]
    specific_force: Vector  # in the body's frame [m/s^2]; (0, 0, +9.80665) at rest and level


_AT_REST = Truth(numpy.zeros(3), numpy.zeros(3), numpy.array((0.0, 0.0, GRAVITY)))


def truth(seconds: float, sway: bool) -> Truth:
    """Return the state at a time: level and still, or swaying about all three axes."""
    if not sway:
        return _AT_REST
    amplitude = numpy.array([axis[0] for axis in SWAY])
    omega = numpy.array([2 * math.pi / axis[1] for axis in SWAY])
    angle, rate = amplitude * numpy.sin(omega * seconds), amplitude * omega * numpy.cos(omega * seconds)
    roll, pitch, _ = angle
    velocity = numpy.array([
        rate[0] - math.sin(pitch) * rate[2],
        math.cos(roll) * rate[1] + math.sin(roll) * math.cos(pitch) * rate[2],
        -math.sin(roll) * rate[1] + math.cos(roll) * math.cos(pitch) * rate[2]])
    force = GRAVITY * numpy.array(
        [-math.sin(pitch), math.sin(roll) * math.cos(pitch), math.cos(roll) * math.cos(pitch)])
    return Truth(angle, velocity, force)


class SensorErrors:
    """Offsets, warm-up drift and noise, all drawn from the seed: the same seed and tick give the same sample.

    Args:
        seed: of every random number.
        warmup_s: time constant of the warm-up [s]; 0: warm from the start.
    """

    def __init__(self, seed: int, warmup_s: float) -> None:
        random = numpy.random.default_rng(seed)
        self.gyro_bias = random.normal(0.0, GYRO_BIAS_RPS, 3)  # of the warm chip [rad/s]
        self.acc_bias = random.normal(0.0, ACC_BIAS_MPS2, 3)  # [m/s^2]
        self._drift = random.choice([-1.0, 1.0], 3) * WARMUP_DRIFT_RPS
        self._seed, self._warmup_s = seed, warmup_s
        self._block, self._rows = -1, numpy.empty((0, len(_NOISE)))

    def coldness(self, seconds: float) -> float:
        """Return 1 for a chip just powered, towards 0 as it warms."""
        return math.exp(-seconds / self._warmup_s) if self._warmup_s > 0 else 0.0

    def temperature(self, seconds: float) -> float:
        """Return the chip's temperature [degree Celsius]."""
        return WARM_C - (WARM_C - AMBIENT_C) * self.coldness(seconds)

    def measured(self, exact: Truth, seconds: float) -> tuple[Vector, Vector]:
        """Return specific force [m/s^2] and angular velocity [rad/s] as the sensor gives them."""
        noise = self._noise(int(seconds * TICK_HZ))
        force = exact.specific_force + self.acc_bias + noise[:3]
        velocity = exact.angular_velocity + self.gyro_bias + self._drift * self.coldness(seconds)
        return force, velocity + noise[3:]

    def _noise(self, tick: int) -> Vector:
        """Return the noise of a tick; drawn by the block, since a generator costs more than its numbers."""
        block, row = divmod(tick, _BLOCK)
        if block != self._block:
            random = numpy.random.default_rng((self._seed, 1, block))
            self._block, self._rows = block, random.normal(0.0, _NOISE, (_BLOCK, len(_NOISE)))
        noise: Vector = self._rows[row]
        return noise
