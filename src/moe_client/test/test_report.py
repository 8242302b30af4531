"""A bug report holds what is needed and no secret."""

import tarfile

import pytest

from moe_client.doctor import findings, of_devices
from moe_client.report import without_secrets, write_report

SECRET = 'hunter2hunter2'


@pytest.mark.parametrize('text', [
    f'Authorization: Bearer {SECRET}', f'MOE_API_KEY={SECRET}', f'postgresql://user:{SECRET}@host/db',
    f'"password": "{SECRET}"', f'key moe_12_{SECRET}', f'HF_TOKEN={SECRET}', f'127.0.0.1:5432:*:*:{SECRET}'])
def test_secrets_are_removed(text):
    assert SECRET not in without_secrets(text)
    assert '<removed>' in without_secrets(text)


def test_the_bundle(tmp_path, monkeypatch):
    monkeypatch.setenv('MOE_HOME', str(tmp_path))
    monkeypatch.setenv('MOE_DATABASE_URL', f'postgresql://user:{SECRET}@127.0.0.1:1/db')
    (tmp_path / 'logs').mkdir()
    (tmp_path / 'logs' / 'router.log').write_text(f'said\nBearer {SECRET}\n')
    parts = write_report(tmp_path / 'report.tar.gz')
    assert {'check.txt', 'packages.txt', 'logs/router.log'} <= set(parts)
    with tarfile.open(tmp_path / 'report.tar.gz') as bundle:
        texts = [bundle.extractfile(entry).read().decode() for entry in bundle]
    assert not any(SECRET in text for text in texts)
    assert any('said' in text for text in texts)


def test_the_doctor_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv('MOE_HOME', str(tmp_path))
    monkeypatch.setenv('MOE_DATABASE_URL', 'postgresql://user:x@127.0.0.1:1/db')
    found = {row.name: row for row in findings()}
    assert found['database'].state == 'wrong'
    assert '127.0.0.1:1' in found['database'].found
    assert found['models'].state == 'wrong'
    assert all(row.remedy for row in found.values() if row.state == 'wrong')


def test_devices_alone():
    found = {row.name: row for row in findings(devices_only=True)}
    assert {'serial port', 'camera'} <= set(found) <= {'serial port', 'camera', 'I2C bus', 'group'}


def test_a_device_is_judged_by_who_has_it():
    def device(**fields):
        return {'kind': 'serial', 'path': '/dev/ttyUSB0', 'stable': '', 'description': '', 'usb_mbps': 0.0,
                'problem': '', 'holder_pid': 0, **fields}

    busy = 'Process 7 (servo_node) has it open.'
    devices = [device(stable='/dev/serial/by-id/u2d2', description='U2D2'), device(problem=busy, holder_pid=7),
               device(kind='camera', path='/dev/video0', usb_mbps=480.0, problem='It is too slow.')]
    groups = {'dialout': True}
    assert [(row.name, row.state, row.found, row.remedy) for row in of_devices(
        {'devices': devices, 'groups': groups}, {7: 'servos'})] == [
        ('serial port', 'ok', '/dev/serial/by-id/u2d2, U2D2', ''),
        ('serial port', 'ok', '/dev/ttyUSB0, used by servos', ''),
        ('camera', 'wrong', '/dev/video0, USB 480 Mbit/s', 'It is too slow.'),
        ('group', 'ok', 'you are in dialout', '')]
    stranger = next(of_devices({'devices': devices[1:], 'groups': {}}, {8: 'servos'}))
    assert (stranger.state, stranger.remedy) == ('wrong', busy)
    missing = list(of_devices({'devices': [], 'groups': {}}, {}))
    assert [(row.name, row.state) for row in missing] == [('serial port', 'note'), ('camera', 'note')]
