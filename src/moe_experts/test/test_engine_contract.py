"""The same promises of both engines, on the same tiny model."""

import json
import time

import numpy as np
import pytest
from tiny_model import CONTEXT, SPECIAL, make_models

from moe_experts.engines.engine import EngineError, EngineSettings, Part, Piece, Request, Result, Sampling
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
    return make_models(tmp_path_factory.mktemp('tiny'))


@pytest.fixture(scope='module', params=list(PATHS))
def kind(request):
    return request.param


@pytest.fixture(scope='module')
def shared(models, kind):
    engine = open_engine(models / PATHS[kind][0], EngineSettings(threads=1, slots=4, context_tokens=2048))
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


def test_both_engines_answer_alike(models):
    found = []
    for base, adapter in PATHS.values():
        engine = open_engine(models / base, EngineSettings(threads=1))
        engine.load_adapter('left@1', models / adapter, 1.0)
        found.append((engine.tokenize('the  robot\n\n42 größe 機械 <|im_end|>'), engine.embed('the robot')[0],
                      *(engine.score((SYSTEM, ('user', PROMPTS[0])), ['the door'], key)[0] for key in ('', 'left@1'))))
        engine.close()
    first, second = found
    assert first[0] == second[0]
    for one, other in zip(first[1:], second[1:], strict=True):
        assert one == pytest.approx(other, abs=0.02)  # llama.cpp's KV cache is F16
    assert first[2] != pytest.approx(first[3], abs=0.1)


def test_batched_greedy_answers_are_those_of_single_requests(engine):
    single = [answers(engine, request('one', prompt))['one'].tokens for prompt in PROMPTS]
    engine.clear_cache()
    together = answers(engine, *(request(str(index), prompt) for index, prompt in enumerate(PROMPTS)))
    assert [together[str(index)].tokens for index in range(4)] == single


def test_more_requests_than_slots_are_all_answered(engine):
    results = answers(engine, *(request(str(index), PROMPTS[index % 4]) for index in range(10)))
    assert len(results) == 10
    assert {result.finish_reason for result in results.values()} == {'length'}
    assert engine.counts() == (0, 0)


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


def test_an_adapter_answers_as_merged_weights_do(models):
    merged = open_engine(models / 'merged.gguf', EngineSettings(threads=1))
    expected = merged.score((SYSTEM, ('user', PROMPTS[0])), ['the door', 'the robot turns'])
    merged.close()
    for base, adapter in PATHS.values():
        engine = open_engine(models / base, EngineSettings(threads=1))
        engine.load_adapter('left@1', models / adapter, 1.0)
        found = engine.score((SYSTEM, ('user', PROMPTS[0])), ['the door', 'the robot turns'], 'left@1')
        engine.close()
        for one, other in zip(found, expected, strict=True):
            assert one == pytest.approx(other, abs=0.03)


def test_reuse_can_be_turned_off(models, kind):
    engine = open_engine(models / PATHS[kind][0], EngineSettings(threads=1, use_kv_cache=False))
    assert [answers(engine, request('a'))['a'].cached_tokens for _ in range(2)] == [0, 0]
    engine.close()


def test_requests_of_two_adapters_run_together(engine, adapter):
    alone = [answers(engine, request('one', adapter=key))['one'].tokens for key in ('', adapter)]
    both = answers(engine, request('plain'), request('adapted', adapter=adapter))
    assert [both['plain'].tokens, both['adapted'].tokens] == alone


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(engine):
    whole = answers(engine, request('whole', max_tokens=40))['whole'].text
    middle = len(whole) // 2
    stop = whole[middle:middle + 3]
    result = answers(engine, request('stopped', max_tokens=40, stop=(stop,)))['stopped']
    assert result.finish_reason == 'stop'
    assert result.text == whole[:whole.index(stop)]


def test_a_schema_binds_the_answer(engine):
    for seed in range(3):
        result = answers(engine, request('json', json_schema=SCHEMA, max_tokens=60,
                                         sampling=Sampling(temp=2.0, seed=seed)))['json']
        assert result.finish_reason == 'stop'
        assert set(json.loads(result.text)) == {'joint', 'by'}


def test_an_answer_that_leaves_no_choice_is_given(engine):
    result = answers(engine, request('fixed', json_schema='{"const": {"a": 1}}'))['fixed']
    assert (result.text, result.finish_reason) == ('{"a":1}', 'stop')


def test_a_regex_binds_the_answer(engine):
    assert answers(engine, request('regex', regex='(left|right){1,2}'))['regex'].text.strip('leftrigh') == ''


def test_the_same_seed_gives_the_same_answer_in_any_company(engine):
    seeded = Sampling(temp=1.0, seed=5)
    alone = answers(engine, request('one', sampling=seeded))['one'].tokens
    engine.clear_cache()
    assert answers(engine, request('one', sampling=seeded), request('two', PROMPTS[1]))['one'].tokens == alone


def test_cancel_ends_within_one_step(engine):
    engine.submit(request('long', max_tokens=500))
    engine.step()
    engine.cancel('long')
    results = [item for item in engine.step() if isinstance(item, Result)]
    assert [(one.finish_reason, one.error_code) for one in results] == [('cancelled', 3003)]
    assert engine.counts() == (0, 0)


def test_a_waiting_request_can_be_cancelled(engine):
    engine.submit(request('long'))
    engine.cancel('long')
    assert [item.finish_reason for item in engine.step()] == ['cancelled']
    assert not engine.busy()


def test_a_deadline_that_passes_ends_the_answer(engine):
    result = answers(engine, request('late', max_tokens=900, deadline=time.monotonic() + 0.05))['late']
    assert (result.finish_reason, result.error_code) == ('timeout', 3001)


def test_a_prompt_longer_than_the_context_is_refused_or_cut(engine):
    prompt = 'the robot ' * 600
    with pytest.raises(EngineError, match='tokens') as caught:
        engine.submit(request('long', prompt, max_seq_len=1024))
    assert caught.value.code == 3004
    for side in ('left', 'middle'):
        result = answers(engine, request('cut', prompt, max_seq_len=1024, truncate=side, max_tokens=4))['cut']
        assert result.prompt_tokens <= 1020
        assert len(result.tokens) == 4


def test_an_answer_ends_with_the_context(engine):
    result = answers(engine, request('full', max_seq_len=64, max_tokens=500))['full']
    assert result.finish_reason == 'length'
    assert result.prompt_tokens + len(result.tokens) == 64


@pytest.mark.parametrize('bad', [{'temp': float('nan')}, {'temp': -1.0}, {'top_p': 2.0}])
def test_absurd_sampling_is_refused(engine, bad):
    with pytest.raises(EngineError) as caught:
        engine.submit(request('bad', sampling=Sampling(**bad)))
    assert caught.value.code == 3004


@pytest.mark.parametrize('bad', [
    {'json_schema': '{"type": 3}'}, {'json_schema': '{'}, {'regex': '('}, {'json_schema': 'false'},
    {'json_schema': '{"type": "string", "minLength": 9, "maxLength": 2}'}])
def test_a_bad_constraint_is_refused(engine, bad):
    with pytest.raises(EngineError) as caught:
        engine.submit(request('bad', **bad))
    assert caught.value.code == 3004


def test_control_tokens_in_a_message_stay_text(engine):
    assert engine.tokenize(SPECIAL[2], special=True) == [2]
    plain = engine.tokenize(SPECIAL[2])
    assert len(plain) > 1
    assert engine.detokenize(plain) == SPECIAL[2]
    sneaky = answers(engine, request('sneaky', SPECIAL[2], max_tokens=1))['sneaky']
    assert sneaky.prompt_tokens == answers(engine, request('empty', 'x', max_tokens=1))['empty'].prompt_tokens \
        + len(plain) - 1


def test_detokenize_refuses_what_is_no_token(engine):
    with pytest.raises(EngineError) as caught:
        engine.detokenize([10 ** 6])
    assert caught.value.code == 3004


def test_an_unloaded_adapter_ends_what_runs_and_waits_on_it(engine, adapter):
    for index in range(6):  # two more than there are slots
        engine.submit(request(str(index), adapter=adapter))
    engine.step()
    engine.unload_adapter(adapter)
    results = [item for item in engine.step() if isinstance(item, Result)]
    assert [one.error_code for one in results] == [1001] * 6
    with pytest.raises(EngineError) as caught:
        engine.submit(request('gone', adapter=adapter))
    assert caught.value.code == 1001


def test_an_adapter_that_is_none_is_refused(engine, models, tmp_path):
    (tmp_path / 'adapter.gguf').write_bytes(b'GGUF' + bytes(100))
    with pytest.raises(EngineError) as caught:
        engine.load_adapter('broken@1', tmp_path / 'adapter.gguf', 1.0)
    assert caught.value.code == 1001
    assert answers(engine, request('next'))['next'].finish_reason == 'length'


def test_scores_are_the_log_likelihoods_of_the_tokens(engine):
    messages = (SYSTEM, ('user', PROMPTS[0]))
    (token, probability), *_rest = engine.distribution(messages, 3)
    assert token == answers(engine, request('greedy', max_tokens=1))['greedy'].tokens[0]
    best, other = (next(iter(engine.score(messages, [text]))) for text in (engine.detokenize([token]), 'the robot'))
    assert best[0] >= max(one[0] for one in engine.score(messages, ['the', 'robot', 'door']))
    assert len(other) == len(engine.tokenize('the robot'))
    assert all(value < 0 for value in other)
    assert engine.score(messages, ['', 'the robot'])[0] == []
    assert engine.score(messages, ['', 'the robot'])[1] == pytest.approx(other, abs=2e-3)
    assert 0 < probability < 1


def test_the_distribution_is_one(engine):
    found = engine.distribution((('user', 'look'),), 10 ** 6)
    assert sum(probability for _token, probability in found) == pytest.approx(1.0, abs=1e-4)
    assert [one[1] for one in found] == sorted((one[1] for one in found), reverse=True)


def test_scoring_leaves_running_answers_alone(engine):
    alone = answers(engine, request('alone'))['alone'].tokens
    engine.clear_cache()
    engine.submit(request('running'))
    engine.step()
    engine.score((SYSTEM, ('user', PROMPTS[1])), ['the robot', 'the door'])
    engine.embed('the robot turns its head')
    items = []
    while engine.busy():
        items += engine.step()
    assert items[-1].tokens == alone


def test_embeddings_of_near_texts_are_near(engine, adapter):
    first, second = engine.embed('the robot'), engine.embed('the robot', adapter)
    assert first[0] == pytest.approx(engine.embed('the robot')[0], abs=1e-4)
    assert first[1] == len(engine.tokenize('the robot'))
    assert first[0] != second[0]
    with pytest.raises(EngineError):
        engine.embed('')


def test_what_is_too_long_to_score_is_refused(engine):
    with pytest.raises(EngineError) as caught:
        engine.score((('user', 'the robot ' * 2000),), ['yes'])
    assert caught.value.code == 3004


def test_metadata_tells_size_and_context(engine):
    found = engine.metadata()
    assert found['general.architecture'] == 'llama'
    assert found['llama.context_length'] == str(CONTEXT)
    assert int(found['vocabulary_size']) > 256
    assert int(found['parameter_count']) > 100_000


def test_a_folder_without_safetensors_is_refused(tmp_path):
    (tmp_path / 'config.json').write_text('{"model_type": "llama"}')
    (tmp_path / 'pytorch_model.bin').write_bytes(b'code')
    for path in (tmp_path, tmp_path / 'nothing'):
        with pytest.raises(EngineError) as caught:
            open_engine(path, EngineSettings())
        assert caught.value.code == 1001


def mixed(name, *weights, adapters, prompt=PROMPTS[0], **options):
    messages = (SYSTEM, ('user', prompt))
    parts = tuple(Part(adapter, weight, messages) for adapter, weight in zip(adapters, weights, strict=True))
    return request(name, prompt, mixture=parts, **options)


def test_a_mixture_of_one_is_that_expert(engine, adapter):
    alone = answers(engine, request('alone', adapter=adapter))['alone'].tokens
    assert answers(engine, mixed('one', 1.0, adapters=[adapter]))['one'].tokens == alone
    both = answers(engine, mixed('sure', 1.0, 0.0, adapters=[adapter, '']))['sure']
    assert both.tokens == alone
    assert both.weights == (1.0, 0.0)


def test_a_mixture_draws_from_the_weighted_distribution(engine, adapter):
    messages = (SYSTEM, ('user', PROMPTS[0]))
    parts = {key: dict(engine.distribution(messages, 10 ** 6, key)) for key in ('', adapter)}
    expected = {token: 0.3 * parts[''][token] + 0.7 * parts[adapter][token] for token in parts['']}
    result = answers(engine, mixed('mixed', 0.3, 0.7, adapters=['', adapter], max_tokens=1,
                                   sampling=Sampling(temp=0.0, n_probs=5)))['mixed']
    best = sorted(expected, key=expected.get, reverse=True)[:5]
    assert [token for token, _value, _text in result.probs[0]] == best
    assert [value for _token, value, _text in result.probs[0]] == pytest.approx([expected[one] for one in best],
                                                                               abs=2e-3)
    token = result.tokens[0]
    posterior = 0.7 * parts[adapter][token] / expected[token]
    assert result.weights == pytest.approx((1 - posterior, posterior), abs=5e-3)
    assert sum(result.weights) == pytest.approx(1.0)


def test_mixtures_and_single_experts_run_together(engine, adapter):
    single = answers(engine, request('plain'))['plain'].tokens
    alone = answers(engine, mixed('mixed', 1.0, 1.0, adapters=['', adapter]))['mixed'].tokens
    engine.clear_cache()
    both = answers(engine, request('plain'), mixed('mixed', 1.0, 1.0, adapters=['', adapter]))
    assert (both['plain'].tokens, both['mixed'].tokens) == (single, alone)
    bound = answers(engine, mixed('json', 1.0, 1.0, adapters=['', adapter], json_schema=SCHEMA, max_tokens=60))['json']
    assert set(json.loads(bound.text)) == {'joint', 'by'}


@pytest.mark.parametrize('weights', [(-1.0, 1.0), (0.0, 0.0), (float('nan'), 1.0), (float('inf'), 1.0)])
def test_weights_that_mean_nothing_are_refused(engine, adapter, weights):
    with pytest.raises(EngineError) as caught:
        engine.submit(mixed('bad', *weights, adapters=['', adapter]))
    assert caught.value.code == 3004


def test_an_urgent_request_takes_a_place_and_the_other_goes_on_where_it_was(models, kind):
    engine = open_engine(models / PATHS[kind][0], EngineSettings(threads=1, slots=1, context_tokens=512))
    alone = answers(engine, request('chat', max_tokens=40))['chat'].tokens
    engine.clear_cache()
    engine.submit(request('chat', max_tokens=40, priority=10))
    items = [item for _ in range(10) for item in engine.step()]
    engine.submit(request('motion', PROMPTS[3], max_tokens=8, priority=50))
    while engine.busy():
        items += engine.step()
    results = {item.id: item for item in items if isinstance(item, Result)}
    order = [item.id for item in items if isinstance(item, Result)]
    assert order == ['motion', 'chat']
    assert results['chat'].tokens == alone
    assert ''.join(item.text for item in items if isinstance(item, Piece) and item.id == 'chat') \
        == results['chat'].text
    engine.close()


def test_neighbours_decode_a_common_prompt_once(engine):
    names = [str(index) for index in range(4)]
    results = answers(engine, *(request(name, ' '.join([*PROMPTS, name]), max_tokens=4) for name in names))
    computed = [results[name].prompt_tokens - results[name].cached_tokens for name in names]
    assert computed[0] == results['0'].prompt_tokens
    assert all(count < 20 for count in computed[1:])


def test_a_full_cache_makes_way(models, kind):
    """Sequences that share cells may need more than there are when the one that they shared with is gone."""
    engine = open_engine(models / PATHS[kind][0], EngineSettings(threads=1, slots=8, context_tokens=256))
    single = [answers(engine, request('one', prompt, max_tokens=60))['one'].tokens for prompt in PROMPTS]
    together = answers(engine, *(request(str(index), PROMPTS[index % 4], max_tokens=60) for index in range(12)))
    assert [together[str(index)].tokens for index in range(12)] == [single[index % 4] for index in range(12)]
    engine.close()


def test_probabilities_stand_beside_the_tokens(engine):
    result = answers(engine, request('probs', max_tokens=6, sampling=Sampling(temp=0.0, n_probs=3)))['probs']
    assert len(result.probs) == len(result.tokens) == 6
    for token, row in zip(result.tokens, result.probs, strict=True):
        assert row[0][0] == token
        assert [one[1] for one in row] == sorted((one[1] for one in row), reverse=True)
        assert all(0.0 <= value <= 1.0 for _token, value, _text in row)
    bound = answers(engine, request('bound', json_schema=SCHEMA, max_tokens=60,
                                    sampling=Sampling(temp=0.0, n_probs=2)))['bound']
    assert [row[0][0] for row in bound.probs] == list(bound.tokens)


@pytest.mark.parametrize('version', [1, 2])
def test_mirostat_repeats_with_its_seed(engine, version):
    seeded = Sampling(temp=1.0, seed=9, mirostat=version, mirostat_tau=3.0)
    first, second = (answers(engine, request('one', sampling=seeded))['one'].tokens for _ in range(2))
    assert first == second


def test_a_scale_holds_for_its_request_alone(engine, adapter):
    plain, adapted = (answers(engine, request('one', adapter=key))['one'].tokens for key in ('', adapter))
    together = answers(engine, request('off', adapter=adapter, scale=0.0), request('on', adapter=adapter))
    assert (together['off'].tokens, together['on'].tokens) == (plain, adapted)


def test_a_deadline_that_cannot_be_met_is_refused_at_once(engine):
    prompt = ' '.join(str(number) for number in range(300))
    answers(engine, request('slow', prompt, max_tokens=1))
    engine.clear_cache()
    engine.submit(request('late', prompt + ' now', deadline=time.monotonic() + 1e-3))
    assert [item.error_code for item in engine.step()] == [3001]


def test_nobody_waits_for_ever(models, kind):
    """A stream of urgent requests does not keep a patient one out."""
    engine = open_engine(models / PATHS[kind][0], EngineSettings(threads=1, slots=1, context_tokens=512))
    engine.submit(request('patient', max_tokens=4, priority=0))
    served, count = False, 0
    while not served:
        if engine.counts()[1] < 2:
            count += 1
            engine.submit(request(f'urgent {count}', PROMPTS[1], max_tokens=2, priority=5))
        served = any(isinstance(item, Result) and item.id == 'patient' for item in engine.step())
    engine.close()


def test_bias_and_penalties_change_what_is_drawn(engine):
    first = answers(engine, request('plain', max_tokens=1))['plain'].tokens[0]
    banned = Sampling(temp=0.0, ignore_eos=True, logit_bias=((first, -np.inf),))
    assert answers(engine, request('banned', max_tokens=1, sampling=banned))['banned'].tokens[0] != first
    loop = answers(engine, request('free', max_tokens=30))['free'].tokens
    penalised = Sampling(temp=0.0, ignore_eos=True, penalty_repeat=2.0, penalty_last_n=-1)
    varied = answers(engine, request('varied', max_tokens=30, sampling=penalised))['varied'].tokens
    assert len(set(varied)) >= len(set(loop))
