"""The command check_devices, on whatever devices this machine has."""

import json

from moe_hardware import check_devices


def test_it_lists_devices_and_groups(capsys):
    code = check_devices.main(['--json'])
    found = json.loads(capsys.readouterr().out)
    assert code == int(any(one['problem'] for one in found['devices']))
    assert set(found['groups']) <= set(check_devices.GROUPS)
    assert {one['kind'] for one in found['devices']} <= {'serial', 'camera', 'i2c'}
    check_devices.main([])
    assert 'serial' in capsys.readouterr().out


def test_the_speed_of_the_usb_device_above_a_node_is_found(tmp_path):
    node = tmp_path / 'usb1' / '1-2' / '1-2:1.0' / 'video4linux'
    node.mkdir(parents=True)
    assert check_devices._usb_speed(node) == 0.0
    (tmp_path / 'usb1' / '1-2' / 'speed').write_text('480\n')
    assert check_devices._usb_speed(node) == 480.0
