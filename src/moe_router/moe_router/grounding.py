"""The robot's last known state as a short block of text, every value with its age."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """A value in words and when it was measured [s, ROS time]; `good_s` overrides the age that is still fresh."""

    text: str
    stamp_s: float


def orientation(x: float, y: float, z: float, w: float) -> str:
    """A unit quaternion as roll, pitch and yaw in degrees (REP 103); says so where it is none."""
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    if not math.isfinite(norm) or norm < 1e-6:
        return 'orientation unknown'
    x, y, z, w = x / norm, y / norm, z / norm, w / norm
    roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x))))
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return ', '.join(f'{name} {math.degrees(angle):+.0f} deg'
                     for name, angle in (('roll', roll), ('pitch', pitch), ('yaw', yaw)))


def joints(positions: Mapping[str, float]) -> str:
    """Joint positions [rad] in degrees."""
    return ', '.join(f'{name} {math.degrees(position):+.0f} deg' if math.isfinite(position) else f'{name} unknown'
                     for name, position in positions.items())


class RobotState:
    """The latest reading of each source; safe to use from several threads."""

    def __init__(self, sources: tuple[str, ...]) -> None:
        self._sources, self._lock = sources, threading.Lock()
        self._readings: dict[str, Reading] = {}

    def hear(self, source: str, reading: Reading) -> None:
        """Keep a reading; an older one never replaces a newer one."""
        with self._lock:
            before = self._readings.get(source)
            if before is None or reading.stamp_s >= before.stamp_s:
                self._readings[source] = reading

    def block(self, now_s: float, max_age_s: float) -> str:
        """The block that goes into a prompt; what is older than max_age_s is named stale, without its value."""
        with self._lock:
            readings = dict(self._readings)
        lines = []
        for source in self._sources:
            reading = readings.get(source)
            if reading is None:
                lines.append(f'{source}: no data')
                continue
            age = now_s - reading.stamp_s
            if not -1.0 <= age <= max_age_s:  # a stamp of the future is as little use as an old one
                lines.append(f'{source}: stale, {age:.1f} s old')
            else:
                lines.append(f'{source}: {reading.text} ({max(0.0, age):.1f} s ago)')
        return f'Robot state at {now_s:.1f} s:\n' + '\n'.join(lines)
