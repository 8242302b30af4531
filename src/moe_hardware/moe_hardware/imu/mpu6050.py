"""Driver of the InvenSense MPU-6050 on I2C (register map RM-MPU-6000A-00, revision 4.2)."""

from __future__ import annotations

import contextlib
import math
import os
import struct
import time

from smbus2 import SMBus

from moe_hardware import device_access
from moe_hardware.errors import HardwareFault
from moe_hardware.imu.driver import DamagedReply
from moe_hardware.imu.reading import Vector

SAMPLE_RATE_DIVIDER, CONFIG, GYRO_CONFIG, ACCEL_CONFIG = 0x19, 0x1A, 0x1B, 0x1C
ACCEL_OUT, TEMPERATURE_OUT = 0x3B, 0x41  # big-endian words: acceleration x, y, z, temperature, angular velocity x, y, z
POWER_MANAGEMENT, WHO_AM_I = 0x6B, 0x75
DEVICE_RESET, SLEEP, CLOCK_OF_GYRO_X = 0x80, 0x40, 0x01
IDENTITY = 0x68
LOW_PASS_44_HZ, DPS_500, G_4 = 0x03, 0x08, 0x08
LSB_PER_RPS = 65.5 * 180.0 / math.pi  # at +-500 deg/s
LSB_PER_MPS2 = 8192.0 / 9.80665  # at +-4 g
LSB_PER_DEGREE, DEGREES_AT_ZERO = 340.0, 36.53
START_S = 0.1  # from power-on to register access (product specification, section 6.3)
# What is written at the start; sampled at 200 Hz, filtered at 44 Hz.
SETTINGS = {POWER_MANAGEMENT: CLOCK_OF_GYRO_X, SAMPLE_RATE_DIVIDER: 4, CONFIG: LOW_PASS_44_HZ, GYRO_CONFIG: DPS_500,
            ACCEL_CONFIG: G_4}
_WORDS = struct.Struct('>7h')


class Mpu6050Driver:
    """Talks to the chip, x forward, y left, z up as printed on it.

    Args:
        port_name: I2C bus, e.g. /dev/i2c-1, or a symlink.
        address: 0x68, or 0x69 with pin AD0 high.
    """

    paced = False

    def __init__(self, port_name: str, address: int) -> None:
        self._port_name, self._address = port_name, address
        self._bus: SMBus | None = None

    def open(self) -> None:
        """Open the bus and wake the chip. Raises HardwareFault: absent, busy, no permission, silent."""
        try:
            self._bus = SMBus(os.path.realpath(self._port_name))
        except OSError as error:
            raise HardwareFault(device_access.explain(self._port_name, error, 'enable I2C (dtparam=i2c_arm=on on a '
                                                      'Raspberry Pi) or set port_name')) from error
        where = f'{self._port_name} at address 0x{self._address:02X}'
        try:
            identity = self._read(WHO_AM_I, 1)[0]
            if identity != IDENTITY:
                raise HardwareFault(f'The chip on {where} is no MPU-6050 (WHO_AM_I 0x{identity:02X} instead of '
                                    f'0x{IDENTITY:02X}); set driver or i2c_address.')
            self._write(POWER_MANAGEMENT, DEVICE_RESET)
            time.sleep(START_S)
            for register, value in SETTINGS.items():
                self._write(register, value)
            if not self._configured():
                raise HardwareFault(f'The MPU-6050 on {where} does not keep its settings; check its supply.')
            time.sleep(0.03)  # the gyroscope starts, the first sample comes
        except (OSError, DamagedReply) as error:
            raise HardwareFault(f'Nothing answers on {where} ({error}); check SDA, SCL, supply and AD0, and look with '
                                '`i2cdetect -y`.') from error

    def close(self) -> None:
        """Close the bus."""
        if self._bus is not None:
            with contextlib.suppress(OSError):
                self._bus.close()
            self._bus = None

    def read(self) -> tuple[Vector, Vector]:
        """Return angular velocity [rad/s] and specific force [m/s^2], of one sample.

        Raises:
            DamagedReply: this reading failed; ask again.
            HardwareFault: the bus is gone.
        """
        words = _WORDS.unpack(self._read(ACCEL_OUT, _WORDS.size))
        if not any(words):
            raise DamagedReply('all values are zero')  # a chip that sleeps after a reset of its own
        ax, ay, az = (word / LSB_PER_MPS2 for word in words[:3])
        gx, gy, gz = (word / LSB_PER_RPS for word in words[4:])
        return (gx, gy, gz), (ax, ay, az)

    def read_temperature(self) -> float:
        """Return the chip's temperature [degree Celsius], having checked that it still measures as it was told.

        Raises:
            DamagedReply: this reading failed; ask again.
            HardwareFault: the chip was reset.
        """
        if not self._configured():
            raise HardwareFault(f'The IMU on {self._port_name} was reset and is being set up again; if this goes on, '
                                'check its supply.')
        return float(struct.unpack('>h', self._read(TEMPERATURE_OUT, 2))[0] / LSB_PER_DEGREE + DEGREES_AT_ZERO)

    def _configured(self) -> bool:
        first = min(SAMPLE_RATE_DIVIDER, ACCEL_CONFIG)
        found = self._read(first, ACCEL_CONFIG - first + 1)
        kept = all(found[register - first] == value for register, value in SETTINGS.items()
                   if register != POWER_MANAGEMENT)
        return kept and not self._read(POWER_MANAGEMENT, 1)[0] & SLEEP

    def _read(self, register: int, count: int) -> bytes:
        bus = self._open_bus()
        try:
            return bytes(bus.read_i2c_block_data(self._address, register, count))
        except OSError as error:
            raise self._failure(error) from error

    def _write(self, register: int, value: int) -> None:
        bus = self._open_bus()
        try:
            bus.write_byte_data(self._address, register, value)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> Exception:
        """Tell a bus that is gone from a chip that did not acknowledge, which may be noise."""
        if not os.path.exists(self._port_name):
            return HardwareFault(f'{self._port_name} is gone; plug the adapter in again.')
        return DamagedReply(error.strerror or str(error))

    def _open_bus(self) -> SMBus:
        if self._bus is None:
            raise HardwareFault(f'{self._port_name} is closed.')
        return self._bus
