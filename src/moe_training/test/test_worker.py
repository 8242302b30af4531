"""A job in its worker process: done, bad, cancelled, killed, stuck, adopted; on a tiny model, and on the real base."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tensorboard_events import scalars
from tiny import DOORS, SYSTEM, write_dataset

from moe_training.checkpoints import CheckpointStore
from moe_training.errors import CancelledError, DatasetError, TrainingError
from moe_training.events import living
from moe_training.job import Job
from moe_training.serving_score import ServedModel
from moe_training.settings import Settings, Upkeep
from moe_training.worker import StuckError, TrainingWorker, WorkerLost, finished

ENDLESS = 100_000


@pytest.fixture
def job(tmp_path):
    return Job('doors', write_dataset(tmp_path / 'doors.jsonl'), SYSTEM, base='tiny', holdout=0.2,
               settings=Settings(method='full', max_steps=6, batch_size=4, learning_rate=1e-3),
               upkeep=Upkeep(checkpoint_steps=2))


@pytest.fixture
def start(tmp_path):
    workers = []

    def make(job, name='job'):
        workers.append(TrainingWorker.start(7, job, tmp_path / name, tmp_path / 'training_7.log'))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


def endless(job):
    return replace(job, settings=replace(job.settings, max_steps=ENDLESS))


def finish(worker, on_progress=lambda progress: None, cancelled=lambda: False, **settings):
    lines = worker.progress(cancelled, **settings)
    while True:
        try:
            on_progress(next(lines))
        except StopIteration as end:
            return end.value


def training(worker):
    """Wait for a few steps."""
    for message in worker.progress(lambda: False):
        if message.get('step', 0) >= 3:
            return
    raise AssertionError('it ended')


def keeping(worker, folder, step):
    """Wait for the checkpoint of a step, which is written beside the steps that follow it."""
    for _message in worker.progress(lambda: False):
        latest = CheckpointStore(folder / 'checkpoints').latest()
        if latest is not None and latest.step >= step:
            return
    raise AssertionError('it ended')


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_dataset_becomes_a_model_of_its_own(job, start, tmp_path):
    phases, memory = [], []

    def hear(progress):
        phases.append(progress.get('phase'))
        memory.append(progress.get('memory_bytes'))
    outcome = finish(start(job), hear)
    assert [phase for phase in dict.fromkeys(phases) if phase] == ['load', 'train', 'convert', 'parity', 'evaluate']
    assert max(filter(None, memory)) > 50_000_000
    assert (outcome.base, outcome.quantization) == ('', 'Q8_0')
    assert abs(outcome.metrics['parity_loss_served'] - outcome.metrics['parity_loss_trained']) < 0.05
    assert outcome.metrics['heldout_rows'] == 5
    served = ServedModel(Path(outcome.artifact_path), None, 1)
    assert served.rate(served.tokenize('<|im_start|>user\nhello', special=True)) > 0
    served.close()
    assert 'Epoch 1, Step 1: Loss=' in (tmp_path / 'training_7.log').read_text()
    assert [step for step, _value in scalars(tmp_path / 'job' / 'tensorboard', 'train/loss')] == [1, 2, 3, 4, 5, 6]
    assert {'epoch_1', 'step_6'} <= {path.name for path in (tmp_path / 'job' / 'checkpoints').iterdir()}
    assert len((tmp_path / 'job' / 'samples.jsonl').read_text().splitlines()) == len(DOORS) - 5


def test_a_killed_worker_is_named_and_its_job_goes_on(job, start, tmp_path):
    job = replace(job, settings=replace(job.settings, max_steps=60))
    whole = finish(start(job, 'whole'))
    worker = start(job)
    keeping(worker, tmp_path / 'job', step=2)
    assert f'train_expert {7}' in psutil.Process(worker.pid).cmdline()[0]
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerLost, match='SIGKILL'):
        finish(worker)
    # the same folder: it goes on from its own latest checkpoint, to the very same file
    steps = []
    again = finish(start(job), lambda progress: steps.append(progress.get('step')))
    assert min(filter(None, steps)) > 2
    assert again.sha256 == whole.sha256


def test_a_worker_is_adopted_by_the_next_life_of_its_node(job, start, tmp_path):
    worker = start(endless(job))
    training(worker)
    heard = []
    adopted = TrainingWorker.adopt(7, tmp_path / 'job', tmp_path / 'training_7.log')
    assert adopted.pid == worker.pid
    with pytest.raises(CancelledError):
        finish(adopted, heard.append, lambda: len(heard) > 5)
    assert heard[0]['phase'] == 'load'
    assert living(tmp_path / 'job') is None and gone(worker.pid)
    assert TrainingWorker.adopt(7, tmp_path / 'job', tmp_path / 'training_7.log') is None
    assert finished(tmp_path / 'job') is None


def test_a_job_that_ended_while_no_node_looked_is_found(job, start, tmp_path):
    outcome = finish(start(job))
    assert finished(tmp_path / 'job') == outcome


def test_cancel_saves_and_a_new_job_resumes_there(job, start, tmp_path):
    long = endless(job)
    worker, heard = start(long), []
    with pytest.raises(CancelledError, match='is saved'):
        finish(worker, heard.append, lambda: any(message.get('step', 0) >= 3 for message in heard))
    assert gone(worker.pid)
    saved = max((tmp_path / 'job' / 'checkpoints').glob('step_*'), key=lambda path: int(path.name[5:]))
    assert int(saved.name[5:]) >= 3
    other = replace(long, resume=str(saved), settings=replace(long.settings, learning_rate=2e-3))
    with pytest.raises(TrainingError, match='other settings'):
        finish(start(other, 'other'))
    steps = []
    with pytest.raises(CancelledError):
        finish(start(replace(long, resume=str(saved)), 'next'),
               lambda progress: steps.append(progress.get('step')), lambda: any(steps))
    assert min(filter(None, steps)) == int(saved.name[5:]) + 1
    forced = replace(other, force=True)
    assert forced.checkpoint(tmp_path / 'forced', '').folder == saved


def test_a_stuck_worker_is_killed_and_its_checkpoint_kept(job, start, tmp_path):
    worker = start(endless(job))
    training(worker)
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(StuckError, match='stuck'):
        finish(worker, stuck_timeout_s=1.0)
    assert gone(worker.pid)
    assert job.checkpoint(tmp_path / 'job', '') is not None


def test_a_bad_dataset_is_named_by_its_code(job, start, tmp_path):
    (tmp_path / 'doors.jsonl').write_text('{"prompt": "no answer"}\n')
    with pytest.raises(DatasetError, match='line 1'):
        finish(start(job))
    write_dataset(tmp_path / 'doors.jsonl', [('long ' * 300, 'answer'), ('short', 'answer')])
    with pytest.raises(DatasetError, match='max_seq_len'):
        finish(start(replace(job, holdout=0.0)))


def test_too_little_memory_ends_with_the_settings_to_lower(job, start):
    with pytest.raises(TrainingError, match='lower batch_size') as caught:
        finish(start(replace(job, base='large', memory_bytes=1_500_000_000)))
    assert not isinstance(caught.value, WorkerLost)


def test_the_gate_keeps_a_worse_version_out(job, start, tmp_path):
    from moe_training.job import Champion
    good = finish(start(replace(job, settings=replace(job.settings, max_steps=40)), 'good'))
    with pytest.raises(TrainingError, match='gate refuses'):
        finish(start(replace(job, champion=Champion(good.artifact_path),
                             settings=replace(job.settings, max_steps=1)), 'bad'))


def test_best_takes_the_fastest_format_that_keeps_the_score(job, start, tmp_path):
    outcome = finish(start(replace(job, quantization='best')))
    tried = {row['quantization']: row for row in json.loads((tmp_path / 'job' / 'formats.json').read_text())}
    assert set(tried) == {'F16', 'BF16', 'Q8_0', 'Q5_0', 'Q4_K_M', 'Q4_1', 'Q4_0'}
    assert outcome.quantization in tried


def test_two_processes_share_a_job(job, start):
    outcome = finish(start(replace(job, processes=2)))
    assert outcome.metrics['train_loss'] > 0


def test_an_adapter_of_the_real_base_is_trained_and_checked(tmp_path, start):
    job = Job('doors', write_dataset(tmp_path / 'doors.jsonl', DOORS[:8]), SYSTEM, holdout=0.25,
              settings=Settings(max_steps=2, batch_size=4, rank=4))
    outcome = finish(start(job))
    assert outcome.artifact_path.endswith('doors.gguf')
    assert os.path.getsize(outcome.artifact_path) < 5_000_000
    assert outcome.base == 'smollm2-135m-instruct'
