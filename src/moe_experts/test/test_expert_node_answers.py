"""What the expert node answers to goals: streams, limits, refusals, constraints, caches, mixtures."""

import json

import pytest
from action_msgs.msg import GoalStatus
from expert_graph import LONG, SEEDS, ask, greedy, status
from graph import wait_for
from rclpy.time import Duration

from moe_interfaces.action import GenerateChatCompletions
from moe_interfaces.msg import ChatMessage, SamplingConfig
from moe_interfaces.srv import ClearCache

pytest_plugins = ['expert_fixtures']

SCHEMA = '{"type": "object", "properties": {"by": {"type": "integer"}}, "required": ["by"], '
SCHEMA += '"additionalProperties": false}'


def deadline(graph, seconds):
    return (graph.node.get_clock().now() + Duration(seconds=seconds)).to_msg()


def test_goals_that_come_while_the_model_loads_are_answered(graph, node):
    goals = [ask(graph) for _ in range(4)]
    results = [goal.result() for goal in goals]
    assert len({result.response.text for result in results}) == 1
    assert [result.error_msg for result in results] == [''] * 4
    assert len(status(graph, lambda message: message.experts).worker_pids) == 1


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


def test_probabilities_come_with_the_stream(graph, node):
    own = SamplingConfig(temp=0.0, ignore_eos=True, n_probs=3, seed=next(SEEDS))
    goal = ask(graph, sampling_config=own, max_tokens=200).streaming()
    assert any(one.partial_response.probs.data for one in goal.feedback)
    result = goal.result()
    assert [row.chosen_token for row in result.response.probs] == list(result.response.tokens)
    assert all(len(row.data) == 3 for row in result.response.probs)


def test_a_mixture_of_experts_answers(graph, node):
    alone = ask(graph, expert='left').result().response.tokens
    sure = ask(graph, expert='', experts=['left', 'general'], weights=[1.0, 0.0]).result()
    assert (sure.error_code, sure.response.tokens, sure.expert) == (0, alone, 'left')
    both = ask(graph, expert='', experts=['left', 'general'])
    assert (both.result().error_code, both.result().finish_reason) == (0, 'length')


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
