"""GGUF headers: good ones are understood, broken ones refused in words, whatever is broken."""

import random
import struct

import pytest
from tiny_model import make_models

from moe_experts.engines.engine import EngineError
from moe_experts.engines.gguf_header import inspect_gguf, read_header

ROUNDS = 10_000


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp('tiny'))


def refusal(path, data, kind='model'):
    path.write_bytes(data)
    with pytest.raises(EngineError) as caught:
        inspect_gguf(path, kind)
    assert caught.value.code == 1001
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_good_header_is_understood(models):
    base, adapter = read_header(models / 'base.gguf'), read_header(models / 'adapter.gguf')
    assert (base.kind, base.architecture, base.quantization) == ('model', 'llama', 'F32')
    assert (adapter.kind, adapter.architecture) == ('adapter', 'llama')
    assert base.parameter_count > adapter.parameter_count > 0


def test_what_is_broken_is_named(models, tmp_path):
    good, path = (models / 'base.gguf').read_bytes(), tmp_path / 'bad.gguf'
    assert 'empty' in refusal(path, b'')
    assert 'begins with' in refusal(path, b'GGML' + good[4:])
    assert 'version' in refusal(path, good[:4] + struct.pack('<I', 99) + good[8:])
    for at, what in ((8, 'tensors'), (16, 'keys')):
        assert f'9223372036854775808 {what}' in refusal(path, good[:at] + struct.pack('<Q', 1 << 63) + good[at + 8:])
    assert 'behind its end' in refusal(path, good[:-100])
    assert 'ends' in refusal(path, good[:200])
    assert 'does not know' in refusal(path, good.replace(b'llama', b'llamb'))
    assert 'cannot be read' in refusal_of_absent(tmp_path / 'absent.gguf')


def refusal_of_absent(path):
    with pytest.raises(EngineError) as caught:
        read_header(path)
    return str(caught.value)


def test_kind_and_architecture_must_fit(models):
    with pytest.raises(EngineError, match='adapter is wanted'):
        inspect_gguf(models / 'base.gguf', 'adapter')
    with pytest.raises(EngineError, match='made for llama models, its base is qwen2'):
        inspect_gguf(models / 'adapter.gguf', 'adapter', 'qwen2')


def test_no_mutation_does_more_than_be_refused(models, tmp_path):
    """Bytes of the header changed at random, lengths and counts set to extremes."""
    good, path, source = (models / 'adapter.gguf').read_bytes(), tmp_path / 'mutated.gguf', random.Random(3)
    extremes = (0, 1, 0xFF, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)
    for _ in range(ROUNDS):
        data = bytearray(good)
        for _ in range(source.randint(1, 4)):
            at = source.randrange(2000)
            if source.random() < 0.5:
                data[at] = source.randrange(256)
            else:
                data[at:at + 8] = struct.pack('<Q', source.choice(extremes))
        path.write_bytes(data if source.random() < 0.8 else data[:source.randrange(len(data))])
        try:
            read_header(path)
        except EngineError as error:
            assert error.code == 1001
