"""Whatever is asked, cancelled and mixed in whatever order: each caller gets its own answer, once."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_model import make_models

from moe_experts.engines.engine import EngineSettings, Part, Piece, Request, Result, Sampling
from moe_experts.engines.opening import open_engine

PROMPTS = ['look', 'turn left', 'what is the capital of France', 'tell me a story about a robot', 'look left']
ADAPTERS = ['', 'left']
SHORT = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# a request: prompt, adapter (2 = a mixture of both), new tokens, priority
asks = st.tuples(st.integers(0, len(PROMPTS) - 1), st.integers(0, 2), st.integers(1, 12), st.sampled_from([0, 10, 50]))
actions = st.lists(st.one_of(asks, st.just('step'), st.integers(0, 30)), min_size=5, max_size=40)


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp('tiny'))


def opened(models, **options):
    engine = open_engine(models / 'base.gguf', EngineSettings(threads=1, **options))
    engine.load_adapter('left', models / 'adapter.gguf', 1.0)
    return engine


def request(name, ask):
    prompt, kind, tokens, priority = ask
    messages = (('user', PROMPTS[prompt]),)
    mixture = tuple(Part(adapter, 1.0, messages) for adapter in ADAPTERS) if kind == 2 else ()
    return Request(name, messages, adapter=ADAPTERS[kind % 2], mixture=mixture, max_tokens=tokens, priority=priority,
                   sampling=Sampling(temp=0.0, ignore_eos=True))


@pytest.fixture(scope='module')
def alone(models):
    """The longest answer to every prompt by every kind, given by an engine that does one thing at a time."""
    engine, found = opened(models, slots=2, use_kv_cache=False), {}
    for prompt in range(len(PROMPTS)):
        for kind in range(3):
            engine.submit(request('one', (prompt, kind, 12, 10)))
            while engine.busy():
                for item in engine.step():
                    if isinstance(item, Result):
                        found[prompt, kind] = item.tokens
    engine.close()
    return found


@pytest.fixture(scope='module', params=[{'slots': 2}, {'slots': 4, 'context_tokens': 256}, {'slots': 32}],
                ids=['few slots', 'few cells', 'room'])
def engine(models, request):
    engine = opened(models, **request.param)
    yield engine
    engine.close()


@given(actions)
@SHORT
def test_no_request_is_lost_and_no_token_goes_astray(engine, alone, plan):
    asked, cancelled, pieces, results = [], set(), {}, {}

    def take(items):
        for item in items:
            if isinstance(item, Piece):
                assert item.id not in results, 'text after the end'
                pieces[item.id] = pieces.get(item.id, '') + item.text
            else:
                assert item.id not in results, 'two ends'
                results[item.id] = item

    for action in plan:
        if action == 'step':
            take(engine.step())
        elif isinstance(action, int):
            if action < len(asked):
                cancelled.add(str(action))
                engine.cancel(str(action))
        else:
            engine.submit(request(str(len(asked)), action))
            asked.append(action)
    steps = 0
    while engine.busy():
        take(engine.step())
        steps += 1
        assert steps < 2000, 'it does not end'
    assert set(results) == {str(index) for index in range(len(asked))}
    for name, result in results.items():
        prompt, kind, tokens, _priority = asked[int(name)]
        expected = alone[prompt, kind][:tokens]
        assert result.text == pieces.get(name, '')
        if result.finish_reason == 'cancelled':
            assert name in cancelled
            assert result.tokens == expected[:len(result.tokens)]
        else:
            assert (result.finish_reason, result.tokens) == ('length', expected)
    assert engine.counts() == (0, 0)
