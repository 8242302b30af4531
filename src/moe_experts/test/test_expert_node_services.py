"""The expert node's services beside generation, its benchmark, and the names that llama_ros gives them."""

import json

import pytest
from expert_graph import ask, greedy
from graph import NodeProcess

from moe_interfaces.action import BenchmarkExpert, GenerateResponse
from moe_interfaces.srv import (
    Detokenize,
    GenerateEmbeddings,
    GetMetadata,
    ListLoras,
    RerankDocuments,
    Score,
    Tokenize,
    UpdateLoras,
)

pytest_plugins = ['expert_fixtures']


def test_tokens_scores_embeddings_and_ranks(graph, node):
    tokens = graph.call(Tokenize, 'experts/tokenize', text='the robot').tokens
    assert graph.call(Detokenize, 'experts/detokenize', tokens=tokens).text == 'the robot'
    assert graph.call(GetMetadata, 'experts/get_metadata', expert='left').embedding_length == 64
    scored = graph.call(Score, 'experts/score', expert='left', prompt='look', texts=['the robot', 'the'])
    assert list(scored.n_tokens) == [len(tokens), 1]
    assert all(value < 0 for value in scored.log_likelihoods)
    for prompt, texts in (('', ['a']), ('look', [])):
        assert graph.call(Score, 'experts/score', expert='left', prompt=prompt, texts=texts).error_code == 3004
    embedded = graph.call(GenerateEmbeddings, 'experts/generate_embeddings', prompt='the robot')
    assert sum(value ** 2 for value in embedded.embeddings) == pytest.approx(1.0, abs=1e-4)
    assert (len(embedded.embeddings), embedded.n_tokens) == (64, len(tokens))
    assert graph.call(GenerateEmbeddings, 'experts/generate_embeddings', prompt='x', normalization=5).error_code == 3004
    ranked = graph.call(RerankDocuments, 'experts/rerank_documents', query='the robot',
                        documents=['the door', 'a story'])
    assert (ranked.error_code, len(ranked.scores)) == (0, 2)
    assert ranked.scores[0] != ranked.scores[1]


def test_scales_are_listed_and_changed(graph, node):
    adapted, plain = (ask(graph, expert=name, system_prompt='look').result().response.text
                      for name in ('left', 'general'))
    assert graph.call(UpdateLoras, 'experts/update_loras', experts=['left'], scales=[0.0]).error_code == 0
    assert ask(graph, expert='left', system_prompt='look').result().response.text == plain != adapted
    listed = graph.call(ListLoras, 'experts/list_loras')
    assert dict(zip((one.expert for one in listed.loras), listed.scales, strict=True))['left'] == 0.0
    assert graph.call(UpdateLoras, 'experts/update_loras', experts=['left'], scales=[1.0]).error_code == 0
    assert ask(graph, expert='left', system_prompt='look').result().response.text == adapted
    for experts, scales, code in ((['general'], [1.0], 1001), (['left'], [], 3004), (['left'], [float('nan')], 3004)):
        assert graph.call(UpdateLoras, 'experts/update_loras', experts=experts, scales=scales).error_code == code


def test_a_goal_scales_the_adapter_for_itself_alone(graph, node):
    def answer(**fields):
        return ask(graph, expert='left', system_prompt='look', **fields).result()
    adapted, plain = answer().response.text, ask(graph, expert='general', system_prompt='look').result().response.text
    assert answer(lora_scales=[0.0]).response.text == plain != adapted
    assert answer().response.text == adapted
    for scales in ([1.0, 1.0], [float('nan')]):
        assert answer(lora_scales=scales).error_code == 3004


def test_a_benchmark_measures_streams_and_held_out_answers(graph, node, home):
    heldout = home / 'heldout.jsonl'
    heldout.write_text(json.dumps({'prompt': 'look', 'completion': 'no such answer'}) + '\n')
    done = graph.ask(BenchmarkExpert, 'experts/benchmark_expert', expert='left', streams=[1, 3], prompt_tokens=16,
                     max_tokens=8, repeats=2, heldout=str(heldout))
    result = done.result()
    assert not result.error_msg
    values = {metric.name: metric.value for metric in result.metrics}
    assert values['tokens_per_s_1'] > 0
    assert values['answer_s_p50_3'] <= values['answer_s_p99_3']
    assert values['exact'] == 0.0
    assert json.loads(result.report)['expert'] == 'left'
    assert 'tokens/s' in result.verdict
    bad = graph.ask(BenchmarkExpert, 'experts/benchmark_expert', expert='left', heldout=str(home / 'none')).result()
    assert bad.error_code in (2001, 3004)


def test_a_client_of_llama_ros_finds_its_names(graph, home, environment):
    remappings = ('__ns:=/', '__node:=llama', 'registry/get_version:=/moe/registry/get_version',
                  'registry/events:=/moe/registry/events')
    with NodeProcess(home, 'expert_node', environment, remappings, **{'experts.default': 'general',
                                                                      'inference.threads': 1}):
        goal = graph.ask(GenerateResponse, '/llama/generate_response', prompt='look', max_tokens=4,
                         sampling_config=greedy())
        assert (goal.result().error_code, goal.result().expert) == (0, 'general')
        assert graph.call(Tokenize, '/llama/tokenize', text='the robot').tokens
        assert graph.call(GetMetadata, '/llama/get_metadata').vocabulary_size > 0
