"""What an answer is made of: several experts, notes, the state of the robot."""

import json

from asking import QUESTIONS, ask, ready, streamed
from graph import wait_for
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from moe_interfaces.msg import Note, SamplingConfig
from moe_interfaces.srv import (
    AddNotes,
)


def test_several_experts_are_joined_or_the_best_of_them_answers(moe, setting):
    setting({'mixture_k': 1, 'mixture': 'best'}, mixture_k=2, mixture='concat')
    texts = ('list files in a directory with python', 'read a file line by line', 'kill a process', 'find a file',
             'count lines of a file', 'list the running nodes')
    prompt = next(text for text in texts
                  if not (decision := ready(moe, text)).abstained and decision.probabilities[1] > 0.01)
    result = ask(moe, prompt).result()
    assert result.error_code == 0
    first, second = result.response.text.split('\n\n')
    assert first.startswith(f'{result.route.ranked[0]}: ') and second.startswith(f'{result.route.ranked[1]}: ')
    setting({}, mixture='best')
    result = streamed(moe, prompt)
    assert result.expert in result.route.ranked[:2]
    assert result.error_code == 0 and '\n\n' not in result.response.text


def test_several_experts_are_mixed_token_by_token(moe, setting):
    setting({'mixture_k': 1, 'mixture': 'best', 'notes_most': 3}, notes_most=0)
    alone = streamed(moe, QUESTIONS['python']).usage.prompt_tokens
    setting({}, mixture_k=3, mixture='logits')
    result = streamed(moe, QUESTIONS['python'])
    assert (result.error_code, result.expert, result.finish_reason) == (0, 'python', 'stop')
    assert 'json' in result.response.text
    assert result.usage.prompt_tokens > alone  # those of the longest of three prompts
    result = streamed(moe, QUESTIONS['general'])
    assert (result.error_code, result.expert, result.route.abstained) == (0, 'general', True)
    assert 'Paris' in result.response.text


def test_a_new_note_is_read_and_named_as_a_source(moe):
    before = moe.call(AddNotes, 'registry/add_notes', notes=[
        Note(expert='general', source='house.md', text='The spare battery is in the red drawer.')])
    assert before.error_code == 0 and before.added == 1

    def told():
        result = ask(moe, 'Where is the spare battery?', expert='general').result()
        return result if result.sources else None
    result = wait_for(told, 30.0, 'a note in the answer')
    assert result.sources[0].source == 'house.md' and result.sources[0].score > 0.4
    assert 'red' in result.response.text.lower()


def test_a_note_that_is_surely_asked_for_is_said_word_for_word(moe, setting):
    text = 'Turn `door-7` twice, "90°" each; then push.'
    assert moe.call(AddNotes, 'registry/add_notes', notes=[Note(
        expert='general', source='house.jsonl', text=text, questions=['How do I open the garage?'])]).added == 1

    def told(prompt, **fields):
        result = ask(moe, prompt, expert='general', **fields).result()
        return result if result.sources and result.sources[0].source == 'house.jsonl' else None
    result = wait_for(lambda: told('How do I open the garage?'), 30.0, 'the note in the answer')
    assert (result.response.text, result.finish_reason) == (text, 'stop')
    schema = ('{"type": "object", "properties": {"open": {"type": "boolean"}}, "required": ["open"], '
              '"additionalProperties": false}')
    bound = told('How do I open the garage?', sampling_config=SamplingConfig(json_schema=schema))
    assert isinstance(json.loads(bound.response.text)['open'], bool)
    setting({'notes_sure': 0.65}, notes_sure=2.0)
    assert told('How do I open the garage?').response.text != text


def test_the_robots_state_enters_a_prompt_that_asks_for_it(moe):
    publisher = moe.node.create_publisher(JointState, 'joint_states', QoSProfile(depth=10))

    def publish():
        message = JointState(name=['pan'], position=[0.5])
        message.header.stamp = moe.node.get_clock().now().to_msg()
        publisher.publish(message)
    timer = moe.node.create_timer(0.02, publish)
    plain = ask(moe, 'Say hello.', expert='general').result()
    assert publisher.get_subscription_count() == 0  # nothing is received that no prompt asks for
    grounded = ask(moe, 'Say hello.', expert='general', ground=True).result()
    timer.cancel()
    assert grounded.error_code == 0
    assert grounded.usage.prompt_tokens > plain.usage.prompt_tokens + 20
    assert publisher.get_subscription_count() == 1
