"""Fits of a tiny model: resumed bit by bit, through bad numbers, too little memory and a full disk."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from tiny import make_tiny

from moe_training import fitting
from moe_training.checkpoints import CheckpointStore
from moe_training.errors import CancelledError, TrainingError
from moe_training.fitting import Fit, answer_loss, autocast_dtype, computes_bf16
from moe_training.settings import Settings, Upkeep
from moe_training.trainable_model import load_model

SETTINGS = Settings(method='full', max_steps=10, batch_size=4, learning_rate=1e-3, patience=0)


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp('tiny'))


class Run:
    """A fit with all it said."""

    def __init__(self, tiny, settings=SETTINGS, folder=None, *, until=None, heldout=(), **upkeep):
        base, rows = tiny
        self.steps, self.warnings = [], []
        self.model = load_model(base, settings)
        self.store = CheckpointStore(folder, 2) if folder else None
        self.fit = Fit(self.model, rows, settings, self.steps.append,
                       lambda: until is not None and len(self.steps) >= until, warn=self.warnings.append,
                       heldout=heldout, store=self.store, upkeep=Upkeep(**{'checkpoint_steps': 3, **upkeep}))

    def go(self, resume=None):
        self.fit.run(resume)
        return self

    @property
    def weights(self):
        return {name: each.detach().clone() for name, each in self.model.named_parameters() if each.requires_grad}

    @property
    def losses(self):
        return [each.loss for each in self.steps]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize('settings', [
    SETTINGS, replace(SETTINGS, method='lora', rank=4, gradient_accumulation=2, precision='fp32'),
    replace(SETTINGS, packing=True, scheduler='linear', num_workers=1)])
def test_a_cancelled_fit_resumes_to_the_very_same_weights(tiny, tmp_path, settings):
    whole = Run(tiny, settings, tmp_path / 'whole').go()
    first = Run(tiny, settings, tmp_path / 'parts', until=5)
    with pytest.raises(CancelledError, match='step 5 of 10'):
        first.go()
    second = Run(tiny, settings, tmp_path / 'parts').go(first.store.latest())
    assert first.losses + second.losses == whole.losses
    assert same(whole.weights, second.weights)
    assert whole.losses[-1] < whole.losses[0]


def test_other_seeds_learn_other_weights(tiny):
    assert not same(Run(tiny).go().weights, Run(tiny, replace(SETTINGS, seed=1)).go().weights)


@pytest.fixture
def poison(monkeypatch):
    """Makes torch's loss of some calls NaN."""
    real, calls = torch.nn.functional.cross_entropy, []

    def install(bad):
        def cross_entropy(*arguments, **settings):
            calls.append(1)
            return real(*arguments, **settings) * (math.nan if len(calls) in bad else 1.0)
        monkeypatch.setattr(torch.nn.functional, 'cross_entropy', cross_entropy)
    return install


def test_a_step_that_is_no_number_is_skipped(tiny, poison):
    poison({4})
    run = Run(tiny).go()
    assert math.isnan(run.losses[3]) and not any(map(math.isnan, run.losses[4:]))
    assert 'Step 4 was skipped' in run.warnings[0]
    assert all(torch.isfinite(each).all() for each in run.weights.values())


def test_steps_that_stay_no_number_roll_back_with_half_the_rate(tiny, poison, tmp_path):
    poison({5, 6, 7, 8})
    run = Run(tiny, replace(SETTINGS, scheduler='constant'), tmp_path, checkpoint_steps=4).go()
    assert 'back to step 6 with 0.5' in run.warnings[-1]  # the end of the first epoch
    assert [each.step for each in run.steps] == [1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10]
    assert [each.learning_rate for each in run.steps[-2:]] == [5e-4, 5e-4]


def test_a_loss_that_is_never_a_number_ends_with_the_settings_to_change(tiny, poison, tmp_path):
    poison(range(2, 1000))
    run = Run(tiny, folder=tmp_path, nan_skips=1, nan_rollbacks=1)
    with pytest.raises(TrainingError, match='lower learning_rate'):
        run.go()
    assert all(torch.isfinite(each).all() for each in run.store.latest().tensors().values() if each.is_floating_point())


def test_too_little_memory_halves_the_batch_once_and_learns_the_same(tiny, monkeypatch):
    real, sizes = fitting.collate, []

    def collate(sequences):
        batch = real(sequences)
        sizes.append(len(sequences))
        if len(sequences) > 2:
            batch.ids = _Unallocatable()
        return batch
    whole = Run(tiny, replace(SETTINGS, precision='fp32')).go()
    monkeypatch.setattr(fitting, 'collate', collate)
    run = Run(tiny, replace(SETTINGS, precision='fp32')).go()
    assert sizes[0] == 4 and max(sizes[1:]) == 2
    assert 'going on with batch_size 2' in run.warnings[0]
    assert run.losses == pytest.approx(whole.losses, rel=1e-3)
    with pytest.raises(TrainingError, match='lower batch_size'):
        monkeypatch.setattr(fitting, 'collate', lambda _sequences: _Unallocatable())
        Run(tiny).go()


class _Unallocatable:
    """Stands for a tensor that the allocator refuses: asks torch for more than there is."""

    targets, tokens = (1,), 1

    def to(self, _device):
        return torch.empty(1 << 58)


def test_a_full_disk_is_said_and_training_goes_on(tiny):
    with subprocess.Popen(['unshare', '-m', sys.executable, '-c', _FULL_DISK], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        output, errors = process.communicate(timeout=120)
    if 'not permitted' in errors.lower() or 'permission denied' in errors.lower():
        pytest.skip('this machine does not let tests mount a small disk')
    assert output.split() == ['refused', 'failed', '1', '1.0'], errors


_FULL_DISK = """
import subprocess, tempfile, torch
from pathlib import Path
from moe_training import checkpoints
from moe_training.errors import TrainingError
folder = Path(tempfile.mkdtemp())
subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=8m', 'small', folder], check=True)
checkpoints.SPARE_BYTES = 0
store = checkpoints.CheckpointStore(folder / 'c')
store.save('step_1', {'a': torch.ones(1_000_000)}, {'step': 1})
store.wait()
try:
    store.save('step_2', {'a': torch.zeros(2_000_000)}, {'step': 2})
except TrainingError as error:
    print('refused' if 'is full' in str(error) else error)
checkpoints.SPARE_BYTES = -100_000_000  # the room goes away after it was looked at
store.save('step_2', {'a': torch.zeros(2_000_000)}, {'step': 2})
try:
    store.wait()
except TrainingError as error:
    print('failed' if 'could not be written' in str(error) else error)
print(store.latest().step, float(store.latest().tensors()['a'].mean()))
"""


def test_a_cancel_with_a_full_disk_says_so(tiny, tmp_path, monkeypatch):
    run = Run(tiny, folder=tmp_path, until=2)
    monkeypatch.setattr('moe_training.checkpoints.SPARE_BYTES', 1 << 60)
    with pytest.raises(TrainingError, match='is full'):
        run.go()
    assert 'goes on without this checkpoint' in run.warnings[0]


def test_early_stopping_takes_the_best_weights(tiny, tmp_path):
    heldout = tiny[1][:4]
    run = Run(tiny, replace(SETTINGS, max_steps=600, patience=2, learning_rate=3e-2, warmup_ratio=0.0), tmp_path,
              heldout=heldout).go()
    values = [each.validation_loss for each in run.steps]
    assert run.steps[-1].step < 600
    assert answer_loss(run.model, heldout) == pytest.approx(min(value for value in values if value == value), rel=1e-5)


def test_packed_rows_learn_what_padded_rows_learn(tiny):
    settings = replace(SETTINGS, precision='fp32', max_steps=4)
    assert Run(tiny, replace(settings, packing=True)).go().losses == pytest.approx(
        Run(tiny, settings).go().losses, rel=2e-3)


def test_gradient_checkpointing_learns_the_same(tiny):
    settings = replace(SETTINGS, precision='fp32', max_steps=3, method='lora')
    assert Run(tiny, replace(settings, gradient_checkpointing=True)).go().losses == pytest.approx(
        Run(tiny, settings).go().losses, rel=1e-4)


def test_fp16_on_a_cpu_becomes_bf16_with_a_warning():
    said = []
    assert autocast_dtype('fp16', 'cpu', said.append) is torch.bfloat16
    assert 'bf16' in said[0]
    assert autocast_dtype('fp32', 'cpu') is None


@pytest.mark.parametrize(('flags', 'known'), [
    ('flags : avx2 avx512f avx512_bf16 vaes', True), ('flags : amx_tile amx_bf16', True),
    ('Features : fp asimd bf16 i8mm', True), ('flags : avx2 f16c fma avx512f', False),
    ('flags : avx_vnni nobf16', False)])
def test_auto_is_bf16_only_where_the_cpu_computes_it(flags, known, monkeypatch):
    assert computes_bf16(flags) is known
    monkeypatch.setattr(fitting.Path, 'read_text', lambda _path: flags)
    assert autocast_dtype('auto', 'cpu') is (torch.bfloat16 if known else None)
    assert autocast_dtype('bf16', 'cpu') is torch.bfloat16
