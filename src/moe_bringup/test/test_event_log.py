"""Lines of processes as events: rcl's time and level, rotation, JSON."""

import json
import re

from moe_bringup import event_log
from moe_bringup.event_log import EventLog


def test_a_line_of_rcl_becomes_an_event(tmp_path):
    log = EventLog(tmp_path)
    log.write('router', '[WARN] [1700000000.250] [moe.router]: expert python is away')
    log.write('sim_imu', 'serving')
    log.close()
    first, second = (tmp_path / 'app.log').read_text().splitlines()
    assert re.fullmatch(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,250 - moe.router - WARNING - expert python is away', first)
    assert re.fullmatch(r'[-\d: ,]+ - sim_imu - INFO - serving', second)
    assert (tmp_path / 'router.log').read_text() == '[WARN] [1700000000.250] [moe.router]: expert python is away\n'


def test_json_names_request_expert_and_version(tmp_path):
    log = EventLog(tmp_path, 'json')
    log.write('experts', '[INFO] [1700000000.250] [moe.experts]: answered request_id=r1 expert=python version=2')
    log.close()
    assert json.loads((tmp_path / 'app.log').read_text()) == {
        'time': '2023-11-14T22:13:20.250Z', 'name': 'moe.experts', 'node': 'experts', 'level': 'INFO',
        'message': 'answered request_id=r1 expert=python version=2', 'request_id': 'r1', 'expert': 'python',
        'version': '2'}


def test_files_are_rotated(tmp_path, monkeypatch):
    monkeypatch.setattr(event_log, 'LIMIT_BYTES', 1000)
    log = EventLog(tmp_path)
    for number in range(100):
        log.write('router', f'line {number:04} ' + 'x' * 40)
    log.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted([f'{stem}.log{end}' for stem in ('app', 'router')
                            for end in ('', *(f'.{kept}' for kept in range(1, event_log.KEPT + 1)))])
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert 'line 0099' in (tmp_path / 'app.log').read_text()
