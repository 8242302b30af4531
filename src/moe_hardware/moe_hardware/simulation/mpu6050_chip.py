"""An MPU-6050 as a register map (RM-MPU-6000A-00): settings, sleep, reset, and data that follow a body in motion."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from moe_hardware.simulation.inertial_body import TICK_HZ, SensorErrors, truth

_SIZE = 0x76
_GYRO_CONFIG, _ACCEL_CONFIG, _ACCEL_OUT, _POWER, _WHO_AM_I = 0x1B, 0x1C, 0x3B, 0x6B, 0x75
_RESET, _SLEEP = 0x80, 0x40
_LSB_PER_DPS = (131.0, 65.5, 32.8, 16.4)  # by the full scale that GYRO_CONFIG selects
_LSB_PER_G = (16384.0, 8192.0, 4096.0, 2048.0)
_GRAVITY = 9.80665
_READ_ONLY = {*range(0x3A, 0x61), _WHO_AM_I}


class Mpu6050:
    """The chip.

    Args:
        errors: offsets, drift and noise of the sensors.
        sway: whether the body sways; otherwise it lies still and level.
        clock: seconds, monotonic; the chip is powered at the first reading.
    """

    def __init__(self, errors: SensorErrors, sway: bool, clock: Callable[[], float]) -> None:
        self._errors, self._sway, self._clock = errors, sway, clock
        self._powered = clock()
        self._registers = bytearray(_SIZE)
        self.reset()

    def reset(self) -> None:
        """Power-on values; the chip sleeps and its data are 0."""
        self._registers[:] = bytes(_SIZE)
        self._registers[_POWER], self._registers[_WHO_AM_I] = _SLEEP, 0x68

    def read(self, register: int, count: int) -> bytes:
        """Registers from an address on; 0 beyond the last."""
        if not self._registers[_POWER] & _SLEEP:
            self._measure()
        return bytes(self._registers[register:register + count]).ljust(count, b'\0')

    def write(self, register: int, data: bytes) -> None:
        """Write registers from an address on; what is read-only stays."""
        for address, value in enumerate(data, register):
            if address == _POWER and value & _RESET:
                self.reset()
            elif address < _SIZE and address not in _READ_ONLY:
                self._registers[address] = value

    def _measure(self) -> None:
        seconds = self._clock() - self._powered
        force, velocity = self._errors.measured(truth(math.floor(seconds * TICK_HZ) / TICK_HZ, self._sway), seconds)
        per_g = _LSB_PER_G[self._registers[_ACCEL_CONFIG] >> 3 & 3]
        per_dps = _LSB_PER_DPS[self._registers[_GYRO_CONFIG] >> 3 & 3]
        values = [*(force / _GRAVITY * per_g), (self._errors.temperature(seconds) - 36.53) * 340.0,
                  *(velocity * 180.0 / math.pi * per_dps)]
        words = [max(-32768, min(32767, round(float(value)))) for value in values]
        self._registers[_ACCEL_OUT:_ACCEL_OUT + 14] = struct.pack('>7h', *words)
