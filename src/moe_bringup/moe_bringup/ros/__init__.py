"""The ROS side of the bring-up: launch descriptions and the parameters that nodes declare."""

from importlib.util import find_spec


def launching_imports() -> bool:
    """Whether ROS 2 brings launch and launch_ros here; they are not on PyPI."""
    return find_spec('launch') is not None and find_spec('launch_ros') is not None
