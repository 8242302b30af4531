"""`ros2 moe`, where ros2cli is installed."""

import subprocess
import sys

import pytest

ROS2 = 'import sys; from ros2cli.cli import main; sys.exit(main(argv=sys.argv[1:]))'


@pytest.mark.parametrize(('arguments', 'begin'), [
    (['--version'], 'moe '), (['list-experts', '--help'], 'Usage: moe list-experts')])
def test_ros2_moe_is_moe(tmp_path, monkeypatch, arguments, begin):
    pytest.importorskip('ros2cli', reason='ros2cli is not installed; ROS 2 from PyPI does not have it')
    monkeypatch.setenv('MOE_HOME', str(tmp_path))
    line = [sys.executable, '-c', ROS2, 'moe', *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(begin)
