"""The expert node when callers, workers or files go, and when it has to go itself."""

import os
import signal
import subprocess
import sys

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from expert_graph import LONG, ask, status
from graph import NodeProcess, wait_for

from moe_interfaces.msg import Expert, ExpertVersion, ServingStatus
from moe_interfaces.srv import CreateExpert, RegisterVersion, Tokenize

pytest_plugins = ['expert_fixtures']


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
