"""The expert node with its registry, as processes, on the tiny model."""

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from graph import Graph, NodeProcess, wait_for
from rclpy.time import Duration
from tiny_model import make_models

from moe_interfaces.action import BenchmarkExpert, GenerateChatCompletions, GenerateResponse
from moe_interfaces.msg import ChatMessage, Expert, ExpertVersion, SamplingConfig, ServingStatus
from moe_interfaces.srv import (
    ClearCache,
    CreateExpert,
    Detokenize,
    GenerateEmbeddings,
    GetMetadata,
    GetVersion,
    ListLoras,
    LoadExpert,
    RegisterVersion,
    RerankDocuments,
    Score,
    SetAlias,
    Tokenize,
    UnloadExpert,
    UpdateLoras,
)

ACTION = 'experts/generate_response'
LONG = 6000  # tokens: longer than any test waits
SCHEMA = '{"type": "object", "properties": {"by": {"type": "integer"}}, "required": ["by"], '
SCHEMA += '"additionalProperties": false}'


def greedy():
    return SamplingConfig(temp=0.0, ignore_eos=True)


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp('moe')
    if os.geteuid() == 0:
        for parent in (folder, *folder.parents[:2]):
            parent.chmod(0o755)  # the embedded server runs as a user of its own where the tests run as root
    return folder


@pytest.fixture(scope='module')
def environment(home):
    return {**os.environ, 'MOE_HOME': str(home)}


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


SEEDS = itertools.count()


def ask(graph, prompt='what is the capital of France', expert='general', **options):
    # a seed of its own keeps the answer cache out of tests that are not about it
    own = SamplingConfig(temp=0.0, ignore_eos=True, seed=next(SEEDS))
    options = {'sampling_config': own, 'max_tokens': 12, **options}
    return graph.ask(GenerateResponse, ACTION, prompt=prompt, expert=expert, **options)


def deadline(graph, seconds):
    return (graph.node.get_clock().now() + Duration(seconds=seconds)).to_msg()


def status(graph, accept):
    return graph.message(ServingStatus, 'experts/status', accept)


def loaded(message):
    return sorted(one.expert for one in message.experts)


def test_goals_that_come_while_the_model_loads_are_answered(graph, node):
    goals = [ask(graph) for _ in range(4)]
    results = [goal.result() for goal in goals]
    assert len({result.response.text for result in results}) == 1
    assert [result.error_msg for result in results] == [''] * 4
    assert len(status(graph, lambda message: message.experts).worker_pids) == 1


def test_the_base_and_the_adapters_on_it_share_a_process(graph, node):
    for name in ('general', 'left'):
        assert not graph.call(LoadExpert, 'experts/load_expert', expert=name).error_code
    found = status(graph, lambda message: {'general', 'left'} <= {one.expert for one in message.experts})
    assert len(found.worker_pids) == 1


def test_tokens_are_streamed_and_counted(graph, node):
    goal = ask(graph, request_id='mine', max_tokens=200).streaming()
    result = goal.result()
    assert goal.goal_status == GoalStatus.STATUS_SUCCEEDED
    assert (result.finish_reason, result.expert, result.expert_version, result.request_id) == (
        'length', 'general', 1, 'mine')
    assert goal.text and result.response.text.startswith(goal.text)  # rclpy drops feedback that the result overtakes
    assert goal.feedback[0].partial_response.text == ''
    assert goal.feedback[0].expert == 'general'
    assert result.usage.completion_tokens == len(result.response.tokens) == 200
    assert result.usage.total_tokens == result.usage.prompt_tokens + 200
    assert 0 < result.usage.cached_tokens < result.usage.prompt_tokens
    assert 0.0 < result.timings.first_token_s <= result.timings.total_s


def test_chat_completions_give_n_answers(graph, node):
    goal = graph.ask(GenerateChatCompletions, 'experts/generate_chat_completions', expert='general', n=2, max_tokens=4,
                     messages=[ChatMessage(role='user', content='look')], sampling_config=greedy())
    result = goal.result()
    assert [choice.index for choice in result.choices] == [0, 1]
    assert result.choices[0].message.content == result.choices[1].message.content
    assert result.model == 'general@1'
    assert result.usage.completion_tokens == 8


def test_cancel_ends_a_running_answer(graph, node):
    goal = ask(graph, max_tokens=LONG).streaming()
    goal.cancel()
    result = goal.result()
    assert goal.goal_status == GoalStatus.STATUS_CANCELED
    assert (result.finish_reason, result.error_code) == ('cancelled', 3003)
    assert 0 < len(result.response.tokens) < LONG
    status(graph, lambda message: message.running == 0)


def test_a_deadline_ends_a_running_answer(graph, node):
    goal = ask(graph, max_tokens=LONG, deadline=deadline(graph, 0.3))
    result = goal.result()
    assert (goal.goal_status, result.finish_reason, result.error_code) == (
        GoalStatus.STATUS_ABORTED, 'timeout', 3001)
    assert ask(graph, deadline=deadline(graph, -1.0)).result().error_code == 3001


@pytest.mark.parametrize(('options', 'code', 'sentence'), [
    ({'expert': 'nobody'}, 1000, 'Expert with name=nobody not found'),
    ({'prompt': '  '}, 3004, 'The prompt is empty; ask something.'),
    ({'prompt': 'the robot ' * 5000}, 3004, ''),
    ({'expert': ''}, 3004, ''),
    ({'experts': ['left', 'right'], 'weights': [1.0]}, 3004, ''),
    ({'experts': ['left', 'left']}, 3004, 'twice'),
    ({'experts': ['left', 'right'], 'weights': [1.0, -1.0]}, 3004, 'weights'),
    ({'truncate': 'up'}, 3004, ''),
    ({'keep_alive': -3.0}, 3004, ''),
    ({'max_tokens': -1}, 3004, ''),
    ({'sampling_config': SamplingConfig(temp=float('nan'))}, 3004, ''),
    ({'sampling_config': SamplingConfig(json_schema='{"type": 3}')}, 3004, '')])
def test_bad_goals_are_refused_and_the_next_is_answered(graph, node, options, code, sentence):
    goal = ask(graph, **options)
    result = goal.result()
    assert (goal.goal_status, result.finish_reason, result.error_code) == (GoalStatus.STATUS_ABORTED, 'error', code)
    assert result.error_msg
    assert sentence in result.error_msg
    assert ask(graph).result().error_code == 0


def test_a_schema_binds_the_answer(graph, node):
    result = ask(graph, max_tokens=60, sampling_config=SamplingConfig(temp=1.0, seed=1, json_schema=SCHEMA)).result()
    assert set(json.loads(result.response.text)) == {'by'}


def test_the_least_recently_used_adapter_is_evicted(graph, node):
    before = status(graph, lambda _message: True).evictions
    texts = {name: ask(graph, expert=name).result().response.text for name in ('left', 'right', 'left', 'up')}
    assert len(set(texts.values())) == 1
    assert texts['left'] != ask(graph).result().response.text
    found = status(graph, lambda message: 'up' in loaded(message))
    assert loaded(found) == ['general', 'left', 'up']
    assert found.evictions >= before + 1


def test_what_is_pinned_stays_and_what_is_unloaded_goes(graph, node):
    first = graph.call(LoadExpert, 'experts/load_expert', expert='left', pin=True)
    assert (first.error_code, first.status.expert, first.status.pinned) == (0, 'left', True)
    assert graph.call(LoadExpert, 'experts/load_expert', expert='left').load_s == 0.0
    for name in ('right', 'up', 'right'):
        assert ask(graph, expert=name).result().error_code == 0
    assert loaded(status(graph, lambda message: 'right' in loaded(message))) == ['general', 'left', 'right']
    assert graph.call(UnloadExpert, 'experts/unload_expert', expert='left').freed_bytes > 0
    assert 'left' not in loaded(status(graph, lambda message: 'right' in loaded(message)))
    assert graph.call(UnloadExpert, 'experts/unload_expert', expert='nobody').error_code == 1000


def test_a_goal_may_say_how_long_its_expert_stays(graph, node):
    ask(graph, expert='left', keep_alive=0.0).result()
    status(graph, lambda message: 'left' not in loaded(message))


def test_unloading_by_force_ends_what_runs(graph, node):
    goal = ask(graph, expert='left', max_tokens=1500).streaming()
    graph.call(UnloadExpert, 'experts/unload_expert', expert='left', force=True)
    result = goal.result()
    assert (result.error_code, result.finish_reason) == (1001, 'error')
    assert result.response.text
    assert ask(graph, expert='left').result().error_code == 0


def test_a_new_champion_answers_next(graph, node, home):
    ask(graph, expert='left').result()
    version = ExpertVersion(artifact_path=str(home / 'adapter.gguf'), base='tiny', lora_scale=0.5,
                            base_path=str(home / 'base.gguf'))
    graph.call(RegisterVersion, 'registry/register_version', expert='left', version=version, alias='champion')
    wait_for(lambda: ask(graph, expert='left').result().expert_version == 2, what='version 2')
    assert ask(graph, expert='left', sampling_config=greedy()).result().cached is False
    assert ask(graph, expert='left', sampling_config=greedy()).result().cached is True
    graph.call(SetAlias, 'registry/set_alias', expert='left', alias='champion', version=1)
    wait_for(lambda: ask(graph, expert='left').result().expert_version == 1, what='version 1')
    status(graph, lambda message: [one.version for one in message.experts if one.expert == 'left'] == [1])
    assert ask(graph, expert='left', sampling_config=greedy()).result().cached is False


def test_whoever_asks_while_a_champion_moves_leaves_no_old_version_behind(graph, node):
    over = threading.Event()

    def keep_asking():
        while not over.is_set():
            assert ask(graph, expert='left').result().error_code == 0

    with ThreadPoolExecutor(8) as callers:
        asking = [callers.submit(keep_asking) for _ in range(8)]
        try:
            for version in (2, 1) * 4:
                graph.call(SetAlias, 'registry/set_alias', expert='left', alias='champion', version=version)
                status(graph, lambda message, version=version: [
                    one.version for one in message.experts if one.expert == 'left'] == [version])
        finally:
            over.set()
        for one in asking:
            one.result()


def test_a_pinned_expert_stays_pinned_with_a_new_champion(graph, node):
    assert graph.call(LoadExpert, 'experts/load_expert', expert='left', pin=True).status.pinned
    for version in (2, 1):
        graph.call(SetAlias, 'registry/set_alias', expert='left', alias='champion', version=version)
        status(graph, lambda message, version=version: [
            (one.version, one.pinned) for one in message.experts if one.expert == 'left'] == [(version, True)])
    graph.call(UnloadExpert, 'experts/unload_expert', expert='left')


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


def test_a_cleared_cache_is_empty(graph, node):
    ask(graph).result()
    assert graph.call(ClearCache, 'experts/clear_cache').entries > 0
    assert ask(graph).result().usage.cached_tokens == 0
    assert graph.call(ClearCache, 'experts/clear_cache', expert='general').entries == 2  # a prefix and an answer


def test_what_was_answered_before_is_answered_from_memory(graph, node):
    hits = status(graph, lambda message: True).cache_hits
    first, second = (ask(graph, 'turn left', sampling_config=greedy()) for _ in range(2))
    first, second = first.result(), second.result()
    again = ask(graph, 'turn left', sampling_config=greedy()).result()
    assert first.cached is False
    assert again.cached is True
    assert again.response == first.response == second.response

    def streamed():  # asked until the result does not overtake the text: rclpy drops it then
        fourth = ask(graph, 'turn left', sampling_config=greedy())
        return fourth.result().cached and fourth.text == again.response.text
    wait_for(streamed, what='the text in the stream')
    assert status(graph, lambda message: message.cache_hits > hits).cache_hits > hits
    assert graph.call(ClearCache, 'experts/clear_cache').entries > 0
    assert ask(graph, 'turn left', sampling_config=greedy()).result().cached is False


def test_a_mixture_of_experts_answers(graph, node):
    alone = ask(graph, expert='left').result().response.tokens
    sure = ask(graph, expert='', experts=['left', 'general'], weights=[1.0, 0.0]).result()
    assert (sure.error_code, sure.response.tokens, sure.expert) == (0, alone, 'left')
    both = ask(graph, expert='', experts=['left', 'general'])
    assert (both.result().error_code, both.result().finish_reason) == (0, 'length')


def test_probabilities_come_with_the_stream(graph, node):
    own = SamplingConfig(temp=0.0, ignore_eos=True, n_probs=3, seed=next(SEEDS))
    goal = ask(graph, sampling_config=own, max_tokens=200).streaming()
    assert any(one.partial_response.probs.data for one in goal.feedback)
    result = goal.result()
    assert [row.chosen_token for row in result.response.probs] == list(result.response.tokens)
    assert all(len(row.data) == 3 for row in result.response.probs)


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


GONE = '''
import rclpy, sys
from rclpy.action import ActionClient
from moe_interfaces.action import GenerateResponse
from moe_interfaces.msg import SamplingConfig
rclpy.init()
node = rclpy.create_node('caller', namespace='moe')
client = ActionClient(node, GenerateResponse, 'experts/generate_response')
client.wait_for_server()
heard = []
client.send_goal_async(GenerateResponse.Goal(
    prompt='look', expert='general', max_tokens=6000, sampling_config=SamplingConfig(temp=0.0, ignore_eos=True)),
    feedback_callback=heard.append)
while len(heard) < 3:
    rclpy.spin_once(node, timeout_sec=1.0)
node.destroy_node()
rclpy.shutdown()
'''


def test_nothing_is_decoded_for_callers_that_are_gone(home, environment, graph):
    with NodeProcess(home, 'expert_node', environment, ('__ns:=/moe', '__node:=lonely'),
                     **{'inference.threads': 1}) as lonely:
        wait_for(lambda: graph.call(Tokenize, 'lonely/tokenize', text='the').tokens, what='the node')
        subprocess.run([sys.executable, '-c', GONE.replace('experts/', 'lonely/')], env=environment, check=True,
                       timeout=60)
        graph.message(ServingStatus, 'lonely/status', lambda message: message.running == 0 and message.experts)
        wait_for(lambda: 'Nobody listens to 1 answers' in lonely.log.read_text(), what='the cancel')


def test_a_killed_worker_is_started_again(graph, node):
    goal = ask(graph, max_tokens=LONG).streaming()
    before = status(graph, lambda message: message.worker_pids)
    os.kill(before.worker_pids[0], signal.SIGKILL)
    result = goal.result()
    assert result.error_code == 3000
    assert result.response.text
    assert 'SIGKILL' in result.error_msg
    assert ask(graph, expert='left').result().error_code == 0
    after = status(graph, lambda message: message.worker_restarts == before.worker_restarts + 1)
    assert after.worker_pids[0] != before.worker_pids[0]
    graph.message(DiagnosticArray, '/diagnostics', lambda message: any(
        one.name == 'experts: serving' and one.level == DiagnosticStatus.WARN for one in message.status))


def test_a_base_that_is_gone_is_named(graph, node, home):
    copy = home / 'gone.gguf'
    copy.write_bytes((home / 'base.gguf').read_bytes())
    graph.call(CreateExpert, 'registry/create_expert', expert=Expert(name='gone', domain='gone'))
    version = ExpertVersion(artifact_path=str(home / 'adapter.gguf'), base='tiny', base_path=str(copy))
    assert not graph.call(RegisterVersion, 'registry/register_version', expert='gone', version=version,
                          alias='champion').error_code
    copy.unlink()
    result = ask(graph, expert='gone').result()
    assert result.error_code == 1001
    assert str(copy) in result.error_msg
    assert ask(graph).result().error_code == 0


def test_sigterm_in_the_middle_of_an_answer_tells_the_caller_and_ends_with_code_0(graph, node):
    pids = status(graph, lambda message: message.worker_pids).worker_pids
    goal = ask(graph, max_tokens=LONG).streaming()
    assert node.end() == 0
    result = goal.result()
    assert (result.error_code, result.finish_reason) == (3003, 'cancelled')
    assert result.response.text
    assert not any(os.path.exists(f'/proc/{pid}') for pid in pids)
    assert 'Traceback' not in node.log.read_text()
