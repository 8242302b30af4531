"""A BNO055 at the byte level: requests in, replies out, as section 4.7 of its data sheet has it."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from moe_hardware.imu import registers
from moe_hardware.imu.registers import Mode, Register, Status
from moe_hardware.simulation.inertial_body import AMBIENT_C, TICK_HZ, SensorErrors, Truth, truth

_WITH_ACC = {Mode.ACCONLY, Mode.ACCMAG, Mode.ACCGYRO, Mode.AMG} | {mode for mode in Mode if mode >= Mode.IMU}
_WITH_GYR = {Mode.GYROONLY, Mode.ACCGYRO, Mode.MAGGYRO, Mode.AMG} | {mode for mode in Mode if mode >= Mode.IMU}
_WITH_MAG = {Mode.MAGONLY, Mode.ACCMAG, Mode.MAGGYRO, Mode.AMG} | {mode for mode in Mode if mode >= Mode.COMPASS}
_EARTH_FIELD_UT = (22.0, 5.0, -42.0)
_LAST = Register.MAG_RADIUS_MSB
_LAST_ON_PAGE_1 = 0x7F
# Writable on page 0: the page, units and modes, axes, matrix and offsets.
_WRITABLE = {Register.PAGE_ID, *range(Register.UNIT_SEL, _LAST + 1)} - {0x3C}
_ALWAYS = {Register.PAGE_ID, Register.OPR_MODE, Register.SYS_TRIGGER}  # the others: in CONFIG mode only
_RESET = {
    Register.CHIP_ID: registers.CHIP_ID_VALUE, Register.ACC_ID: registers.ACC_ID_VALUE,
    Register.MAG_ID: registers.MAG_ID_VALUE, Register.GYR_ID: registers.GYR_ID_VALUE,
    Register.SW_REV: 0x11, Register.SW_REV + 1: 0x03, Register.BL_REV: 0x15, Register.ST_RESULT: 0x0F,
    Register.UNIT_SEL: registers.UNIT_ANDROID, Register.AXIS_MAP_CONFIG: 0x24,
}
_RESET_PAGE_1 = {0x07: 0x01, 0x08: 0x0D, 0x09: 0x6D, 0x0A: 0x38}  # acc 4 g 62.5 Hz, mag, gyr 2000 deg/s 32 Hz


class Bno055:
    """The chip: registers, modes, reset, and data that follow a body in motion.

    Args:
        errors: offsets, drift and noise of the sensors.
        sway: whether the body sways; otherwise it lies still and level.
        clock: seconds, monotonic; the chip is powered at the first reading.
    """

    def __init__(self, errors: SensorErrors, sway: bool, clock: Callable[[], float]) -> None:
        self._errors, self._sway, self._clock = errors, sway, clock
        self._powered = clock()
        self._request = bytearray()
        self._request_at = 0.0
        self._busy_until = 0.0
        self._reset()

    def _reset(self) -> None:
        self._page = bytearray(_LAST + 1)
        for address, value in _RESET.items():
            self._page[address] = value
        self._page_1 = bytearray(_LAST_ON_PAGE_1 + 1)
        for address, value in _RESET_PAGE_1.items():
            self._page_1[address] = value
        self._tick = -1

    @property
    def mode(self) -> Mode:
        """Operation mode the chip is in."""
        return Mode(self._page[Register.OPR_MODE] & 0x0F)

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the host and return the chip's replies to the requests they complete."""
        now = self._clock()
        replies = b''
        if self._request and now - self._request_at > registers.CHARACTER_TIMEOUT_S:
            self._request.clear()
            replies += _status(Status.RECEIVE_CHARACTER_TIMEOUT)
        if now < self._busy_until:  # booting or between modes: deaf
            return b''
        self._request += data
        self._request_at = now
        while self._request:
            if self._request[0] != registers.REQUEST:
                self._request.clear()
                return replies + _status(Status.WRONG_START_BYTE)
            if len(self._request) < 4:
                break
            direction, address, length = self._request[1:4]
            whole = 4 + (length if direction == registers.WRITE else 0)
            if length > registers.MAX_LENGTH or length == 0 or direction not in (registers.READ, registers.WRITE):
                self._request.clear()
                wrong = (Status.MAX_LENGTH_ERROR if length > registers.MAX_LENGTH else
                         Status.MIN_LENGTH_ERROR if length == 0 else Status.READ_FAIL)
                return replies + _status(wrong)
            if len(self._request) < whole:
                break
            payload = bytes(self._request[4:whole])
            del self._request[:whole]
            replies += self._read(address, length) if direction == registers.READ else self._write(address, payload)
        return replies

    def _read(self, address: int, length: int) -> bytes:
        self._refresh()
        page = self._page_1 if self._page[Register.PAGE_ID] == 1 else self._page
        if address + length > len(page):
            return _status(Status.REGMAP_INVALID_ADDRESS)
        return bytes([registers.DATA, length]) + bytes(page[address:address + length])

    def _write(self, address: int, payload: bytes) -> bytes:
        on_page_1 = self._page[Register.PAGE_ID] == 1
        if address + len(payload) > len(self._page_1 if on_page_1 else self._page):
            return _status(Status.REGMAP_INVALID_ADDRESS)
        for offset, value in enumerate(payload):
            place = address + offset
            if place == Register.PAGE_ID:
                if value > 1:
                    return _status(Status.WRITE_FAIL)
                self._page[Register.PAGE_ID] = value
            elif on_page_1:
                if self.mode != Mode.CONFIG:
                    return _status(Status.REGMAP_WRITE_DISABLED)
                self._page_1[place] = value
            elif place not in _WRITABLE or (place not in _ALWAYS and self.mode != Mode.CONFIG):
                return _status(Status.REGMAP_WRITE_DISABLED)
            elif place == Register.OPR_MODE:
                if value & 0x0F > Mode.NDOF:
                    return _status(Status.WRITE_FAIL)
                self._switch(Mode(value & 0x0F))
            elif place == Register.SYS_TRIGGER:
                if value & registers.TRIGGER_RESET:
                    self._reset()
                    self._busy_until = self._clock() + registers.BOOT_S
                    return b''  # the reset swallows the acknowledgement
            else:
                self._page[place] = value
        return _status(Status.WRITE_SUCCESS)

    def _switch(self, mode: Mode) -> None:
        if mode != self.mode:
            delay = registers.SWITCH_TO_CONFIG_S if mode == Mode.CONFIG else registers.SWITCH_FROM_CONFIG_S
            self._busy_until = self._clock() + delay
        self._page[Register.OPR_MODE] = mode
        self._tick = -1

    def _refresh(self) -> None:
        """Bring the data registers to the current tick of the output data rate."""
        seconds = self._clock() - self._powered
        if self._tick == int(seconds * TICK_HZ):
            return
        self._tick = int(seconds * TICK_HZ)
        mode, units = self.mode, self._page[Register.UNIT_SEL]
        self._page[Register.ACC_DATA:Register.TEMP] = bytes(Register.TEMP - Register.ACC_DATA)
        exact = truth(seconds, self._sway)
        force, velocity = self._errors.measured(exact, seconds)
        per_acceleration = registers.LSB_PER_MPS2
        if units & registers.UNIT_MG:
            per_acceleration = registers.LSB_PER_MG * 1000.0 / 9.80665
        if mode in _WITH_ACC:
            self._words(Register.ACC_DATA, force * per_acceleration)
        if mode in _WITH_MAG:
            self._words(Register.MAG_DATA, [field * registers.LSB_PER_MICROTESLA for field in _EARTH_FIELD_UT])
        if mode in _WITH_GYR:
            per_velocity = (registers.LSB_PER_RPS if units & registers.UNIT_RPS
                            else registers.LSB_PER_DPS * 180.0 / math.pi)
            self._words(Register.GYR_DATA, velocity * per_velocity)
        if mode >= Mode.IMU:
            self._fuse(exact, units, per_acceleration)
        celsius = self._errors.temperature(seconds) if mode != Mode.CONFIG else AMBIENT_C
        fahrenheit = (celsius * 9 / 5 + 32) / 2  # one count is 2 degrees Fahrenheit
        self._page[Register.TEMP] = round(fahrenheit if units & registers.UNIT_FAHRENHEIT else celsius) & 0xFF
        self._page[Register.CALIB_STAT] = 0xFF if mode >= Mode.IMU else 0x00
        self._page[Register.SYS_STATUS] = (
            registers.SYS_STATUS_IDLE if mode == Mode.CONFIG else
            registers.SYS_STATUS_FUSION if mode >= Mode.IMU else registers.SYS_STATUS_NO_FUSION)

    def _fuse(self, exact: Truth, units: int, per_acceleration: float) -> None:
        """Fill what the chip's own fusion gives; it removes the offsets, so these are the exact values."""
        roll, pitch, yaw = (float(angle) for angle in exact.euler)
        heading = -yaw % (2 * math.pi)  # clockwise from above
        per_angle = (registers.LSB_PER_RADIAN if units & registers.UNIT_RADIANS
                     else registers.LSB_PER_DEGREE * 180.0 / math.pi)
        turned = -pitch if units & registers.UNIT_ANDROID else pitch
        self._words(Register.EUL_DATA, [heading * per_angle, roll * per_angle, turned * per_angle])
        (cr, sr), (cp, sp), (cy, sy) = ((math.cos(angle / 2), math.sin(angle / 2)) for angle in (roll, pitch, yaw))
        self._words(Register.QUA_DATA, [value * registers.LSB_PER_QUATERNION_UNIT for value in (
            cr * cp * cy + sr * sp * sy, sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy, cr * cp * sy - sr * sp * cy)])
        self._words(Register.GRV_DATA, exact.specific_force * per_acceleration)

    def _words(self, address: int, values: object) -> None:
        """Store int16 words, saturated as the converters do."""
        words = [max(-32768, min(32767, round(float(value)))) for value in values]  # type: ignore[attr-defined]
        self._page[address:address + 2 * len(words)] = struct.pack(f'<{len(words)}h', *words)


def _status(status: Status) -> bytes:
    return bytes([registers.STATUS, status])
