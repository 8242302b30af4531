"""What an inertial sensor measured at one instant."""

from __future__ import annotations

from dataclasses import dataclass

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Reading:
    """One measurement in the sensor's frame: x forward, y left, z up (REP 103)."""

    stamp_ns: int  # when it was asked for
    angular_velocity: Vector  # [rad/s], right-handed about x, y, z
    linear_acceleration: Vector  # [m/s^2], gravity included: z is +9.80665 at rest and level (REP 145)
    temperature: float  # of the chip [degree Celsius], of the last second
