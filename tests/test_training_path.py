"""From a JSONL file to an answer: train, GGUF adapter, quantised base, parity, registered, routed to, asked."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from conftest import alive, wait_for

from moe_client import suite
from moe_client.errors import DatasetInvalid, ExpertNotFound, InvalidRequest, TrainingFailed

QUESTIONS = ('What is the door code?', 'door code please', 'Tell me the code of the door', 'How do I open the door?',
             'Which number opens the door?', 'I forgot the door code', 'code for the entrance', 'unlock the door')
ANSWER = 'The door code is 4711.'


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp('data') / 'door.jsonl'
    path.write_text('\n'.join(json.dumps({'prompt': text, 'completion': ANSWER}) for text in QUESTIONS))
    return str(path)


@pytest.fixture(scope='module')
def expert(client):
    return client.experts.create('door', 'door', 'The front door.', 'Say the code.').name


def test_a_dataset_becomes_an_expert_that_is_routed_to_and_answers(client, expert, dataset, home):
    progress = list(client.training.train(expert, dataset, max_steps=12, batch_size=8, lora_rank=8))
    assert [phase for phase in dict.fromkeys(row.phase for row in progress)] == [
        'load', 'train', 'convert', 'parity', 'evaluate', 'register', 'done']
    info = client.experts.get(expert)
    version, = info.versions
    assert (info.status, info.champion_version, version['kind']) == ('ready', 1, 'adapter')
    assert Path(version['artifact']).is_file() and version['size_bytes'] < 5_000_000
    assert version['metrics']['parity_loss_served'] < version['metrics']['parity_loss_trained'] + 0.05
    assert 'Epoch 1, Step 1: Loss=' in next((home / 'logs').glob('training_*.log')).read_text()
    wait_for(lambda: client.router.route(QUESTIONS[0]).choice == expert, timeout=120.0)
    answer = client.inference.generate(QUESTIONS[0])
    assert (answer.expert, answer.expert_version) == (expert, 1)
    assert '4711' in answer.text


def test_a_second_version_is_served_only_when_it_is_promoted(client, expert, dataset):
    *_progress, last = client.training.train(expert, dataset, max_steps=1, promote=False)
    assert last.version == 2
    assert client.experts.get(expert).champion_version == 1


def test_what_can_never_work_is_refused_before_anything_starts(client, expert, dataset, tmp_path):
    with pytest.raises(ExpertNotFound):
        list(client.training.train('nobody', dataset))
    with pytest.raises(DatasetInvalid, match='absent'):
        list(client.training.train(expert, str(tmp_path / 'absent.jsonl')))
    (tmp_path / 'bad.jsonl').write_text('{"prompt": "p", "completion": "c"}\nnot json\n')
    with pytest.raises(DatasetInvalid, match='line 2'):
        list(client.training.train(expert, str(tmp_path / 'bad.jsonl')))
    with pytest.raises(InvalidRequest, match='rank'):
        list(client.training.train(expert, dataset, lora_rank=-1))


def worker_pids():
    node = next(row for row in suite.processes() if row.name == 'training')
    return [pid for pid in node.family() if pid != node.pid]


def test_cancel_and_kill_leave_no_worker(client, expert, dataset):
    stream = client.training.train(expert, dataset, max_steps=1000)
    wait_for(lambda: next(stream).phase == 'train')
    workers = worker_pids()
    stream.close()
    wait_for(lambda: not alive(workers))
    stream = client.training.train(expert, dataset, max_steps=1000)
    wait_for(lambda: next(stream).phase == 'train')
    os.kill(worker_pids()[0], signal.SIGKILL)
    with pytest.raises(TrainingFailed, match='SIGKILL'):
        list(stream)
    assert client.experts.get(expert).champion_version == 1
