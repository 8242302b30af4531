"""Servos, motion, IMU and camera: `ros2 launch moe_bringup hardware.launch.py`; `-s` shows the arguments."""

from launch import LaunchDescription
from moe_bringup.ros.launching import description


def generate_launch_description() -> LaunchDescription:
    """Start the part of the process table that is named hardware."""
    return description('hardware')
