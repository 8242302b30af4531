"""Environment of this package's tests: a ROS graph and a MOE_HOME of their own, and one suite for them all."""

import os
from pathlib import Path

import pytest

os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 49))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
os.environ.setdefault('ROS_PYTHON_CHECK_FIELDS', '1')

DATA = Path(__file__).parents[3] / 'data'


@pytest.fixture(scope='session')
def models(tmp_path_factory):
    """The folder with the exported encoder (and whatever else set-up prepared)."""
    from moe_router.encoder import Encoder
    from moe_router.prepare_encoder import export, models_folder
    try:
        Encoder(models_folder())
        return models_folder()
    except FileNotFoundError:
        folder = tmp_path_factory.mktemp('models')
        export(folder)
        return folder


@pytest.fixture(scope='session')
def encoder(models):
    """The real encoder."""
    from moe_router.encoder import Encoder
    return Encoder(models)


@pytest.fixture(scope='session')
def environment(models, tmp_path_factory):
    """Environment of processes with a MOE_HOME of the tests' own; the prepared models are shared."""
    home = tmp_path_factory.mktemp('home')
    (home / 'models').symlink_to(models)
    return dict(os.environ, MOE_HOME=str(home))


@pytest.fixture(scope='session')
def graph():
    """The test's own node."""
    from graph import Graph
    with Graph() as found:
        yield found


@pytest.fixture(scope='session')
def suite(environment, tmp_path_factory):
    """Registry, expert node and router as processes; yields the folder of their logs."""
    from graph import NodeProcess
    logs = tmp_path_factory.mktemp('logs')
    catalogue = str(DATA / 'experts.yaml')
    with NodeProcess(logs, 'moe_experts', 'registry_node', environment, catalogue=catalogue) as registry, \
            NodeProcess(logs, 'moe_experts', 'expert_node', environment) as experts, \
            NodeProcess(logs, 'moe_router', 'router_node', environment, act='false') as router:
        yield {'registry': registry, 'experts': experts, 'router': router, 'logs': logs}
