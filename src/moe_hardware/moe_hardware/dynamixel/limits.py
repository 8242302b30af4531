"""What a command must keep to before a byte is written: known joints, real numbers, ranges, speed.

A command that breaks one rule is refused whole, with a SafetyViolation that names the first rule it breaks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from moe_hardware.dynamixel.joints import Joint
from moe_hardware.errors import SafetyViolation

_SLACK = 1e-6  # [rad] and [rad/s]; 90 degrees must be allowed where the limit is 90 degrees
_RANGE_SLACK = 1e-3  # [rad], less than a tick (1.5 mrad): a servo at its limit may stand a rounding beyond it
_START_SLACK = 0.05  # [rad] a point at time 0 may be away from where the joint is


def check_names(joints: Mapping[str, Joint], names: Sequence[str]) -> None:
    """Refuse none, unknown and repeated names."""
    if not names:
        raise SafetyViolation(f'The command names no joint; name some of {", ".join(joints)}.')
    for name in names:
        if name not in joints:
            raise SafetyViolation(f'There is no joint "{name}"; the joints are {", ".join(joints)}.')
    if len(set(names)) < len(names):
        raise SafetyViolation('The command names a joint twice; name each once.')


def check_positions(joints: Mapping[str, Joint], names: Sequence[str], positions: Sequence[float]) -> dict[str, float]:
    """Return the targets by name [rad]; refuse too few or many, NaN, infinity and what is out of range."""
    check_names(joints, names)
    if len(positions) != len(names):
        raise SafetyViolation(f'The command has {len(names)} joints and {len(positions)} positions; give one each.')
    for name, position in zip(names, positions):
        joint = joints[name]
        if not math.isfinite(position):
            raise SafetyViolation(f'The position of {name} is {position}, not a number; give radians.')
        if not joint.minimum - _RANGE_SLACK <= position <= joint.maximum + _RANGE_SLACK:
            raise SafetyViolation(
                f'{name} at {math.degrees(position):.1f} degrees is outside its range of '
                f'{math.degrees(joint.minimum):.1f} to {math.degrees(joint.maximum):.1f} degrees; nothing was moved.')
    return {name: min(joints[name].maximum, max(joints[name].minimum, float(position)))
            for name, position in zip(names, positions)}


def check_duration(duration: float) -> None:
    """Refuse negative and unreal times [s]."""
    if not math.isfinite(duration) or duration < 0.0:
        raise SafetyViolation(f'The duration is {duration} s; give 0 (as fast as allowed) or more.')


def check_times(times: Sequence[float]) -> None:
    """Refuse an empty trajectory and times [s] that do not rise from 0 on."""
    if not times:
        raise SafetyViolation('The trajectory has no points; give one at least.')
    if any(not math.isfinite(time) for time in times) or times[0] < 0.0:
        raise SafetyViolation('A time_from_start of the trajectory is negative or not a number.')
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise SafetyViolation('The times of the trajectory do not rise; every point must come after the one before it.')


def check_speed(joints: Mapping[str, Joint], start: Mapping[str, float], times: Sequence[float],
                points: Sequence[Mapping[str, float]]) -> None:
    """Refuse a trajectory that asks a joint for more than its max_velocity, the way to the first point included."""
    before, begin = start, 0.0
    for point, time in zip(points, times):
        for name, position in point.items():
            way, most = abs(position - before[name]), joints[name].max_velocity
            if way > most * (time - begin) + (_SLACK if time > begin else _START_SLACK):
                speed = way / (time - begin) if time > begin else math.inf
                raise SafetyViolation(
                    f'{name} would have to move at {speed:.2f} rad/s to be at {math.degrees(position):.1f} degrees '
                    f'after {time:.2f} s, faster than its {most:.2f} rad/s; give it more time.')
        before, begin = point, time
