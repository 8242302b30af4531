"""An expert node with its registry, as processes, on the tiny model; a plugin of the test modules that name it."""

import hashlib
import os

import pytest
from graph import Graph, NodeProcess, wait_for
from tiny_model import make_models

from moe_interfaces.msg import Expert, ExpertVersion
from moe_interfaces.srv import CreateExpert, GetVersion, RegisterVersion


@pytest.fixture(scope='module')
def environment(home, make_database):
    """That of the nodes: a MOE_HOME and a database of the module's own."""
    return {**os.environ, 'MOE_HOME': str(home), 'MOE_DATABASE_URL': make_database()}


@pytest.fixture(scope='module')
def graph(home, environment):
    """A registry with `general` (the base) and three adapters on it."""
    models = make_models(home)
    with Graph() as graph, NodeProcess(home, 'registry_node', environment):
        wait_for(lambda: graph.call(GetVersion, 'registry/get_version', expert='none').error_code == 1000,
                 what='registry')
        general = Expert(name='general', domain='general', fallback=True, max_seq_len=8192,
                         system_prompt='you are a helpful assistant')
        made = graph.call(CreateExpert, 'registry/create_expert', expert=general,
                          artifact_path=str(models / 'base.gguf'))
        assert not made.error_code, made.error_msg
        digest = hashlib.sha256((models / 'base.gguf').read_bytes()).hexdigest()
        for name in ('left', 'right', 'up'):
            assert not graph.call(CreateExpert, 'registry/create_expert',
                                  expert=Expert(name=name, domain=name)).error_code
            version = ExpertVersion(artifact_path=str(models / 'adapter.gguf'), base='tiny',
                                    base_path=str(models / 'base.gguf'), base_sha256=digest)
            made = graph.call(RegisterVersion, 'registry/register_version', expert=name, version=version,
                              alias='champion')
            assert not made.error_code, made.error_msg
        yield graph


@pytest.fixture(scope='module')
def node(home, environment, graph):
    options = {'inference.threads': 1, 'experts.cache_size': 2, 'shutdown_grace_s': 0.5}
    with NodeProcess(home, 'expert_node', environment, **options) as node:
        yield node
