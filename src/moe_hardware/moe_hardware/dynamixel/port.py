"""Serial port of the bus: the SDK's PortHandler without its busy waiting, exclusive, and with errors in words."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import termios
import time

import serial
from dynamixel_sdk.port_handler import PortHandler

from moe_hardware.device_access import explain
from moe_hardware.errors import HardwareFault

LATENCY_S = 0.034  # longest pause before an answer; a USB adapter alone may hold it back for 16 ms
WRITE_TIMEOUT_S = 0.5  # a line that takes no bytes for this long is dead


class PortGone(HardwareFault):
    """The device was unplugged, or the line is dead."""


class BusPort(PortHandler):  # type: ignore[misc]
    """A serial port that waits in select() and belongs to one process.

    What differs from the SDK: readPort() blocks until a byte or the end of the packet's time instead of spinning;
    open() takes a baud rate, locks the port (flock and TIOCEXCL) and follows symlinks anew; times are
    monotonic; an unplugged device raises PortGone.

    Args:
        port_name: device or symlink, e.g. /dev/serial/by-id/usb-FTDI_USB__-__Serial_Converter_FT4THUKG-if00-port0.
    """

    def __init__(self, port_name: str) -> None:
        super().__init__(port_name)
        self.resolved = ''  # the device behind the symlink when it was opened
        self.unsure = False  # something may still come that belongs to an earlier request

    def open(self, baud_rate: int) -> None:
        """Open and lock the port, or open it anew. Raises HardwareFault with what is wrong and what to do."""
        if self.getCFlagBaud(baud_rate) <= 0:
            raise HardwareFault(f'The SDK has no {baud_rate} baud; take that of the servos, from the factory 57600.')
        try:
            self.setupPort(baud_rate)
        except (OSError, ValueError, termios.error) as error:
            raise HardwareFault(explain(self.port_name, error, 'plug the adapter in or set port_name '
                                        '(ls -l /dev/serial/by-id)')) from error

    def setupPort(self, cflag_baud: int) -> bool:
        """Open the port at a baud rate, as the SDK does, but locked and with the symlink followed anew."""
        self.closePort()
        self.baudrate = cflag_baud
        self.resolved = os.path.realpath(self.port_name)
        self.ser = serial.Serial(self.resolved, self.baudrate, timeout=0, exclusive=True)
        fcntl.ioctl(self.ser.fileno(), termios.TIOCEXCL)
        # 1 ms instead of 16 on FTDI adapters; pyserial raises ValueError where the port knows no such mode
        with contextlib.suppress(ValueError):
            self.ser.set_low_latency_mode(True)
        self.is_open = True
        self.is_using = False
        self.unsure = False
        self.ser.reset_input_buffer()
        self.tx_time_per_byte = 1000.0 / cflag_baud * 10.0
        return True

    def closePort(self) -> None:
        """Close and unlock; harmless when the device is gone."""
        if self.ser is not None:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self.ser.fileno(), termios.TIOCNXCL)
            with contextlib.suppress(OSError):
                self.ser.close()
        self.is_open = False
        self.is_using = False

    def moved(self) -> bool:
        """Whether the name leads to another device now than when it was opened."""
        return bool(os.path.realpath(self.port_name) != self.resolved)

    def clearPort(self) -> None:
        """Drop what is in the buffer; that there was something makes the port unsure."""
        try:
            if self.ser.in_waiting:
                self.unsure = True
                self.ser.reset_input_buffer()
        except (OSError, ValueError, TypeError, termios.error) as error:
            raise PortGone(self._gone()) from error

    def readPort(self, length: int) -> bytes:
        """Wait for bytes until the packet's time is over; at most `length`, b'' when none came."""
        remaining = (self.packet_timeout - self.getTimeSinceStart()) / 1000.0
        try:
            if not select.select([self.ser.fileno()], [], [], max(0.0, remaining))[0]:
                return b''
            return bytes(self.ser.read(length))
        except (OSError, ValueError, TypeError) as error:
            raise PortGone(self._gone()) from error

    def writePort(self, packet: list[int]) -> int:
        """Send a packet. Not by pyserial: its timeout also strikes when this process did not run for as long."""
        rest = memoryview(bytes(packet))
        try:
            descriptor = self.ser.fileno()
            while rest:
                try:
                    rest = rest[os.write(descriptor, rest):]
                except BlockingIOError:
                    if not select.select([], [descriptor], [], WRITE_TIMEOUT_S)[1]:
                        raise PortGone(self._gone()) from None
        except (OSError, ValueError, TypeError) as error:
            raise PortGone(self._gone()) from error
        return len(packet)

    def _gone(self) -> str:
        return f'{self.port_name} was unplugged or is dead; plug the adapter in again.'

    def setPacketTimeout(self, packet_length: int) -> None:
        """Allow the time of so many bytes on the wire and the latency of the adapter."""
        self.setPacketTimeoutMillis(self.tx_time_per_byte * packet_length + LATENCY_S * 1000.0)

    def getCurrentTime(self) -> float:
        """Monotonic time [ms]; the SDK's own jumps with the wall clock."""
        return time.monotonic() * 1000.0
