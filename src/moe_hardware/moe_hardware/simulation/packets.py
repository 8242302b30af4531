"""Protocol 2.0 frames as a servo reads and writes them (e-manual, DYNAMIXEL Protocol 2.0).

Written without the SDK, so that a fault of the SDK cannot hide behind the same fault here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

HEADER = b'\xff\xff\xfd'
BROADCAST = 0xFE
STATUS = 0x55
LENGTH_LIMIT = 1024  # bytes after the length field; longer is noise
_FIXED = 7  # header, reserved, id and the two bytes of the length


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        crc = value << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
        table.append(crc)
    return tuple(table)


_TABLE = _crc_table()


def crc16(data: bytes) -> int:
    """CRC-16 with the polynomial 0x8005, not reflected, beginning with 0."""
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ _TABLE[crc >> 8 ^ byte]
    return crc


def stuff(body: bytes) -> bytes:
    """Put FD after every FF FF FD, so that the body holds no header."""
    return body.replace(HEADER, HEADER + b'\xfd')


def unstuff(body: bytes) -> bytes:
    """Undo stuff()."""
    return body.replace(HEADER + b'\xfd', HEADER)


@dataclass(frozen=True)
class Instruction:
    """What a master asks; `intact` is False when the CRC is wrong."""

    id: int
    code: int
    parameters: bytes
    intact: bool = True


def frame(servo: int, body: bytes) -> bytes:
    """Whole packet around an instruction or status body."""
    stuffed = stuff(body)
    packet = HEADER + bytes((0, servo)) + (len(stuffed) + 2).to_bytes(2, 'little') + stuffed
    return packet + crc16(packet).to_bytes(2, 'little')


def status(servo: int, error: int, parameters: bytes = b'') -> bytes:
    """Status packet of a servo."""
    return frame(servo, bytes((STATUS, error)) + parameters)


class Parser:
    """Finds instruction packets in a stream of bytes, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def clear(self) -> None:
        """Forget an unfinished packet."""
        self._buffer.clear()

    def feed(self, data: bytes) -> Iterator[Instruction]:
        """Yield every packet that data completes."""
        buffer = self._buffer
        buffer += data
        while True:
            begin = buffer.find(HEADER)
            if begin < 0:
                del buffer[:max(0, len(buffer) - len(HEADER) + 1)]  # a header may be cut in two
                return
            del buffer[:begin]
            if len(buffer) < _FIXED:
                return
            length = int.from_bytes(buffer[5:7], 'little')
            if buffer[3] == 0xFD or not 3 <= length <= LENGTH_LIMIT:
                del buffer[:1]
                continue
            if len(buffer) < _FIXED + length:
                return
            packet = bytes(buffer[:_FIXED + length])
            del buffer[:len(packet)]
            body = unstuff(packet[_FIXED:-2])
            yield Instruction(packet[4], body[0], body[1:],
                              crc16(packet[:-2]) == int.from_bytes(packet[-2:], 'little'))
