"""Nodes that are killed or away. The last of the node's files: it ends the registry and the router."""

import json
import signal

from asking import QUESTIONS, STORY, ask, stats
from diagnostic_msgs.msg import DiagnosticArray
from graph import NodeProcess, second_node, second_router, wait_for

from moe_interfaces.action import GenerateResponse
from moe_interfaces.msg import SamplingConfig
from moe_interfaces.srv import (
    CorrectRoute,
    GetRouterStats,
    RoutePrompt,
)


def test_a_killed_node_loses_nothing_that_nobody_has_seen(moe, suite, environment):
    with second_node(suite, environment) as second, second_router(suite, environment):
        def nodes():
            found = moe.call(GetRouterStats, 'both/stats', 60.0)
            return json.loads(found.report)['nodes']
        wait_for(lambda: all('requests' in state for state in nodes().values()), 60.0, 'both nodes')

        def both(prompt, **fields):
            return moe.ask(GenerateResponse, 'both/generate_response', prompt=prompt, expert='general', **fields)

        # mid-stream: an error that keeps what was streamed
        streams = [both(STORY, max_tokens=1500, session=f'kill{number}').streaming() for number in range(6)]
        second.process.send_signal(signal.SIGKILL)
        second.process.wait()
        later = [both(QUESTIONS['general']) for _ in range(4)]
        for answer in later:
            result = answer.result(90.0)
            assert result.error_code == 0 and 'Paris' in result.response.text
        ended = [answer for answer in streams if answer._result.done() or not answer.cancel()]
        results = [answer.result(90.0) for answer in ended]
        broken = [(answer, result) for answer, result in zip(ended, results, strict=True) if result.error_code == 3000]
        for answer, result in broken:
            assert 'incomplete' in result.error_msg
            assert result.response.text and result.response.text.startswith(answer.text[:20])


def test_a_killed_node_that_is_back_at_once_does_not_keep_its_callers_waiting(moe, suite, environment):
    """Its first life is in the graph until its lease ends, and its next one reports in its name."""
    endless = SamplingConfig(ignore_eos=True)
    # silence betrays nodes that stay away; this one is back sooner than that
    with second_node(suite, environment) as first, \
            second_router(suite, environment, '["b/experts"]', silence_s=120.0):
        wait_for(lambda: 'requests' in json.loads(moe.call(GetRouterStats, 'both/stats').report)['nodes']['b/experts'],
                 60.0, 'the node')
        answer = moe.ask(GenerateResponse, 'both/generate_response', prompt=STORY, expert='general', max_tokens=1500,
                         sampling_config=endless).streaming()
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        with second_node(suite, environment):
            result = answer.result(60.0)
            assert (result.error_code, 'incomplete' in result.error_msg) == (3000, True)
            assert result.response.text.startswith(answer.text[:20])
            again = moe.ask(GenerateResponse, 'both/generate_response', prompt=QUESTIONS['general'], expert='general')
            assert 'Paris' in again.result(60.0).response.text


def test_without_any_expert_node_it_says_so(moe, suite, environment):
    with second_router(suite, environment, expert_wait_s=0.5) as router:
        wait_for(lambda: not moe.call(RoutePrompt, 'both/route_prompt', prompt=QUESTIONS['python']).error_code, 120.0)
        assert router.process.poll() is None
    with NodeProcess(suite['logs'], 'moe_router', 'router_node', environment, label='alone', remappings=(
            '__ns:=/elsewhere',), act='false', expert_wait_s=0.2):
        result = moe.ask(GenerateResponse, '/elsewhere/generate_response', prompt='hello', expert='general').result()
        # it has the last known table and head from disk, though its registry is away
        assert result.error_code == 1001 and 'No expert node' in result.error_msg
        known = moe.call(RoutePrompt, '/elsewhere/route_prompt', prompt=QUESTIONS['python'])
        assert known.decision.choice == 'python'


def test_the_last_known_table_and_notes_serve_while_the_registry_is_away(moe, suite, environment):
    assert not ask(moe, QUESTIONS['robotics']).result().error_code  # the expert node knows its version from now on
    suite['registry'].end()

    def warned():
        message = moe.message(DiagnosticArray, '/diagnostics', lambda one: any(
            'routing' in status.name and status.level != b'\x00' for status in one.status), 60.0)
        return any('registry is away' in status.message for status in message.status)
    assert wait_for(warned, 60.0, 'a diagnostics message')
    assert ask(moe, QUESTIONS['python']).result().expert == 'python'
    assert stats(moe)[1]['registry_away']
    with second_router(suite, environment, '["experts"]'):
        wait_for(lambda: not moe.call(RoutePrompt, 'both/route_prompt', prompt=QUESTIONS['python']).error_code, 60.0)
        answer = moe.ask(GenerateResponse, 'both/generate_response', prompt=QUESTIONS['robotics']).result()
        assert (answer.response.text, answer.sources[0].text) == ('Run `ros2 topic list`.',) * 2
    refused = moe.call(CorrectRoute, 'correct_route', request_id='x', expert='linux', actor='test')
    assert refused.error_code == 5000


def test_it_stops_cleanly_while_it_works(moe, suite):
    answer = ask(moe, STORY, expert='general', max_tokens=500).streaming()
    assert suite['router'].end() == 0
    assert answer.text
