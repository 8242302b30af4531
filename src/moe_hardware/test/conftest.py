"""Environment of this package's tests: a ROS graph and a MOE_HOME of their own."""

import os

import pytest

os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 49))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
os.environ.setdefault('ROS_PYTHON_CHECK_FIELDS', '1')


@pytest.fixture(scope='session', autouse=True)
def home(tmp_path_factory):
    """A MOE_HOME of the tests' own: what the machine's suite calibrated or journalled is neither read nor written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MOE_HOME', str(tmp_path_factory.mktemp('moe')))
        yield
