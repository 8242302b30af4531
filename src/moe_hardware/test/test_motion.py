"""What motion commands mean, against the schema that binds the motion expert."""

import json
import math
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_hardware.errors import InvalidCommand, MotionError, SafetyViolation
from moe_hardware.motion import Center, Move, Range, Stop, parse, plan, typed

SCHEMA = json.loads((Path(__file__).parents[3] / 'data' / 'motion' / 'schema.json').read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
RANGES = {'pan': Range(math.radians(-90), math.radians(90)), 'tilt': Range(math.radians(-60), math.radians(60))}


def degrees(steps):
    return [{joint: round(math.degrees(target), 3) for joint, target in step.items()} for step in steps]


def planned(text, **start):
    return degrees(plan(parse(text, RANGES), {name: math.radians(start.get(name, 0.0)) for name in RANGES}, RANGES))


def test_moves_are_relative_or_absolute_and_in_order():
    assert planned('{"joint":"pan","by":30}', pan=10.0) == [{'pan': 40.0}]
    assert planned('{"joint":"tilt","to":-10}', tilt=30.0) == [{'tilt': -10.0}]
    assert planned('[{"joint":"pan","by":30},{"joint":"tilt","to":20},{"joint":"pan","by":-50}]', pan=10.0) == [
        {'pan': 40.0}, {'tilt': 20.0}, {'pan': -10.0}]
    assert planned('{"action":"center"}', pan=10.0) == [{'pan': 0.0, 'tilt': 0.0}]
    assert parse('{"action":"stop"}', RANGES) == Stop()


@pytest.mark.parametrize('text, sentence', [
    ('', 'is no JSON'), ('look left', 'is no JSON'), ('{"joint":"pan","by":30', 'is no JSON'),
    ('{"joint":"pan","by":NaN}', 'NaN is no number'), ('{"joint":"pan","by":Infinity}', 'Infinity is no number'),
    ('{"joint":"pan","by":1,"by":2}', 'a key is given twice'), ('[' * 4000, 'is no JSON'), ('7', 'must be an object'),
    ('null', 'must be an object'), ('[]', 'has 0 moves'), (json.dumps([{'joint': 'pan', 'by': 1}] * 5), 'has 5 moves'),
    ('{}', 'is not known'), ('{"action":"dance"}', 'is not known'), ('{"refuse":"maybe"}', 'is not known'),
    ('{"action":"stop","joint":"pan"}', 'must have "joint" and either'), ('[{"action":"stop"}]', 'must have "joint"'),
    ('{"joint":"pan"}', 'must have "joint" and either'), ('{"joint":"pan","by":1,"to":2}', 'must have "joint"'),
    ('{"joint":"roll","by":1}', 'There is no joint "roll"; the joints are pan, tilt'),
    ('{"joint":["pan"],"by":1}', 'There is no joint'), ('{"joint":"pan","by":"30"}', 'no whole number'),
    ('{"joint":"pan","by":true}', 'no whole number'), ('{"joint":"pan","by":1.5}', 'no whole number'),
    ('{"joint":"pan","by":1e999}', 'no whole number'), ('[' + ' ' * 5000 + ']', '4096 are the limit'),
])
def test_what_is_no_command_gets_a_sentence(text, sentence):
    with pytest.raises(InvalidCommand) as error:
        parse(text, RANGES)
    assert sentence in str(error.value)
    assert str(error.value).endswith('.')


@pytest.mark.parametrize('text, sentence', [
    ('{"joint":"pan","by":91}', 'pan cannot go by 91 degrees: its range is -90 to 90 degrees'),
    ('{"joint":"tilt","to":-61}', 'tilt cannot go to -61 degrees'),
    ('{"joint":"pan","to":' + '9' * 400 + '}', 'pan cannot go to 999'),
    ('{"refuse":"unsafe"}', 'not safe'),
])
def test_what_is_unsafe_gets_a_sentence(text, sentence):
    with pytest.raises(SafetyViolation) as error:
        parse(text, RANGES)
    assert sentence in str(error.value)
    assert error.value.code == 4001


def test_an_unclear_request_is_an_invalid_one():
    with pytest.raises(InvalidCommand, match='does not say clearly') as error:
        parse('{"refuse":"unclear"}', RANGES)
    assert error.value.code == 3004


def test_a_sequence_is_checked_whole():
    with pytest.raises(SafetyViolation, match='pan would come to 120 degrees; its range is -90 to 90 degrees'):
        planned('[{"joint":"tilt","by":10},{"joint":"pan","by":60},{"joint":"pan","by":60}]')


def test_a_measured_position_near_the_end_is_no_violation():
    assert planned('{"joint":"pan","by":30}', pan=60.04) == [{'pan': 90.0}]


def test_typed_moves():
    moves = [Move('pan', True, 0.5), Move('tilt', False, -0.25)]
    assert plan(typed(moves, RANGES), {'pan': 0.25, 'tilt': 0.0}, RANGES) == [{'pan': 0.75}, {'tilt': -0.25}]
    for bad, sentence in (([], 'neither command nor moves'), ([Move('roll', True, 0.1)], 'no joint "roll"'),
                          ([Move('pan', True, math.nan)], 'not a number')):
        with pytest.raises(InvalidCommand, match=sentence):
            typed(bad, RANGES)
    with pytest.raises(SafetyViolation):
        plan(typed([Move('pan', False, 2.0)], RANGES), {'pan': 0.0, 'tilt': 0.0}, RANGES)


keys = st.sampled_from(['joint', 'by', 'to', 'action', 'refuse', 'extra'])
values = (st.sampled_from(['pan', 'tilt', 'center', 'stop', 'unclear', 'unsafe', None, True])
          | st.integers(-999, 999) | st.floats(-100, 100).map(lambda one: round(one, 1)))
objects = st.dictionaries(keys, values, max_size=3)


@given(objects | st.lists(objects, max_size=5))
def test_it_is_as_strict_as_the_schema(value):
    try:
        command = parse(json.dumps(value), RANGES)
    except SafetyViolation:  # the language can say more than the head can do; a list may hold a fault behind it
        assert isinstance(value, list) or VALIDATOR.is_valid(value)
    except InvalidCommand:
        assert value == {'refuse': 'unclear'} or not VALIDATOR.is_valid(value)
    else:
        assert VALIDATOR.is_valid(value)
        assert isinstance(command, tuple | Center | Stop)


@given(st.text(max_size=60))
def test_any_text_gets_a_command_or_a_sentence(text):
    try:
        parse(text, RANGES)
    except MotionError as error:
        assert str(error).endswith('.')
