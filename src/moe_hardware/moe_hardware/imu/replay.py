"""A recording in place of an IMU: rows of a CSV file, or of whatever else can be read, at their own pace."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from moe_hardware import device_access
from moe_hardware.errors import HardwareFault
from moe_hardware.imu.reading import Reading, Vector

LONGEST_PAUSE_S = 1.0  # longer ones of the recording are shortened
# Names of the columns; the first that is there counts. Degrees Celsius, rad/s, m/s^2.
_TIMES = {'time': 1e9, 't': 1e9, 'timestamp': 1e9, 'stamp_ns': 1.0, '__time': 1e9}  # to nanoseconds
_VELOCITY = ('angular_velocity.{}', 'angular_velocity_{}', 'gyro_{}', 'g{}', 'w{}')
_ACCELERATION = ('linear_acceleration.{}', 'linear_acceleration_{}', 'accel_{}', 'acc_{}', 'a{}')
_ECHO_COLUMNS = 40  # of `ros2 topic echo --csv` for sensor_msgs/Imu: stamp, frame, orientation, 9, 3, 9, 3, 9


class ReplayDriver:
    """Plays a recording again and again, or once.

    Args:
        name: of the recording.
        load: returns its readings, in order; called anew at each open(). Raises HardwareFault, OSError or ValueError.
        loop: begin again at its end; otherwise the device is gone then.
    """

    paced = True

    def __init__(self, name: str, load: Callable[[Path], Sequence[Reading]], loop: bool) -> None:
        self._name, self._load, self._loop = name, load, loop
        self._readings: Sequence[Reading] = ()
        self._at = 0
        self._due = 0.0
        self._ended = False

    def open(self) -> None:
        """Read the recording. Raises HardwareFault when there is none, or when it has been played."""
        if self._ended:
            raise HardwareFault(f'{self._name} has ended after {len(self._readings)} readings; set loop, or port_name '
                                'to another.')
        try:
            self._readings = self._load(Path(self._name).expanduser())
        except OSError as error:
            raise HardwareFault(device_access.explain(self._name, error, 'set port_name to a recording')) from error
        except ValueError as error:
            raise HardwareFault(f'{self._name} is no recording of an IMU ({error}); see docs/hardware.md for its '
                                'columns.') from error
        self._at, self._due = 0, time.monotonic()

    def close(self) -> None:
        """Nothing is held open."""

    def read(self) -> tuple[Vector, Vector]:
        """Wait for the time of the next reading, a second at most, and return it. Raises HardwareFault at the end."""
        if self._at == len(self._readings):
            if not self._loop:
                self._ended = True
                self.open()
            self._at = 0
        reading = self._readings[self._at]
        before = self._readings[max(0, self._at - 1)]
        pause = (reading.stamp_ns - before.stamp_ns) * 1e-9
        self._at += 1
        now = time.monotonic()
        self._due = max(now - LONGEST_PAUSE_S, self._due) + min(LONGEST_PAUSE_S, max(0.0, pause))
        if self._due > now:
            time.sleep(self._due - now)
        return reading.angular_velocity, reading.linear_acceleration

    def read_temperature(self) -> float:
        """Return the temperature in the recording [degree Celsius]; NaN where it has none."""
        return self._readings[min(self._at, len(self._readings) - 1)].temperature


def load_csv(path: Path) -> list[Reading]:
    """Read a CSV file: with a header (see docs/hardware.md), or as `ros2 topic echo --csv` writes sensor_msgs/Imu.

    Raises ValueError with the row that is wrong, OSError.
    """
    with path.open(encoding='utf-8', newline='') as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise ValueError('it is empty')
    if len(rows[0]) == _ECHO_COLUMNS and rows[0][0].isdigit():
        return ordered(_echoed(row, number) for number, row in enumerate(rows, 1))
    columns = {name.strip().lower().removeprefix('/imu/data/').removeprefix('/imu/data_raw/'): at
               for at, name in enumerate(rows[0])}
    when = next((name for name in _TIMES if name in columns), None)
    axes = [next((columns[one.format(axis)] for one in names if one.format(axis) in columns), None)
            for names in (_VELOCITY, _ACCELERATION) for axis in 'xyz']
    if when is None or None in axes:
        raise ValueError('its first row must name time, gyro_x..z [rad/s] and accel_x..z [m/s^2]')
    celsius = columns.get('temperature')
    found = []
    for number, row in enumerate(rows[1:], 2):
        stamp, *values = _numbers([row[at] if at < len(row) else '' for at in (columns[when], *axes)
                                   if at is not None], number)
        temperature = float(row[celsius]) if celsius is not None and celsius < len(row) else math.nan
        found.append(Reading(round(stamp * _TIMES[when]), _vector(values[:3]), _vector(values[3:]), temperature))
    return ordered(found)


def ordered(readings: Iterable[Reading]) -> list[Reading]:
    """Return readings as a list. Raises ValueError when there is none."""
    found = list(readings)
    if not found:
        raise ValueError('it has no reading')
    return found


def _echoed(row: list[str], number: int) -> Reading:
    if len(row) != _ECHO_COLUMNS:
        raise ValueError(f'row {number} has {len(row)} columns instead of {_ECHO_COLUMNS}')
    values = _numbers([*row[:2], *row[16:19], *row[28:31]], number)
    return Reading(int(row[0]) * 1_000_000_000 + int(row[1]), _vector(values[2:5]), _vector(values[5:8]), math.nan)


def _numbers(cells: Sequence[str], row: int) -> list[float]:
    try:
        values = [float(cell) for cell in cells]
    except ValueError as error:
        raise ValueError(f'row {row}: {error}') from error
    if not all(map(math.isfinite, values)):
        raise ValueError(f'row {row} has a value that is no number')
    return values


def _vector(values: Sequence[float]) -> Vector:
    x, y, z = values
    return (x, y, z)
