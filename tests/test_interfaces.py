"""The interface files keep their promises: every field documented, every file listed, codes fixed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'src' / 'moe_interfaces'
FILES = sorted(path for kind in ('msg', 'srv', 'action') for path in (PACKAGE / kind).iterdir())
CODES = {
    'EXPERT_NOT_FOUND': 1000, 'EXPERT_NOT_READY': 1001, 'EXPERT_CREATION_FAILED': 1002, 'NAME_TAKEN': 1003,
    'STALE_VERSION': 1004, 'DIGEST_MISMATCH': 1005, 'TRAINING_FAILED': 2000, 'DATASET_INVALID': 2001,
    'INFERENCE_FAILED': 3000, 'TIMEOUT': 3001, 'OVERLOADED': 3002, 'CANCELLED': 3003, 'INVALID_REQUEST': 3004,
    'HARDWARE_ERROR': 4000, 'SAFETY_VIOLATION': 4001, 'DATABASE_UNAVAILABLE': 5000, 'UNAUTHORIZED': 6000,
    'FORBIDDEN': 6001, 'RATE_LIMITED': 6002}


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_numbers_say_their_unit_or_meaning(path):
    """Floating-point fields carry a comment of their own; nothing is left to guess."""
    bare = [line for line in path.read_text().splitlines()
            if re.match(r'float(32|64)', line) and '#' not in line and '=' not in line
            ]
    assert not bare


def test_the_readme_lists_every_interface():
    listed = set(re.findall(r'\]\(((?:msg|srv|action)/\w+\.\w+)\)', (PACKAGE / 'README.md').read_text()))
    assert listed == {f'{path.parent.name}/{path.name}' for path in FILES}


def test_codes_are_the_published_ones():
    from moe_interfaces.msg import ErrorCode
    assert {name: getattr(ErrorCode, name) for name in CODES} == CODES


@pytest.mark.parametrize('path', [path for path in FILES if path.parent.name != 'msg'], ids=lambda path: path.name)
def test_every_response_can_carry_an_error(path):
    parts = re.split(r'^---$', path.read_text(), flags=re.M)
    assert 'int32 error_code' in parts[1] and 'string error_msg' in parts[1]
