"""Limits are counted over processes, keys are read again when they change."""

import hashlib
import json

import pytest

from moe_client.errors import Forbidden, Unauthorized
from moe_client.gateway.keys import LOCAL, KeyRing
from moe_client.gateway.limits import RateLimiter
from moe_client.gateway.settings import Settings

SALT = b'salt'


def write(path, *rows):
    path.write_text(json.dumps({'keys': [
        {'id': number, 'name': name, 'scopes': scopes, 'salt': SALT.hex(),
         'sha256': hashlib.sha256(SALT + key.encode()).hexdigest()} for number, name, key, scopes in rows]}))


def test_two_limiters_on_one_file_count_together(tmp_path):
    one, two = (RateLimiter(1000, tmp_path / 'limits.sqlite') for _ in range(2))
    before = one.take('somebody').remaining
    after = two.take('somebody').remaining
    assert after in (before - 1, 999)  # 999: a new minute began between them
    assert one.take('else').allowed


def test_no_limit_is_no_limit():
    assert RateLimiter(0).take('somebody') is None


def test_keys_and_scopes(tmp_path):
    path = tmp_path / 'api_keys.json'
    write(path, (3, 'robot', 'moe_3_abc', ['inference']), (13, 'other', 'own-format', ['manage']))
    ring = KeyRing(path, required=False)
    assert ring.check('') is LOCAL
    identity = ring.check('Bearer moe_3_abc')
    assert (identity.id, identity.name) == (3, 'robot')
    identity.demand('inference')
    with pytest.raises(Forbidden, match='manage'):
        identity.demand('manage')
    assert ring.check('', 'own-format').id == 13
    for wrong in ('Bearer moe_13_abc', 'Bearer ', 'Basic moe_3_abc', 'Bearer \ud800'):
        with pytest.raises(Unauthorized):
            ring.check(wrong)


def test_a_key_is_demanded_where_others_can_reach(tmp_path):
    with pytest.raises(Unauthorized, match='api-key create'):
        KeyRing(tmp_path / 'none.json', required=True).check('')
    with pytest.raises(Unauthorized):
        KeyRing(tmp_path / 'none.json', required=True).check('Bearer anything')
    assert KeyRing(tmp_path / 'none.json', required=False).check('Bearer anything') is LOCAL


@pytest.mark.parametrize(('host', 'needed'), [
    ('127.0.0.1', False), ('::1', False), ('localhost', False), ('0.0.0.0', True), ('192.168.1.5', True),
    ('robot.local', True)])
def test_who_needs_a_key(tmp_path, host, needed):
    assert Settings(home=tmp_path, host=host).needs_key is needed
