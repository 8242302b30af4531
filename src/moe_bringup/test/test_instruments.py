"""Profiles of real programs, a real debugger's port, and wishes that cannot be met."""

import subprocess

import pytest
from test_supervisor import wait_for

from moe_bringup.configuration import ConfigurationError
from moe_bringup.instruments import Instrument, instruments

PROGRAM = '''
import threading
def burn():
    return sum(number * number for number in range(200000))
kept = [bytes(1000) for _ in range(5000)]
thread = threading.Thread(target=burn)
thread.start()
thread.join()
print('done')
raise SystemExit(0)
'''


@pytest.fixture
def program(tmp_path):
    path = tmp_path / 'program'
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize(('kind', 'sign'), [('cpu', 'burn'), ('memory', 'program')])
def test_a_profile_is_a_page_that_names_what_costs(tmp_path, program, kind, sign):
    line = Instrument('router', profile=kind).prefix(tmp_path)
    done = subprocess.run([*line, str(program)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert 'done' in done.stdout
    page = next((tmp_path / 'profiles').glob(f'router-{kind}-*.html')).read_text()
    assert page.startswith('<!doctype html>') and sign in page


def test_line_profile_of_an_installed_program(tmp_path):
    pytest.importorskip('line_profiler')
    script = tmp_path / 'supervisor'
    script.write_text('')
    line = Instrument('router', profile='line').prefix(tmp_path)
    done = subprocess.run([*line, str(script), '--config', str(tmp_path / 'absent.yaml')], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    page = next((tmp_path / 'profiles').glob('router-line-*.html')).read_text()
    assert 'def read_configuration' in page and 'path.read_text' in page


def test_the_debugger_is_waited_for(tmp_path, program):
    import socket
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([*Instrument('router', port=port).prefix(tmp_path), str(program)],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        def listens():
            assert process.poll() is None
            try:
                socket.create_connection(('127.0.0.1', port), timeout=1.0).close()
            except OSError:
                return False
            return True
        wait_for(listens, 60.0)
        assert process.poll() is None
    finally:
        process.kill()
        assert process.communicate()[0] == ''


@pytest.mark.parametrize(('profile', 'debug', 'sentence'), [
    ('gpu:router', '', 'must be KIND:PROCESS'), ('cpu', '', 'must be KIND:PROCESS'),
    ('', 'router', 'must be PROCESS:PORT'), ('', 'router:99999', 'must be PROCESS:PORT'),
    ('cpu:router', 'router:5678', 'choose one')])
def test_wrong_wishes_are_refused(profile, debug, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        instruments(profile, debug)


