"""Environment of the whole-system tests: a ROS graph and a MOE_HOME of their own."""

import os

os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
