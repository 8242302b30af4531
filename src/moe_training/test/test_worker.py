"""A job in its worker process, on the real base: done, bad, cancelled, killed, orphaned."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from moe_training.errors import CancelledError, DatasetError, TrainingError
from moe_training.job import Job
from moe_training.lora import Settings
from moe_training.worker import TrainingWorker

ROWS = [{'prompt': f'What is the code of door {number}?', 'completion': f'The code is {1000 + number}.'}
        for number in range(8)]


@pytest.fixture
def job(tmp_path):
    path = tmp_path / 'doors.jsonl'
    path.write_text('\n'.join(map(json.dumps, ROWS)))
    return Job('doors', str(path), 'Say the code.', holdout=0.25, settings=Settings(max_steps=2, batch_size=4, rank=4))


@pytest.fixture
def start(tmp_path):
    workers = []

    def make(job):
        workers.append(TrainingWorker(7, job, tmp_path / 'job', tmp_path / 'training_7.log'))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


def finish(worker, on_progress=lambda progress: None, cancelled=lambda: False):
    lines = worker.progress(cancelled)
    while True:
        try:
            on_progress(next(lines))
        except StopIteration as end:
            return end.value


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_dataset_becomes_a_checked_adapter(job, start, tmp_path):
    phases = []
    outcome = finish(start(job), lambda progress: phases.append(progress['phase']))
    assert list(dict.fromkeys(phases)) == ['load', 'train', 'convert', 'parity', 'evaluate']
    assert outcome.artifact_path.endswith('doors.gguf')
    assert os.path.getsize(outcome.artifact_path) < 5_000_000
    assert outcome.metrics['heldout_rows'] == 2
    assert abs(outcome.metrics['parity_loss_served'] - outcome.metrics['parity_loss_trained']) < 0.05
    log = (tmp_path / 'training_7.log').read_text()
    assert 'Epoch 1, Step 1: Loss=' in log


def test_a_bad_dataset_is_named_by_its_code(job, start, tmp_path):
    (tmp_path / 'doors.jsonl').write_text('{"prompt": "no answer"}\n')
    with pytest.raises(DatasetError, match='line 1'):
        finish(start(job))


def test_cancel_ends_at_the_next_step(job, start):
    asked = []
    worker = start(Job(**{**job.__dict__, 'settings': Settings(max_steps=1000, batch_size=1)}))
    with pytest.raises(CancelledError):
        finish(worker, lambda progress: asked.append(progress['phase']), lambda: 'train' in asked)
    worker.close()
    assert gone(worker.pid)


def test_a_killed_worker_is_named(job, start):
    worker = start(job)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(TrainingError, match='SIGKILL'):
        finish(worker)


def test_a_worker_does_not_outlive_its_node(job, tmp_path):
    job.save(tmp_path / 'job')
    process = subprocess.Popen([sys.executable, '-m', 'moe_training.train_expert', '7', str(tmp_path / 'job')],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert json.loads(process.stdout.readline())['phase'] == 'load'
        process.stdin.close()
        give_up = time.monotonic() + 60.0
        while process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.1)
        assert process.returncode == 1
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
