"""What happens to jobs on bad days: the node killed, stopped, started again; a worker that hangs or is killed."""

import os
import signal

import psutil
from diagnostic_msgs.msg import DiagnosticArray
from tiny import DOORS, write_dataset
from training_graph import (
    ENDLESS,
    SETTINGS,
    NodeProcess,
    job,
    train,
    training_graph,
    training_home,
    wait_for,
)

from moe_interfaces.msg import TrainingJob
from moe_interfaces.srv import GetExpert

home, graph = training_home, training_graph


def test_the_queue_survives_kill_and_restart(graph, home):
    parameters = {**SETTINGS, 'checkpoint_steps': 25, 'allowed_roots': f'["{home}"]'}
    long = write_dataset(home / 'data' / 'long.jsonl', DOORS * 5)
    with NodeProcess(home, 'moe_training', 'training_node', **parameters) as node:
        first = train(graph, home, dataset=long, max_steps=300, promote=False).stepping(2)
        train(graph, home, expert='gates')
        number = first.feedback[-1].job_id
        wait_for(lambda: job(graph, number + 1).status == TrainingJob.QUEUED, what='the second job')
        wait_for(lambda: job(graph, number).pid, what='the worker\'s pid')
        worker = job(graph, number).pid
        node.end(signal.SIGKILL)
        assert psutil.pid_exists(worker)
    with NodeProcess(home, 'moe_training', 'training_node', **parameters) as node:
        wait_for(lambda: f'job {number} is adopted' in node.log.read_text(), what='adoption')
        assert job(graph, number).pid == worker
        reached = job(graph, number).step
        assert node.end() == 0  # in order: the worker saves and ends
        wait_for(lambda: not psutil.pid_exists(worker), what='the end of the worker')
        assert job(graph, number).status == TrainingJob.RUNNING
    with NodeProcess(home, 'moe_training', 'training_node', **parameters):
        wait_for(lambda: job(graph, number + 1).status == TrainingJob.SUCCEEDED, 400.0, 'both jobs')
        assert job(graph, number).status == TrainingJob.SUCCEEDED
        assert job(graph, number).step == 300 > reached
    assert graph.call(GetExpert, 'registry/get_expert', name='gates').expert.champion_version == 1


def test_a_stuck_worker_is_killed_and_its_job_named(graph, home):
    with NodeProcess(home, 'moe_training', 'training_node', **{**SETTINGS, 'stuck_timeout_s': 20.0}):
        running = train(graph, home, max_steps=ENDLESS).stepping(2)
        number = running.feedback[-1].job_id
        worker = wait_for(lambda: job(graph, number).pid, what='pid')
        os.kill(worker, signal.SIGSTOP)
        _status, result = running.result()
        assert (result.error_code, 'stuck' in result.error_msg) == (2000, True)
        assert job(graph, number).status == TrainingJob.FAILED
        assert not psutil.pid_exists(worker)
        assert any((home / 'training' / str(number) / 'checkpoints').iterdir())


def test_a_killed_worker_is_started_again_where_the_policy_says_so(graph, home):
    with NodeProcess(home, 'moe_training', 'training_node', **SETTINGS, resume_lost_workers=True):
        running = train(graph, home, max_steps=40, promote=False).stepping(6)
        number = running.feedback[-1].job_id
        os.kill(wait_for(lambda: job(graph, number).pid, what='pid'), signal.SIGKILL)
        _status, result = running.result()
        assert result.error_code == 0, result.error_msg
        assert max(row.step for row in running.feedback) == 40


def test_a_goal_that_comes_while_earlier_jobs_are_looked_for_runs_once(graph, home):
    registry = next(process for process in psutil.process_iter() if 'registry_node' in ' '.join(process.cmdline())
                    and process.environ().get('MOE_HOME') == str(home))
    diagnostics = []
    graph.once('/diagnostics', lambda: graph.node.create_subscription(
        DiagnosticArray, '/diagnostics', diagnostics.append, 10))
    registry.suspend()
    try:
        with NodeProcess(home, 'moe_training', 'training_node', **SETTINGS) as node:
            wait_for(lambda: any('Waiting for the registry' in status.message for message in diagnostics
                                 for status in message.status), what='a node that looks for earlier jobs')
            wait_for(lambda: 'Earlier jobs are looked for again' in node.log.read_text(), what='a look in vain')
            # asked only now, it has its whole patience for a registry that comes back at once: its row could be made
            # some seconds before the node looks for earlier ones again
            running = train(graph, home, promote=False)
            registry.resume()
            _status, result = running.result()
            assert result.error_code == 0, result.error_msg
            assert f'job {result.job_id} of doors is taken up' not in node.log.read_text()
            assert (home / 'logs' / f'training_{result.job_id}.log').read_text().count('Done') == 1
    finally:
        registry.resume()
