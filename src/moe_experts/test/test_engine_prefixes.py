"""What is not computed twice, and that nothing changes by it."""

from engines_under_test import GREEDY, PATHS, PROMPTS, SYSTEM, answers, request

from moe_experts.engines.engine import EngineSettings, Request
from moe_experts.engines.opening import open_engine


def test_prefix_reuse_changes_no_answer(engine):
    fresh = []
    for prompt in PROMPTS:
        engine.clear_cache()
        fresh.append(answers(engine, request('fresh', prompt))['fresh'])
    engine.clear_cache()
    again = [answers(engine, request('again', prompt))['again'] for prompt in [*PROMPTS, PROMPTS[0]]]
    assert [result.tokens for result in again] == [result.tokens for result in [*fresh, fresh[0]]]
    assert [result.cached_tokens for result in fresh] == [0] * 4
    assert again[0].cached_tokens == 0
    assert all(0 < result.cached_tokens < result.prompt_tokens for result in again[1:])
    assert again[4].cached_tokens == again[4].prompt_tokens - 1


def test_a_conversation_goes_on_from_its_history(engine):
    first = answers(engine, request('first', max_tokens=4))['first']
    messages = (SYSTEM, ('user', PROMPTS[0]), ('assistant', first.text), ('user', PROMPTS[1]))
    second = answers(engine, Request('second', messages, sampling=GREEDY, max_tokens=4))['second']
    assert second.cached_tokens >= first.prompt_tokens


def test_prefixes_are_those_of_one_adapter_and_scale(engine, adapter):
    plain = answers(engine, request('plain'))['plain']
    adapted = answers(engine, request('adapted', adapter=adapter))['adapted']
    assert adapted.cached_tokens == 0
    assert adapted.tokens != plain.tokens
    engine.scale_adapter(adapter, 0.0)
    bare = answers(engine, request('bare', adapter=adapter))['bare']
    assert (bare.cached_tokens, bare.tokens) == (0, plain.tokens)


def test_reuse_can_be_turned_off(models, kind):
    engine = open_engine(models / PATHS[kind][0], EngineSettings(threads=1, use_kv_cache=False))
    assert [answers(engine, request('a'))['a'].cached_tokens for _ in range(2)] == [0, 0]
    engine.close()


def test_neighbours_decode_a_common_prompt_once(engine):
    names = [str(index) for index in range(4)]
    results = answers(engine, *(request(name, ' '.join([*PROMPTS, name]), max_tokens=4) for name in names))
    computed = [results[name].prompt_tokens - results[name].cached_tokens for name in names]
    assert computed[0] == results['0'].prompt_tokens
    assert all(count < 20 for count in computed[1:])
