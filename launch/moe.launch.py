"""The whole suite: `ros2 launch moe_bringup moe.launch.py`, or by the path of this file; `-s` shows the arguments.

Includes the launch file of every part; the processes are those of the table that `moe up` reads.
"""

from pathlib import Path

from launch import LaunchDescription
from moe_bringup.ros.launching import whole


def generate_launch_description() -> LaunchDescription:
    """Include every part's launch file from the folder of this one."""
    return whole(Path(__file__).parent)
