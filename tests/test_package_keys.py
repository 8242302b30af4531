"""The keys of every package.xml are packages of ours, of ROS 2, or keys of rosdep's python.yaml and base.yaml."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent.name for path in ROOT.glob('src/*/package.xml'))
# Released in Jazzy, Kilted and Lyrical.
ROS = {'action_msgs', 'ament_cmake', 'ament_index_python', 'builtin_interfaces', 'control_msgs', 'cv_bridge',
       'diagnostic_msgs', 'diagnostic_updater', 'dynamixel_sdk', 'geometry_msgs', 'launch', 'launch_ros',
       'lifecycle_msgs', 'rcl_interfaces', 'rclpy', 'rosidl_default_generators', 'rosidl_default_runtime',
       'rosidl_interface_packages', 'sensor_msgs', 'std_msgs', 'std_srvs', 'trajectory_msgs', 'unique_identifier_msgs',
       'visualization_msgs'}
# Of github.com/ros/rosdistro, rosdep/python.yaml, with a package for Ubuntu 24.04. What has no key there (torch,
# llama.cpp, ...) is pinned in requirements/ and installed by ./moe.
ROSDEP = {'python3-alembic', 'python3-fastapi', 'python3-httpx', 'python3-hypothesis', 'python3-jinja2',
          'python3-jsonschema', 'python3-numpy', 'python3-opencv', 'python3-prometheus-client',
          'python3-psutil', 'python3-psycopg2', 'python3-pytest', 'python3-rich', 'python3-serial',
          'python3-setproctitle', 'python3-sklearn', 'python3-smbus', 'python3-sqlalchemy', 'python3-typer',
          'python3-uvicorn', 'python3-websockets', 'python3-yaml'}


@pytest.mark.parametrize('package', PACKAGES)
def test_keys_are_real(package):
    root = ElementTree.parse(ROOT / 'src' / package / 'package.xml').getroot()
    keys = {element.text for element in root if element.tag.endswith('depend') or element.tag == 'member_of_group'}
    assert keys <= ROS | ROSDEP | set(PACKAGES), sorted(keys - ROS - ROSDEP - set(PACKAGES))
