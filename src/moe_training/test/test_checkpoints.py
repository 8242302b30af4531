"""Checkpoints on disk."""

import pytest
import torch

from moe_training.checkpoints import CheckpointStore
from moe_training.errors import TrainingError

TENSORS = {'a': torch.arange(6.0).reshape(2, 3), 'b': torch.tensor(3.0), 'c': torch.arange(3, dtype=torch.uint8),
           'd': torch.ones(2, dtype=torch.bfloat16)}


def save(store, name, step):
    store.save(name, TENSORS, {'step': step})
    store.wait()


def test_what_is_written_is_read_back_and_old_ones_go(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=2)
    for name, step in (('step_0', 0), ('step_2', 2), ('epoch_1', 3), ('step_4', 4), ('step_10', 10)):
        save(store, name, step)
    assert [each.folder.name for each in store.all()] == ['epoch_1', 'step_4', 'step_10']
    read = store.named('epoch_1.pt').tensors()
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype
               for name, tensor in TENSORS.items())
    assert store.named('latest').step == 10


@pytest.mark.parametrize('name', ['../../etc/passwd', 'epoch_3', 'step_', '', '.pt'])
def test_bad_names_are_refused(tmp_path, name):
    with pytest.raises(TrainingError, match='checkpoint'):
        CheckpointStore(tmp_path).named(name)


def test_a_damaged_or_half_written_checkpoint_is_never_used(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 'step_1', 1)
    (tmp_path / '.step_2.tmp').mkdir()
    (tmp_path / 'step_3').mkdir()
    assert store.latest().step == 1
    path = tmp_path / 'step_1' / 'state.safetensors'
    path.write_bytes(path.read_bytes()[:-1] + b'x')
    with pytest.raises(TrainingError, match='damaged'):
        store.latest().tensors()
