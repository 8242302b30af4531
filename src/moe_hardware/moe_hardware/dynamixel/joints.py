"""Joints of the robot: names, bus ids, limits, and the conversion between ticks and radians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from moe_hardware.dynamixel import control_table as ct


@dataclass(frozen=True)
class Joint:
    """One joint, moved by one servo.

    Args:
        name: as in joint_states.
        id: bus id of its servo.
        minimum, maximum: range [rad].
        max_velocity: [rad/s].
        max_acceleration: [rad/s^2].
        direction: -1 where the servo is mounted so that its ticks grow against the joint's positive sense.
    """

    name: str
    id: int
    minimum: float
    maximum: float
    max_velocity: float
    max_acceleration: float
    direction: int = 1

    def radians(self, ticks: int) -> float:
        """Angle of the joint [rad] from a position register."""
        return self.direction * ct.radians(ticks)

    def ticks(self, angle: float) -> int:
        """Value of a position register for an angle of the joint [rad]."""
        return ct.ticks(self.direction * angle)


def configure(names: Sequence[str], ids: Sequence[int], minima: Sequence[float], maxima: Sequence[float],
              directions: Sequence[int], max_velocity: float, max_acceleration: float) -> dict[str, Joint]:
    """Make the joints by name, in order. Raises ValueError that says which setting is wrong."""
    if not names or not len(names) == len(ids) == len(minima) == len(maxima) == len(directions):
        raise ValueError('joint_names, ids, min_position, max_position and directions need one entry for each joint; '
                         f'they have {len(names)}, {len(ids)}, {len(minima)}, {len(maxima)} and {len(directions)}.')
    if len(set(names)) < len(names) or len(set(ids)) < len(ids) or not all(names):
        raise ValueError('joint_names and ids must not repeat or be empty.')
    if any(not 0 <= one <= 252 for one in ids):
        raise ValueError(f'ids must lie within 0..252, not {list(ids)}.')
    if any(one not in (1, -1) for one in directions):
        raise ValueError(f'directions must be 1 or -1, not {list(directions)}.')
    for name, low, high in zip(names, minima, maxima):
        if not -math.pi <= low < high <= math.pi:
            raise ValueError(f'The range of {name}, {low:g}..{high:g} rad, must rise and lie within one turn; '
                             'correct min_position and max_position.')
    if not (max_velocity > 0.0 and max_acceleration > 0.0):
        raise ValueError('max_velocity and max_acceleration must be greater than 0.')
    return {name: Joint(name, servo, low, high, max_velocity, max_acceleration, direction)
            for name, servo, low, high, direction in zip(names, ids, minima, maxima, directions)}
