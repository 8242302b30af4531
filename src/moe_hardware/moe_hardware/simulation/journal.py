"""The journal of a simulated bus: one JSON object a line for every write a servo was asked for."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TextIO

from moe_hardware.dynamixel.control_table import register_at


class Journal:
    """Keeps every write in `entries` or, with a path, appends it to a file at once.

    An entry has time [s since the epoch], monotonic [s, CLOCK_MONOTONIC, comparable between processes], id, address,
    value (int, or a list of bytes when the range is no single register), register (its name or '') and error (number
    of the status packet, 0 = written).
    """

    def __init__(self, path: Path | None = None) -> None:
        self.entries: list[dict[str, object]] = []
        self._file: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open('a', encoding='utf-8', buffering=1)

    def add(self, servo: int, address: int, data: bytes, error: int) -> None:
        """Note one write."""
        register = register_at(address, len(data))
        entry: dict[str, object] = {
            'time': time.time(), 'monotonic': time.monotonic(), 'id': servo, 'address': address,
            'value': register.decode(data) if register is not None else list(data),
            'register': register.name if register is not None else '', 'error': error}
        if self._file is None:
            self.entries.append(entry)  # a simulator that runs for days keeps its file, not its memory
        else:
            self._file.write(json.dumps(entry) + '\n')

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
