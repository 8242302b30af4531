"""The same promises of both engines, on the same tiny model: answers, adapters, prompts, scores, metadata."""

import pytest
from engines_under_test import PATHS, PROMPTS, SYSTEM, answers, request
from tiny_model import CONTEXT, SPECIAL

from moe_experts.engines.engine import EngineError, EngineSettings, Result
from moe_experts.engines.opening import open_engine


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


@pytest.mark.parametrize(('wrong', 'said'), [
    ({'cache_type': 'q0'}, 'q0 is unknown'),
    ({'cache_type': 'q8_0'}, 'q8_0 needs flash_attention'),
    ({'cache_type': 'q8_0', 'flash_attention': True},
     'q8_0 with block size 32 does not divide n_embd_head_k=16')])  # only real models have more
def test_a_kv_cache_that_cannot_be_is_refused(models, wrong, said):
    with pytest.raises(EngineError, match=said):
        open_engine(models / PATHS['llama_cpp'][0], EngineSettings(**wrong))


@pytest.mark.parametrize('settings', [{'flash_attention': True}, {'cache_type': 'f32'}])
def test_a_kv_cache_of_each_kind_answers(models, settings):
    engine = open_engine(models / PATHS['llama_cpp'][0], EngineSettings(threads=1, **settings))
    assert len(answers(engine, request('one'))['one'].tokens) > 4
    engine.close()


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


def test_requests_of_two_adapters_run_together(engine, adapter):
    alone = [answers(engine, request('one', adapter=key))['one'].tokens for key in ('', adapter)]
    both = answers(engine, request('plain'), request('adapted', adapter=adapter))
    assert [both['plain'].tokens, both['adapted'].tokens] == alone


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


def test_a_scale_holds_for_its_request_alone(engine, adapter):
    plain, adapted = (answers(engine, request('one', adapter=key))['one'].tokens for key in ('', adapter))
    together = answers(engine, request('off', adapter=adapter, scale=0.0), request('on', adapter=adapter))
    assert (together['off'].tokens, together['on'].tokens) == (plain, adapted)
