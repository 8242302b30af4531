"""Both engines on the same tiny model, and how tests ask them; conftest offers the fixtures."""

import json

import pytest

from moe_experts.engines.engine import EngineSettings, Part, Piece, Request, Result, Sampling
from moe_experts.engines.opening import open_engine

PATHS = {'llama_cpp': ('base.gguf', 'adapter.gguf'), 'transformers': ('base', 'adapter')}
SYSTEM = ('system', 'you are a helpful assistant that answers in short sentences')
PROMPTS = ['what is the capital of France', 'tell me a story', 'look at the door', 'turn left and look']
GREEDY = Sampling(temp=0.0, ignore_eos=True)
SCHEMA = json.dumps({'type': 'object', 'properties': {'joint': {'enum': ['pan', 'tilt']},
                                                      'by': {'type': 'integer', 'minimum': -90, 'maximum': 90}},
                     'required': ['joint', 'by'], 'additionalProperties': False})


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    from tiny_model import make_models  # brings torch, which other tests of the package need not wait for
    return make_models(tmp_path_factory.mktemp('tiny'))


@pytest.fixture(scope='module', params=list(PATHS))
def kind(request):
    return request.param


@pytest.fixture(scope='module')
def shared(models, kind):
    engine = open_engine(models / PATHS[kind][0], EngineSettings(threads=1, slots=4, context_tokens=2048))
    yield engine
    engine.close()


@pytest.fixture(scope='module')
def plain(models, kind):
    """The same engine without guesses."""
    engine = open_engine(models / PATHS[kind][0], EngineSettings(
        threads=1, slots=4, context_tokens=2048, guess_answers=False))
    yield engine
    engine.close()


@pytest.fixture
def engine(shared):
    """Without a trace of other tests."""
    yield shared
    shared.unload_adapter('left@1')
    while shared.busy():
        shared.step()
    shared.clear_cache()


@pytest.fixture
def adapter(engine, models, kind):
    engine.load_adapter('left@1', models / PATHS[kind][1], 1.0)
    return 'left@1'


def request(name, prompt=PROMPTS[0], **options):
    options = {'sampling': GREEDY, 'max_tokens': 16, **options}
    return Request(name, (SYSTEM, ('user', prompt)), **options)


def answers(engine, *requests):
    """Submit all at once and step to the end; returns {id: result}."""
    for one in requests:
        engine.submit(one)
    pieces, results = {one.id: '' for one in requests}, {}
    while engine.busy():
        for item in engine.step():
            if isinstance(item, Piece):
                pieces[item.id] += item.text
            else:
                results[item.id] = item
    assert pieces == {name: result.text for name, result in results.items()}
    return results


def steps(engine, one):
    """Steps and result of one request."""
    engine.submit(one)
    count = 0
    while engine.busy():
        count += 1
        found = [item for item in engine.step() if isinstance(item, Result)]
    return count, found[0]


def mixed(name, *weights, adapters, prompt=PROMPTS[0], scales=(), **options):
    messages = (SYSTEM, ('user', prompt))
    parts = tuple(Part(adapter, weight, messages, scale) for adapter, weight, scale in zip(
        adapters, weights, scales or (1.0,) * len(weights), strict=True))
    return request(name, prompt, mixture=parts, **options)
