"""Where joints should be at a time: pure functions, bounded in speed and acceleration."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from moe_hardware.dynamixel.joints import Joint


class Trajectory(Protocol):
    """Positions over time."""

    @property
    def duration(self) -> float:
        """Time from begin to end [s]."""

    @property
    def goal(self) -> Mapping[str, float]:
        """Positions at the end [rad]."""

    def at(self, time: float) -> dict[str, float]:
        """Positions [rad] at a time since the begin [s]; before it and after the end those there."""


class PointToPoint:
    """All joints from rest to rest in the same time, each on a trapezoid of velocity.

    Args:
        start, goal: positions by joint [rad], same keys.
        joints: limits of speed and acceleration.
        duration: at least this long [s].
    """

    def __init__(self, start: Mapping[str, float], goal: Mapping[str, float], joints: Mapping[str, Joint],
                 duration: float = 0.0) -> None:
        self._start = dict(start)
        self.goal: Mapping[str, float] = dict(goal)
        # In units of the path: 1 is the whole way of every joint; the tightest joint bounds all.
        ways = {name: abs(goal[name] - start[name]) for name in goal}
        velocity = min((joints[name].max_velocity / way for name, way in ways.items() if way), default=math.inf)
        acceleration = min((joints[name].max_acceleration / way for name, way in ways.items() if way),
                           default=math.inf)
        if math.isinf(velocity):
            self._ramp, self.duration = 0.0, max(0.0, duration)
            return
        ramp = min(velocity / acceleration, math.sqrt(1.0 / acceleration))
        fastest = ramp + 1.0 / min(velocity, acceleration * ramp)
        stretch = max(1.0, duration / fastest)
        self._ramp, self.duration = ramp * stretch, fastest * stretch

    def at(self, time: float) -> dict[str, float]:
        """Positions [rad] at a time since the begin [s]."""
        share = self._share(time)
        if share == 1.0:
            return dict(self.goal)  # to the bit
        return {name: begin + share * (self.goal[name] - begin) for name, begin in self._start.items()}

    def _share(self, time: float) -> float:
        if time >= self.duration:
            return 1.0
        if time <= 0.0 or not self._ramp:
            return 0.0
        cruise = 1.0 / (self.duration - self._ramp)  # velocity between the ramps
        if time < self._ramp:
            return 0.5 * cruise / self._ramp * time * time
        if time > self.duration - self._ramp:
            left = self.duration - time
            return 1.0 - 0.5 * cruise / self._ramp * left * left
        return cruise * (time - 0.5 * self._ramp)


class Waypoints:
    """Straight from point to point in joint space, at the times given.

    Args:
        start: positions at time 0 [rad].
        times: of the points [s], ascending, > 0.
        points: positions by joint [rad], one mapping per time, same keys as start.
    """

    def __init__(self, start: Mapping[str, float], times: Sequence[float],
                 points: Sequence[Mapping[str, float]]) -> None:
        self._times = [0.0, *times]
        self._points = [dict(start), *(dict(point) for point in points)]

    @property
    def duration(self) -> float:
        """Time of the last point [s]."""
        return self._times[-1]

    @property
    def goal(self) -> Mapping[str, float]:
        """The last point [rad]."""
        return self._points[-1]

    def at(self, time: float) -> dict[str, float]:
        """Positions [rad] at a time since the begin [s]."""
        if time >= self.duration:
            return dict(self._points[-1])
        after = max(1, bisect.bisect_right(self._times, time))
        begin, end = self._points[after - 1], self._points[after]
        length = self._times[after] - self._times[after - 1]
        share = max(0.0, time - self._times[after - 1]) / length
        return {name: begin[name] + share * (end[name] - begin[name]) for name in begin}
