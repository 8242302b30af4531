"""What the tests of the node ask, and how its answers are read."""

import json

from graph import wait_for

from moe_interfaces.action import GenerateResponse
from moe_interfaces.srv import GetRouterStats, RoutePrompt

QUESTIONS = {'python': 'How do I read a JSON file in Python?', 'linux': 'How can I see how much disk space is free?',
             'robotics': 'How do I list all active ROS 2 topics?', 'general': 'What is the capital of France?'}
STORY = 'Tell me a long story about a robot that travels around the whole world.'


def ready(graph, prompt=QUESTIONS['python']):
    """The decision on a prompt once there is one."""
    def decided():
        found = graph.call(RoutePrompt, 'route_prompt', prompt=prompt)
        return found.decision if not found.error_code else None
    return wait_for(decided, 180.0, 'a decision', 0.5)


def ask(graph, prompt, **fields):
    return graph.ask(GenerateResponse, 'generate_response', prompt=prompt, **fields)


def streamed(graph, prompt):
    """The result of an answer that was streamed whole: rclpy drops feedback that the result overtakes."""
    def attempt():
        answer = ask(graph, prompt)
        result = answer.result()
        return result if result.error_code or answer.text == result.response.text else None
    return wait_for(attempt, 60.0, 'a stream of the whole answer')


def stats(graph):
    found = graph.call(GetRouterStats, 'router/stats')
    return found, json.loads(found.report)
