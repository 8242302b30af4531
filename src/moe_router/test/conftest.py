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


@pytest.fixture(scope='session')
def moe(suite, graph):
    """The graph of a suite that routes to every built-in expert."""
    from asking import ready, stats
    from graph import wait_for

    from moe_interfaces.srv import ListExperts
    wait_for(lambda: ready(graph, 'look left 30 degrees').choice == 'motion', 180.0, 'all samples learned', 0.5)
    wait_for(lambda: not stats(graph)[1]['registry_away'], 180.0, 'the registry', 0.5)
    wait_for(lambda: len([row for row in graph.call(ListExperts, 'registry/list_experts').experts
                          if row.champion_version]) == 5, 180.0, 'all experts', 0.5)
    return graph


@pytest.fixture
def setting(moe):
    """Sets parameters of the router for one test."""
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters
    before = {}

    def put(**values):
        parameters = []
        for name, value in values.items():
            kind = {str: ParameterType.PARAMETER_STRING, bool: ParameterType.PARAMETER_BOOL,
                    int: ParameterType.PARAMETER_INTEGER, float: ParameterType.PARAMETER_DOUBLE}[type(value)]
            field = {str: 'string_value', bool: 'bool_value', int: 'integer_value', float: 'double_value'}[type(value)]
            parameters.append(Parameter(name=name, value=ParameterValue(type=kind, **{field: value})))
        return moe.call(SetParameters, 'router/set_parameters', parameters=parameters).results

    def change(old, **values):
        before.update(old)
        results = put(**values)
        assert all(result.successful for result in results), results

    change.put = put
    yield change
    if before:
        put(**before)
