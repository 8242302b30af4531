"""The IMU as a stream: readings at a fixed rate, corrected and with an orientation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from moe_hardware.errors import HardwareFault
from moe_hardware.imu.calibration import Calibration
from moe_hardware.imu.complementary_filter import Quaternion
from moe_hardware.imu.driver import DamagedReply, ImuDriver
from moe_hardware.imu.reading import Reading, Vector
from moe_hardware.pacing import Pacer, RateMeter

TEMPERATURE_PERIOD_S = 1.0
SILENCE_LIMIT_S = 1.0  # without a good reply the device counts as lost

Listener = Callable[[Reading], None]


class Filter(Protocol):
    """What turns readings into an orientation."""

    def update(self, stamp_ns: int, angular_velocity: Vector, linear_acceleration: Vector) -> Quaternion:
        """Take a reading and return the orientation."""


class ImuStream:
    """A device for DeviceThread that reads an IMU and hands its readings on, in the device's thread.

    Args:
        driver: to read.
        rate: readings per second [Hz], unless the driver has a pace of its own.
        fusion: turns readings into an orientation.
        now: stamp of a reading [ns].
        publish: takes each reading without its offsets, and the orientation.
    """

    def __init__(self, driver: ImuDriver, rate: float, fusion: Filter, now: Callable[[], int],
                 publish: Callable[[Reading, Quaternion], None]) -> None:
        self.calibration = Calibration()
        self.meter = RateMeter()
        self.damaged = 0  # replies that did not count
        self.temperature = float('nan')  # of the last second [degree Celsius]
        self._driver, self._rate, self._fusion, self._now, self._publish = driver, rate, fusion, now, publish
        self._listeners: list[Listener] = []
        self._pacer = Pacer(rate)
        self._started = self._good = self._temperature_at = 0.0
        self._open = False

    @property
    def running_s(self) -> float:
        """How long the device has been on, as far as is known: since this stream found it [s]; 0 while it is away."""
        return time.monotonic() - self._started if self._open else 0.0

    def listen(self, listener: Listener) -> None:
        """Hand each reading, offsets included, to a listener too."""
        self._listeners = [*self._listeners, listener]

    def unlisten(self, listener: Listener) -> None:
        """End listen()."""
        self._listeners = [other for other in self._listeners if other is not listener]

    def open(self) -> None:
        """Find and start the device. Raises HardwareFault."""
        self._driver.open()
        self._started = self._good = time.monotonic()
        self._temperature_at = 0.0
        self._pacer = Pacer(self._rate)
        self._open = True

    def close(self) -> None:
        """Let go of the device."""
        self._open = False
        self._driver.close()

    def step(self, stop: threading.Event) -> None:
        """Take the next reading. Raises HardwareFault when the device is lost."""
        if not self._driver.paced:
            self._pacer.wait(stop)
        try:
            if time.monotonic() - self._temperature_at >= TEMPERATURE_PERIOD_S:
                self.temperature = self._driver.read_temperature()
                self._temperature_at = time.monotonic()
            stamp_ns = self._now()
            velocity, acceleration = self._driver.read()
            if self._driver.paced:
                stamp_ns = self._now()  # it came when read() had waited for it
        except DamagedReply as damage:
            self.damaged += 1
            if time.monotonic() - self._good > SILENCE_LIMIT_S:
                raise HardwareFault(f'The IMU has not answered for {SILENCE_LIMIT_S:.0f} s ({damage}); check its '
                                    'cable and supply.') from damage
            return
        self._good = time.monotonic()
        self.meter.tick()
        reading = Reading(stamp_ns, velocity, acceleration, self.temperature)
        for listener in self._listeners:
            listener(reading)
        corrected = self.calibration.apply(reading)
        self._publish(corrected, self._fusion.update(
            stamp_ns, corrected.angular_velocity, corrected.linear_acceleration))
