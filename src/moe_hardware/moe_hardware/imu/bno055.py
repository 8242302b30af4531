"""Driver of the Bosch BNO055 on UART: accelerometer and gyroscope without the chip's own fusion."""

from __future__ import annotations

import contextlib
import math
import os
import struct
import termios
import time

import serial

from moe_hardware import device_access
from moe_hardware.errors import HardwareFault
from moe_hardware.imu import registers
from moe_hardware.imu.driver import DamagedReply
from moe_hardware.imu.reading import Vector
from moe_hardware.imu.registers import Mode, Register, Status

REPLY_TIMEOUT_S = 0.06  # a USB adapter may hold a reply back for 16 ms
WRITE_TIMEOUT_S = 1.0  # pyserial's also strikes when this process did not run for as long
QUIET_S = 0.03
DRAIN_LIMIT_S = 0.5
ATTEMPTS = 5
_DATA_LENGTH = 18  # acceleration, magnetic field, angular velocity
_HEALTH_LENGTH = Register.SYS_ERR - Register.TEMP + 1
_UNITS = registers.UNIT_ANDROID | registers.UNIT_RPS  # m/s^2, rad/s, degrees Celsius
_SYSTEM_ERRORS = {
    1: 'peripheral initialisation', 2: 'system initialisation', 3: 'self test', 4: 'register value out of range',
    5: 'register address out of range', 6: 'register write', 7: 'low power mode not available',
    8: 'accelerometer power mode not available', 9: 'fusion configuration', 10: 'sensor configuration'}


class Bno055Driver:
    """Talks to the chip; not safe for several threads.

    The protocol has no checksum. So a reply counts only when it begins at once with the right header and has the
    length asked for; after one that does not, the line is drained and the chip's id is read, a reply of another
    length than the data, so that a late reply is never taken for the answer to the next request.

    Args:
        port_name: device or symlink; followed anew at each open().
        baud_rate: [baud]; the chip has 115200 and no other.
    """

    paced = False

    def __init__(self, port_name: str, baud_rate: int) -> None:
        self._port_name, self._baud_rate = port_name, baud_rate
        self._port: serial.Serial | None = None
        self._in_step = False

    def open(self) -> None:
        """Open the port and start the sensors. Raises HardwareFault: absent, busy, no permission, silent."""
        plug = 'plug in the IMU or set port_name (see ls -l /dev/serial/by-id)'
        try:
            self._port = serial.Serial(os.path.realpath(self._port_name), self._baud_rate, timeout=REPLY_TIMEOUT_S,
                                       write_timeout=WRITE_TIMEOUT_S, exclusive=True)
        except (OSError, ValueError, termios.error) as error:
            raise HardwareFault(device_access.explain(self._port_name, error, plug)) from error
        self._in_step = False
        last: DamagedReply | None = None
        for _ in range(ATTEMPTS):
            try:
                self._configure()
                return
            except DamagedReply as damage:
                last = damage
        raise HardwareFault(
            f'Nothing on {self._port_name} answers as a BNO055 at {self._baud_rate} baud ({last}); check baud_rate, '
            'that TX and RX are crossed, and that pin PS1 is high (UART).')

    def close(self) -> None:
        """Close the port."""
        if self._port is not None:
            with contextlib.suppress(OSError, termios.error):
                self._port.close()
            self._port = None

    def read(self) -> tuple[Vector, Vector]:
        """Return angular velocity [rad/s] and specific force [m/s^2].

        Raises:
            DamagedReply: this reading failed; ask again.
            HardwareFault: the device is gone.
        """
        data = self._request(registers.READ, Register.ACC_DATA, bytes([_DATA_LENGTH]), _DATA_LENGTH)
        words = struct.unpack('<9h', data)
        if not any(words):
            # The registers of a chip in CONFIG mode, where it is after a reset of its own.
            raise DamagedReply('all values are zero')
        acceleration = tuple(word / registers.LSB_PER_MPS2 for word in words[:3])
        velocity = tuple(word / registers.LSB_PER_RPS for word in words[6:])
        if (max(map(abs, acceleration)) > 1.1 * registers.ACC_RANGE_MPS2
                or max(map(abs, velocity)) > 1.1 * math.radians(registers.GYR_RANGE_DPS)):
            self._in_step = False
            raise DamagedReply('a value is outside the range of the sensor')
        return (velocity[0], velocity[1], velocity[2]), (acceleration[0], acceleration[1], acceleration[2])

    def read_temperature(self) -> float:
        """Return the chip's temperature [degree Celsius], having checked that the chip still measures.

        Raises:
            DamagedReply: this reading failed; ask again.
            HardwareFault: the chip has left the measuring mode or reports an error.
        """
        health = self._request(registers.READ, Register.TEMP, bytes([_HEALTH_LENGTH]), _HEALTH_LENGTH)
        status, error = health[-2], health[-1]
        if status == registers.SYS_STATUS_ERROR:
            cause = _SYSTEM_ERRORS.get(error, f'code {error}')
            raise HardwareFault(f'The IMU on {self._port_name} reports a system error ({cause}); power it off and on.')
        if status == registers.SYS_STATUS_IDLE:
            raise HardwareFault(f'The IMU on {self._port_name} was reset and is being set up again; if this goes on, '
                                'check its supply.')
        return float(struct.unpack('b', health[:1])[0])

    def _configure(self) -> None:
        self._write(Register.OPR_MODE, Mode.CONFIG)
        time.sleep(registers.SWITCH_TO_CONFIG_S + 0.002)
        self._write(Register.PAGE_ID, 0)
        self._write(Register.PWR_MODE, 0)
        self._write(Register.UNIT_SEL, _UNITS)
        self._write(Register.OPR_MODE, Mode.AMG)
        time.sleep(registers.SWITCH_FROM_CONFIG_S + 0.015)  # and the first sample
        # A late acknowledgement may have stood for another write.
        units, mode = (self._request(registers.READ, address, bytes([1]), 1)[0]
                       for address in (Register.UNIT_SEL, Register.OPR_MODE))
        if (units, mode & 0x0F) != (_UNITS, Mode.AMG):
            raise DamagedReply(f'units 0x{units:02X} and mode 0x{mode:02X} instead of those written')

    def _write(self, address: int, value: int) -> None:
        self._request(registers.WRITE, address, bytes([1, value]), 0)

    def _request(self, direction: int, address: int, rest: bytes, reply_length: int) -> bytes:
        """Send a request and return the bytes read. Raises DamagedReply and HardwareFault."""
        try:
            if not self._in_step:
                self._resynchronise()
            return self._exchange(bytes([registers.REQUEST, direction, address]) + rest, reply_length)
        except (OSError, TypeError, termios.error) as error:  # pyserial's own error is an OSError
            self._in_step = False
            raise HardwareFault(f'The connection to the IMU on {self._port_name} was lost ({error}); plug it in '
                                'again.') from error
        except DamagedReply:
            self._in_step = False
            raise

    def _resynchronise(self) -> None:
        """Wait until the line is quiet, then read the chip's id."""
        port = self._open_port()
        give_up = time.monotonic() + DRAIN_LIMIT_S
        quiet_at = time.monotonic() + QUIET_S
        while time.monotonic() < min(quiet_at, give_up):
            if port.in_waiting:
                port.reset_input_buffer()
                quiet_at = time.monotonic() + QUIET_S
            time.sleep(0.005)
        identity = self._exchange(bytes([registers.REQUEST, registers.READ, Register.CHIP_ID, 1]), 1)
        if identity[0] != registers.CHIP_ID_VALUE:
            raise DamagedReply(f'chip id 0x{identity[0]:02X} instead of 0x{registers.CHIP_ID_VALUE:02X}')
        self._in_step = True

    def _exchange(self, request: bytes, reply_length: int) -> bytes:
        port = self._open_port()
        if port.in_waiting:
            port.reset_input_buffer()
            raise DamagedReply('bytes nobody asked for')
        port.write(request)
        header = port.read(2)
        if len(header) < 2:
            raise DamagedReply('no reply' if not header else 'reply cut short')
        if header[0] == registers.STATUS:
            return self._outcome(header[1], reply_length)
        if header != bytes([registers.DATA, reply_length]) or not reply_length:
            raise DamagedReply(f'reply begins with {header.hex(" ")}')
        data = bytes(port.read(reply_length))
        if len(data) < reply_length:
            raise DamagedReply('reply cut short')
        return data

    @staticmethod
    def _outcome(code: int, reply_length: int) -> bytes:
        if code == Status.WRITE_SUCCESS and not reply_length:
            return b''
        name = Status(code).name if code in {*Status} else f'0x{code:02X}'
        raise DamagedReply(f'status {name}')

    def _open_port(self) -> serial.Serial:
        if self._port is None:
            raise OSError('the port is closed')
        return self._port
