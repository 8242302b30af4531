"""What a motion command means: JSON text in degrees, or typed moves, to targets in radians for each step.

The language is that of data/motion/schema.json, read as strictly as the schema does: {"joint":"pan","by":30},
{"joint":"tilt","to":-10}, an array of one to four of those in order, {"action":"center"}, {"action":"stop"}, and
{"refuse":"unclear"} or {"refuse":"unsafe"} for what is not to be done. What is beyond the joints is refused here, with
their range. Pan is positive to the left, tilt positive up (REP 103).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from moe_hardware.errors import InvalidCommand, MotionError, SafetyViolation

LONGEST_TEXT = 4096  # characters
MOST_MOVES = 4
_EXAMPLE = 'e.g. {"joint":"pan","by":30}'
_SLACK = math.radians(1.0)  # a target this far beyond the range means its end: positions are measured, not exact
_REFUSALS: dict[str, MotionError] = {
    'unclear': InvalidCommand('The request does not say clearly what to move; name a joint or direction and an '
                              'angle, e.g. "look left 30 degrees".'),
    'unsafe': SafetyViolation('The request is not safe for the head or outside its range, so nothing was moved; '
                              'ask for a smaller angle.'),
}


@dataclass(frozen=True)
class Range:
    """Where a joint may be [rad]."""

    minimum: float
    maximum: float

    def __str__(self) -> str:
        return f'{math.degrees(self.minimum):.0f} to {math.degrees(self.maximum):.0f} degrees'


@dataclass(frozen=True)
class Move:
    """One step: a joint by (relative) or to an angle [rad]."""

    joint: str
    relative: bool
    angle: float


@dataclass(frozen=True)
class Center:
    """All joints to 0 rad, together."""


@dataclass(frozen=True)
class Stop:
    """End what moves."""


Command = tuple[Move, ...] | Center | Stop
Step = dict[str, float]  # target by joint [rad]; all of a step move together


def parse(text: str, ranges: Mapping[str, Range]) -> Command:
    """Read a command. Raises InvalidCommand for what is none, SafetyViolation for angles no joint has."""
    if len(text) > LONGEST_TEXT:
        raise InvalidCommand(f'The motion command has {len(text)} characters; {LONGEST_TEXT} are the limit.')
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidCommand(f'The motion command is no JSON ({error}); send {_EXAMPLE}.') from error
    if isinstance(value, list):
        if not 1 <= len(value) <= MOST_MOVES:
            raise InvalidCommand(f'The motion command has {len(value)} moves; send 1 to {MOST_MOVES}.')
        return tuple(_move(one, ranges) for one in value)
    if not isinstance(value, dict):
        raise InvalidCommand(f'The motion command must be an object or an array of moves; send {_EXAMPLE}.')
    if set(value) == {'refuse'} and value['refuse'] in ('unclear', 'unsafe'):
        raise _REFUSALS[value['refuse']]
    if set(value) == {'action'} and value['action'] in ('center', 'stop'):
        return Center() if value['action'] == 'center' else Stop()
    if 'joint' not in value:
        raise InvalidCommand(f'The motion command {_short(value)} is not known; send a move, {_EXAMPLE}, '
                             '{"action":"center"} or {"action":"stop"}.')
    return (_move(value, ranges),)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError('a key is given twice')
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f'{name} is no number')


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + '...'


def _move(value: object, ranges: Mapping[str, Range]) -> Move:
    if not isinstance(value, dict) or set(value) not in ({'joint', 'by'}, {'joint', 'to'}):
        raise InvalidCommand(f'The move {_short(value)} must have "joint" and either "by" or "to"; send {_EXAMPLE}.')
    joint, relative = value['joint'], 'by' in value
    degrees = value['by' if relative else 'to']
    if not isinstance(joint, str) or joint not in ranges:
        raise InvalidCommand(f'There is no joint {_short(joint)}; the joints are {", ".join(ranges)}.')
    if isinstance(degrees, bool) or not isinstance(degrees, int | float) or degrees % 1 != 0:
        raise InvalidCommand(f'The angle of {joint}, {_short(degrees)}, is no whole number of degrees; '
                             f'send {_EXAMPLE}.')
    span = ranges[joint]
    most = max(abs(span.minimum), abs(span.maximum))
    low, high = (-most, most) if relative else (span.minimum, span.maximum)
    if not math.degrees(low) - 1e-6 <= degrees <= math.degrees(high) + 1e-6:
        raise SafetyViolation(f'{joint} cannot go {"by" if relative else "to"} {_short(degrees)} degrees: its range '
                              f'is {span}; nothing was moved.')
    return Move(joint, relative, math.radians(degrees))


def typed(moves: Sequence[Move], ranges: Mapping[str, Range]) -> Command:
    """Check moves that came typed, in radians. Raises InvalidCommand."""
    if not moves:
        raise InvalidCommand(f'The motion has neither command nor moves; send a command, {_EXAMPLE}.')
    for move in moves:
        if move.joint not in ranges:
            raise InvalidCommand(f'There is no joint "{move.joint}"; the joints are {", ".join(ranges)}.')
        if not math.isfinite(move.angle):
            raise InvalidCommand(f'The angle of {move.joint} is {move.angle}, not a number; give radians.')
    return tuple(moves)


def plan(command: tuple[Move, ...] | Center, start: Mapping[str, float], ranges: Mapping[str, Range]) -> list[Step]:
    """Targets of every step, from the positions at the start [rad].

    The whole sequence is checked before its first step: each relative move counts from the target before it. Raises
    SafetyViolation for a target out of range; one less than a degree beyond is taken back to the end of the range.
    """
    if isinstance(command, Center):
        steps = [dict.fromkeys(ranges, 0.0)]
    else:
        steps, now = [], dict(start)
        for move in command:
            now[move.joint] = move.angle + (now[move.joint] if move.relative else 0.0)
            steps.append({move.joint: now[move.joint]})
    for step in steps:
        for joint, target in step.items():
            span = ranges[joint]
            if not span.minimum - _SLACK <= target <= span.maximum + _SLACK:
                raise SafetyViolation(f'{joint} would come to {math.degrees(target):.0f} degrees; its range is {span}; '
                                      'nothing was moved.')
            step[joint] = min(span.maximum, max(span.minimum, target))
    return steps
