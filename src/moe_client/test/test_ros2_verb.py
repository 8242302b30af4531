"""`ros2 moe`, where ros2cli is installed."""

import subprocess
import sys

import pytest


def test_ros2_moe_is_moe(tmp_path):
    pytest.importorskip('ros2cli', reason='ros2cli is not installed; ROS 2 from PyPI does not have it')
    done = subprocess.run([sys.executable, '-m', 'ros2cli.cli', 'moe', '--version'], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith('moe ')
