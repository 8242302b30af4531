"""Recordings of an IMU made by ros2 bag: rosbag2_py where ROS provides it, SQLite bags read directly otherwise."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Imu

from moe_hardware.imu.reading import Reading
from moe_hardware.imu.replay import load_csv, ordered

try:
    import rosbag2_py
except ImportError:  # not among the ROS wheels of PyPI
    rosbag2_py = None

IMU_TYPE = 'sensor_msgs/msg/Imu'


def load(path: Path) -> list[Reading]:
    """Read a CSV file, or the first topic of type sensor_msgs/Imu of a bag. Raises ValueError, OSError."""
    if path.is_file() and path.suffix.lower() == '.csv':
        return load_csv(path)
    if not path.exists():
        raise FileNotFoundError(2, 'No such file or directory', str(path))
    read = _by_rosbag2 if rosbag2_py is not None else _by_sqlite
    return ordered(_reading(deserialize_message(data, Imu)) for data in read(path))


def _by_rosbag2(path: Path) -> Iterator[bytes]:
    reader = rosbag2_py.SequentialReader()
    try:
        reader.open(rosbag2_py.StorageOptions(uri=str(path)), rosbag2_py.ConverterOptions('', ''))
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    topic = next((one.name for one in reader.get_all_topics_and_types() if one.type == IMU_TYPE), None)
    if topic is None:
        raise ValueError(f'it has no topic of type {IMU_TYPE}')
    reader.set_filter(rosbag2_py.StorageFilter(topics=[topic]))
    while reader.has_next():
        yield reader.read_next()[1]


def _by_sqlite(path: Path) -> Iterator[bytes]:
    files = sorted(path.glob('*.db3')) if path.is_dir() else [path]
    if not files:
        raise ValueError('without an installed ROS 2 only bags of SQLite files (*.db3) can be read')
    for file in files:
        try:
            with contextlib.closing(sqlite3.connect(f'file:{file}?mode=ro', uri=True)) as connection:
                topic = connection.execute('SELECT id FROM topics WHERE type = ? ORDER BY id', (IMU_TYPE,)).fetchone()
                if topic is None:
                    raise ValueError(f'it has no topic of type {IMU_TYPE}')
                yield from (row[0] for row in connection.execute(
                    'SELECT data FROM messages WHERE topic_id = ? ORDER BY timestamp', topic))
        except sqlite3.Error as error:
            raise ValueError(str(error)) from error


def _reading(message: Any) -> Reading:
    stamp, velocity, force = message.header.stamp, message.angular_velocity, message.linear_acceleration
    return Reading(stamp.sec * 1_000_000_000 + stamp.nanosec, (velocity.x, velocity.y, velocity.z),
                   (force.x, force.y, force.z), math.nan)
