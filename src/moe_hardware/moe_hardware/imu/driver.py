"""What a stream needs of an inertial sensor, whatever bus it is on."""

from __future__ import annotations

from typing import Protocol

from moe_hardware.imu.reading import Vector


class DamagedReply(Exception):
    """A reading failed (lost, late, cut, or not what was asked for); the next one may succeed."""


class ImuDriver(Protocol):
    """A sensor; not safe for several threads. Every method may raise HardwareFault with a sentence for the user."""

    paced: bool  # read() waits for the next reading itself; otherwise the stream keeps the rate

    def open(self) -> None:
        """Find the device anew and start it."""

    def read(self) -> tuple[Vector, Vector]:
        """Return angular velocity [rad/s] and specific force [m/s^2]. Raises DamagedReply."""

    def read_temperature(self) -> float:
        """Return the temperature [degree Celsius], having checked that it still measures. Raises DamagedReply."""

    def close(self) -> None:
        """Let go of the device; must not raise."""
