"""An I2C bus without hardware, below smbus2: it answers the ioctl calls of i2c-dev that smbus2 makes.

The kernel has no pseudo-terminal for I2C, so the place to simulate is the system call: everything of smbus2 above it,
its structures included, runs unchanged.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import smbus2.smbus2

smbus: Any = smbus2.smbus2  # untyped: its imported ioctl is replaced

_FUNCS_OF_AN_ADAPTER = 0x0EFF0008 | 0x1  # I2C, all SMBus transfers, I2C blocks


class I2cChip(Protocol):
    """A chip with registers."""

    def read(self, register: int, count: int) -> bytes:
        """Registers from an address on."""

    def write(self, register: int, data: bytes) -> None:
        """Write registers from an address on."""


class SimulatedI2cBus:
    """Chips on a bus, while the block of its context manager runs.

    Args:
        path: of the bus, in place of /dev/i2c-1; made as an empty file.
        chips: by address; a chip that is taken away acknowledges nothing.
    """

    def __init__(self, path: Path, chips: Mapping[int, I2cChip]) -> None:
        self.path = path
        self.chips = dict(chips)
        self.failing = 0  # so many transfers are not acknowledged
        self._addresses: dict[int, int] = {}
        self._before: Any = None

    def __enter__(self) -> SimulatedI2cBus:
        self.path.touch()
        self._before, smbus.ioctl = smbus.ioctl, self._ioctl
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None,
                 _trace: TracebackType | None) -> None:
        smbus.ioctl = self._before
        self.path.unlink(missing_ok=True)

    def _ioctl(self, descriptor: int, request: int, argument: Any) -> int:
        if request == smbus.I2C_FUNCS:
            argument.value = _FUNCS_OF_AN_ADAPTER
        elif request in (smbus.I2C_SLAVE, smbus.I2C_SLAVE_FORCE):
            self._addresses[descriptor] = argument
        elif request == smbus.I2C_SMBUS:
            self._transfer(self._addresses[descriptor], argument)
        else:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        return 0

    def _transfer(self, address: int, message: Any) -> None:
        chip = self.chips.get(address)
        if chip is None or self.failing:
            self.failing = max(0, self.failing - 1)
            raise OSError(errno.EREMOTEIO, os.strerror(errno.EREMOTEIO))
        data = message.data.contents
        whole = message.size == smbus.I2C_SMBUS_I2C_BLOCK_DATA
        if message.size not in (smbus.I2C_SMBUS_I2C_BLOCK_DATA, smbus.I2C_SMBUS_BYTE_DATA):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if message.read_write == smbus.I2C_SMBUS_READ:
            count = data.block[0] if whole else 1
            found = chip.read(message.command, count)
            for at, value in enumerate(found):
                data.block[at + whole] = value
        else:
            count = data.block[0] if whole else 1
            chip.write(message.command, bytes(data.block[at + whole] for at in range(count)))
