"""A Llama-shaped Hugging Face folder as a GGUF file that llama.cpp runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from moe_training.adapter_file import permute
from moe_training.atomic_files import atomic_path
from moe_training.errors import TrainingError

_ARCHITECTURES = ('LlamaForCausalLM', 'MistralForCausalLM')
# llama.cpp's names of pre-tokenizers by the pattern that a tokenizer splits with; the parity gate compares the ids.
_PATTERN = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|%s| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+"
            '|\\s+(?!\\S)|\\s+')
_PATTERNS = {_PATTERN % '\\p{N}{1,3}': 'llama-bpe', _PATTERN % '\\p{N}': 'qwen2'}


def _pre_tokenizer(definition: dict[str, Any], folder: Path) -> str:
    """llama.cpp's name of a tokenizer.json's pre-tokenizer; raises TrainingError where it has none."""
    pre = definition.get('pre_tokenizer') or {}
    parts = pre.get('pretokenizers', [pre])
    kinds = [part.get('type') for part in parts]
    if kinds == ['Digits', 'ByteLevel'] and parts[0].get('individual_digits'):
        return 'smollm'
    if kinds == ['ByteLevel'] and parts[0].get('use_regex', True):
        return 'gpt-2'
    if kinds == ['Split', 'ByteLevel']:
        name = _PATTERNS.get(parts[0].get('pattern', {}).get('Regex', ''))
        if name:
            return name
    raise TrainingError(f'llama.cpp knows no pre-tokenizer like that of {folder} ({", ".join(map(str, kinds))}); use a '
                        'model with a byte-level BPE tokenizer.')


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / 'config.json').read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f'{folder} is no Hugging Face folder: config.json cannot be read ({error}).') from error
    name = (config.get('architectures') or ['none'])[0]
    if name not in _ARCHITECTURES:
        raise TrainingError(f'{folder} holds a {name}; only {" and ".join(_ARCHITECTURES)} can be converted.')
    rope = config.get('rope_parameters') or config.get('rope_scaling') or {}
    if rope.get('rope_type', rope.get('type', 'default')) != 'default':
        raise TrainingError(f'{folder} scales its rotary positions ({rope}), which the conversion does not know.')
    if config.get('attention_bias') or config.get('mlp_bias'):
        raise TrainingError(f'{folder} has biases, which llama.cpp\'s Llama does not apply everywhere.')
    return config


def _tensors(folder: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Tensors of all safetensors files, one at a time; raises TrainingError where there are none."""
    import torch
    from safetensors import safe_open

    files = sorted(folder.glob('*.safetensors'))
    if not files:
        raise TrainingError(f'{folder} holds no safetensors file; pickled weights are never loaded.')
    for path in files:
        with safe_open(path, 'pt') as file:
            for name in file.keys():  # noqa: SIM118  # no mapping
                yield name, file.get_tensor(name).to(torch.float32).numpy()


def _add_settings(writer: gguf.GGUFWriter, config: dict[str, Any], name: str) -> None:
    heads = config['num_attention_heads']
    width = config.get('head_dim') or config['hidden_size'] // heads
    rope = config.get('rope_parameters') or {}
    writer.add_name(name)
    writer.add_context_length(config.get('max_position_embeddings', 2048))
    writer.add_embedding_length(config['hidden_size'])
    writer.add_block_count(config['num_hidden_layers'])
    writer.add_feed_forward_length(config['intermediate_size'])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get('num_key_value_heads') or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(rope.get('rope_theta') or config.get('rope_theta') or 10000.0))
    writer.add_layer_norm_rms_eps(float(config.get('rms_norm_eps', 1e-6)))
    writer.add_vocab_size(config['vocab_size'])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, vocabulary: int) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    backend = getattr(tokenizer, 'backend_tokenizer', None)
    definition = json.loads(backend.to_str()) if backend is not None else {'model': {}}
    if definition['model'].get('type') != 'BPE':
        raise TrainingError(f'The tokenizer of {folder} is no BPE; only byte-level BPE tokenizers can be converted.')
    tokens = [f'[PAD{number}]' for number in range(vocabulary)]
    types = [int(gguf.TokenType.UNUSED)] * vocabulary
    for text, number in definition['model']['vocab'].items():
        tokens[number], types[number] = text, int(gguf.TokenType.NORMAL)
    for added in definition['added_tokens']:
        kind = gguf.TokenType.CONTROL if added['special'] else gguf.TokenType.USER_DEFINED
        tokens[added['id']], types[added['id']] = added['content'], int(kind)
    writer.add_tokenizer_model('gpt2')
    writer.add_tokenizer_pre(_pre_tokenizer(definition, folder))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([each if isinstance(each, str) else ' '.join(each)
                             for each in definition['model']['merges']])
    for role, add in (('bos', writer.add_bos_token_id), ('eos', writer.add_eos_token_id),
                      ('unk', writer.add_unk_token_id), ('pad', writer.add_pad_token_id)):
        number = getattr(tokenizer, f'{role}_token_id', None)
        if number is not None:
            add(number)
    writer.add_add_bos_token(False)  # prompts are written by the chat template, which has its own
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def write_model(folder: Path, target: Path, name: str) -> Path:
    """Write a folder's weights (matrices as F16, norms as F32), settings and tokenizer as one GGUF file.

    Raises TrainingError for a model that llama.cpp's Llama cannot be.
    """
    config = _config(folder)
    heads = config['num_attention_heads']
    kv_heads = config.get('num_key_value_heads') or heads
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config['num_hidden_layers'])
    with atomic_path(target) as temporary:
        writer = gguf.GGUFWriter(temporary, 'llama')
        _add_settings(writer, config, name)
        _add_tokenizer(writer, folder, config['vocab_size'])
        for key, tensor in _tensors(folder):
            if key == 'lm_head.weight' and config.get('tie_word_embeddings'):
                continue
            ours = names.get_name(key, try_suffixes=('.weight',))
            if ours is None:
                raise TrainingError(f'{folder} holds the tensor {key}, which llama.cpp\'s Llama has no place for.')
            if key.endswith(('q_proj.weight', 'k_proj.weight')):
                tensor = permute(tensor, heads if 'q_proj' in key else kv_heads)
            kind = np.float16 if tensor.ndim > 1 else np.float32
            writer.add_tensor(ours, np.ascontiguousarray(tensor, dtype=kind))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return target
