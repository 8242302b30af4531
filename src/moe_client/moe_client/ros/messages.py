"""ROS messages to plain values and back, by their own description; times are seconds, NaN is None."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from builtin_interfaces.msg import Time

from moe_client.errors import InvalidRequest

Values = dict[str, Any]
ERROR_FIELDS = ('error_code', 'error_msg')
_INTEGER = re.compile(r'(u?)int(8|16|32|64)')
_SEQUENCE = re.compile(r'sequence<(.+?)(?:, \d+)?>|(.+)\[(\d+)\]')
_FLOATS = {'float': 3.4028234e38, 'double': math.inf}


def interface(kind: str, name: str) -> Any:
    """Import an interface class: ('srv', 'ListExperts') or ('msg', 'sensor_msgs/Imu')."""
    package, _, short = name.rpartition('/')
    return getattr(importlib.import_module(f'{package or "moe_interfaces"}.{kind}'), short)


def element(kind: str) -> tuple[str, int | None]:
    """Split the type of a field into that of an element and its count: -1 = any, None = not a sequence."""
    found = _SEQUENCE.fullmatch(kind)
    if not found:
        return kind, None
    return found[1] or found[2], int(found[3]) if found[3] else -1


def integer_range(kind: str) -> tuple[int, int] | None:
    """Least and most value of an integer type; None = it is none."""
    if kind in ('octet', 'char'):
        return 0, 255
    found = _INTEGER.fullmatch(kind)
    if not found:
        return None
    bits = int(found[2])
    return (0, 2 ** bits - 1) if found[1] else (-2 ** (bits - 1), 2 ** (bits - 1) - 1)


def to_plain(message: Any) -> Values:
    """Convert a message; a response's error_code and error_msg are left out, whoever calls has looked at them."""
    return {name: read(getattr(message, name)) for name, read in _readers(type(message))}  # type: ignore[arg-type]


@cache
def _readers(kind: Any) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    fields = kind.get_fields_and_field_types()
    seen = ERROR_FIELDS if set(ERROR_FIELDS) <= set(fields) else ()
    return tuple((name, _reader(field)) for name, field in fields.items() if name not in seen)


def _reader(kind: str) -> Callable[[Any], Any]:
    inner, count = element(kind)
    if count is not None:
        read = _reader(inner)
        return lambda values: [read(value) for value in values]
    if inner == 'builtin_interfaces/Time':
        return lambda value: value.sec + value.nanosec * 1e-9
    if '/' in inner:
        return to_plain
    if inner in _FLOATS:
        return lambda value: float(value) if math.isfinite(value) else None
    if integer_range(inner):
        return lambda value: value[0] if isinstance(value, bytes) else int(value)
    return lambda value: value


def from_plain(kind: Any, values: Values, where: str = '') -> Any:
    """Make a message; raises InvalidRequest naming the field that is unknown, too large or of a wrong type."""
    message = kind()
    fields = kind.get_fields_and_field_types()
    for name, value in values.items():
        field = fields.get(name)
        if field is None:
            raise InvalidRequest(f'There is no field {where}{name}; there are {", ".join(sorted(fields))}.')
        if value is not None or field in _FLOATS:
            setattr(message, name, _write(field, value, f'{where}{name}'))
    return message


def _write(kind: str, value: Any, where: str) -> Any:
    inner, count = element(kind)
    if count is not None:
        if isinstance(value, str) or not hasattr(value, '__iter__') or (count >= 0 and len(value) != count):
            raise InvalidRequest(f'{where} has to be a list{f" of {count}" if count >= 0 else ""}.')
        return [_write(inner, entry, f'{where}[{index}]') for index, entry in enumerate(value)]
    if inner == 'builtin_interfaces/Time':
        seconds = _write('double', value, where)
        if not 0.0 <= seconds < 2 ** 31:
            raise InvalidRequest(f'{where} has to be seconds since 1970, at least 0.')
        return Time(sec=int(seconds), nanosec=int(seconds % 1 * 1e9))
    if '/' in inner:
        if not isinstance(value, dict):
            raise InvalidRequest(f'{where} has to be an object.')
        return from_plain(_message(inner), value, f'{where}.')
    if inner in _FLOATS:
        return _float(inner, value, where)
    if limits := integer_range(inner):
        if (isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1
                or not limits[0] <= value <= limits[1]):
            raise InvalidRequest(f'{where} has to be a whole number from {limits[0]} to {limits[1]}.')
        return int(value)
    if inner == 'boolean':
        if not isinstance(value, bool):
            raise InvalidRequest(f'{where} has to be true or false.')
        return value
    if not isinstance(value, str) or '\0' in value or not _encodable(value):
        raise InvalidRequest(f'{where} has to be a text without NUL characters and halves of surrogate pairs.')
    return value


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _float(kind: str, value: Any, where: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (
            math.isfinite(value) and abs(value) > _FLOATS[kind]):
        raise InvalidRequest(f'{where} has to be a number within the range of a {kind}.')
    return float(value)


@cache
def _message(name: str) -> Any:
    package, short = name.split('/')
    return interface('msg', f'{package}/{short}')
