"""Environment of this package's tests: a ROS graph of their own."""

import os

os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 49))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
os.environ.setdefault('ROS_PYTHON_CHECK_FIELDS', '1')
