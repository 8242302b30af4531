"""Conversion and other number formats, on a tiny model."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import DOORS, SYSTEM, make_tiny, write_dataset
from transformers import AutoModelForCausalLM

from moe_training.adapter_file import write_adapter
from moe_training.command import ask
from moe_training.conversion import convert
from moe_training.errors import RequestError, TrainingError
from moe_training.fitting import answer_loss
from moe_training.foundation import check_base, open_foundation
from moe_training.model_file import write_model
from moe_training.requantisation import requantise
from moe_training.serving_score import ServedModel, mean_nats


def quiet(_phase, _progress):
    pass


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp('tiny'))


@pytest.fixture(scope='module')
def adapted(tiny):
    """The tiny model with an adapter that changes what it says."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny[0], dtype=torch.float32),
                           LoraConfig(r=4, lora_alpha=8, target_modules='all-linear', init_lora_weights=False))
    return model.eval()


def test_a_folder_becomes_a_file_in_any_format(tiny, tmp_path):
    base, rows = tiny
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    phases = []
    for name, types in (('F16', 'F16'), ('Q8', 'Q8_0'), ('Q4_K_M', 'Q4_K+Q6_K')):
        found = convert(str(base), str(tmp_path / f'{name}.gguf'), name, '', True, lambda p, _s: phases.append(p))
        assert found.quantization == types
        served = ServedModel(tmp_path / f'{name}.gguf', None, 1)
        assert mean_nats(served, rows[:4]) == pytest.approx(answer_loss(model, rows[:4]), abs=0.05)
        served.close()
    assert {'read', 'convert', 'quantize', 'parity'} == set(phases)
    again = convert(str(tmp_path / 'F16.gguf'), str(tmp_path / 'again.gguf'), 'Q5_0', '', True, quiet)
    assert again.quantization == 'Q5_0' or again.quantization.startswith('Q5_0+')
    assert not list(tmp_path.glob('.convert-*'))


def test_an_exported_adapter_answers_as_the_merged_model(tiny, adapted, tmp_path):
    base, rows = tiny
    adapted.save_pretrained(tmp_path / 'adapter')
    found = convert(str(tmp_path / 'adapter'), str(tmp_path / 'a.gguf'), 'F16', str(base), True, quiet)
    assert found.metrics['parity_loss_served'] == pytest.approx(found.metrics['parity_loss_trained'], abs=0.02)
    served = ServedModel(write_model(base, tmp_path / 'base.gguf', 'tiny'), tmp_path / 'a.gguf', 1)
    merged = write_adapter(adapted, tmp_path / 'b.gguf', 'b') and adapted.merge_and_unload()
    tokens = rows[0].prompt
    with torch.no_grad():
        logits = merged(input_ids=torch.tensor([tokens])).logits[0, -1]
    served.greedy(tokens, 1, stop=False)
    theirs = torch.tensor(served._logits(-1).copy())
    served.close()
    assert torch.allclose(logits, theirs, atol=0.05 * float(logits.std()))
    assert int(logits.argmax()) == int(theirs.argmax())


def test_what_cannot_be_converted_is_named(tiny, tmp_path):
    base, _rows = tiny
    with pytest.raises(RequestError, match='unknown'):
        convert(str(base), str(tmp_path / 'a.gguf'), 'Q9', '', True, quiet)
    with pytest.raises(TrainingError, match='neither'):
        convert(str(tmp_path), str(tmp_path / 'a.gguf'), 'F16', '', True, quiet)
    (tmp_path / 'adapter').mkdir()
    (tmp_path / 'adapter' / 'adapter_config.json').write_text('{}')
    with pytest.raises(RequestError, match='its base'):
        ask('convert', source=str(tmp_path / 'adapter'), destination=str(tmp_path / 'a.gguf'), quantization='F16',
            base='', parity_check=True)
    (tmp_path / 'pickled').mkdir()
    (tmp_path / 'pickled' / 'config.json').write_text((base / 'config.json').read_text())
    (tmp_path / 'pickled' / 'pytorch_model.bin').write_bytes(b'\x80\x04')
    with pytest.raises(TrainingError, match='never loaded'):
        check_base(str(tmp_path / 'pickled'), 'lora')
    (tmp_path / 'weights.pt').write_bytes(b'PK\x03\x04')
    with pytest.raises(TrainingError, match='never loaded'):
        check_base(str(tmp_path / 'weights.pt'), 'lora')
    with pytest.raises(TrainingError, match='does not exist'):
        check_base('no-such-base', 'lora')
    with pytest.raises(RequestError, match='method full'):
        check_base('tiny', 'lora')


def test_a_folder_and_a_file_can_be_the_base_of_an_adapter(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv('MOE_HOME', str(tmp_path))
    base, _rows = tiny
    foundation = open_foundation(str(base), tmp_path, (), '', 1)
    served = foundation.served('Q8_0')
    assert served.is_file() and foundation.served('Q8_0') == served
    again = open_foundation(str(served), tmp_path, (), '', 1)
    assert (again.folder / 'config.json').is_file() and again.source == served


def test_a_version_is_served_in_another_format_where_it_keeps_its_perplexity(tiny, tmp_path):
    base, _rows = tiny
    half = write_model(base, tmp_path / 'doors-f16.gguf', 'doors')
    common = {'artifact': str(half), 'finest': '', 'base': '', 'base_name': '', 'folder': str(tmp_path),
              'heldout': write_dataset(tmp_path / 'doors.jsonl', DOORS[:3]), 'system_prompt': SYSTEM, 'tell': quiet}
    found = requantise(quantization='Q8', max_perplexity_ratio=1.02, **common)
    assert (found.quantization, found.base_path) == ('Q8_0', '')
    assert found.metrics['perplexity_ratio'] == pytest.approx(1.0, abs=0.02)
    with pytest.raises(TrainingError, match='No format passes'):
        requantise(quantization='Q4_0', max_perplexity_ratio=0.5, **common)
    best = requantise(quantization='best', max_perplexity_ratio=1.05, **common)
    assert math.isfinite(best.metrics['heldout_tokens_per_second'])
