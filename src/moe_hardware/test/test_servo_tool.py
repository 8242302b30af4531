"""The commands scan_servos and set_servo_id against simulated servos."""

import json

from moe_hardware import servo_tool
from moe_hardware.dynamixel import control_table as ct
from moe_hardware.simulation.servo_bus import SimulatedBus


def test_scan_and_set_id(tmp_path, capsys):
    with SimulatedBus((1, 2, 3), tmp_path / 'servos') as bus:
        for servo, code in ((2, 2), (3, 3)):
            bus.servos[servo].set(ct.BAUD_RATE, code)
        assert servo_tool.scan(['--port', str(tmp_path / 'servos'), '--json']) == 0
        found = json.loads(capsys.readouterr().out)
        assert [(one['id'], one['baud_rate']) for one in found] == [(1, 57600), (2, 115200), (3, 1000000)]
        assert servo_tool.scan(['--port', str(tmp_path / 'servos'), '--baud-rates', '57600']) == 0
        assert '1060 XL430-W250' in capsys.readouterr().out
        assert servo_tool.set_id(['1', '7', '--port', str(tmp_path / 'servos')]) == 0
        assert bus.servos[1].id == 7
        assert servo_tool.set_id(['1', '8', '--port', str(tmp_path / 'servos')]) == 1
        assert 'Servo 1 on' in capsys.readouterr().err
    assert servo_tool.scan(['--port', str(tmp_path / 'servos')]) == 1
    assert 'does not exist; plug the adapter in' in capsys.readouterr().err
