"""A peft LoRA adapter as a GGUF adapter that llama.cpp loads onto the base."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from moe_training.atomic_files import atomic_path
from moe_training.errors import TrainingError

_NAMES = {
    'self_attn.q_proj': 'attn_q', 'self_attn.k_proj': 'attn_k', 'self_attn.v_proj': 'attn_v',
    'self_attn.o_proj': 'attn_output', 'mlp.gate_proj': 'ffn_gate', 'mlp.up_proj': 'ffn_up',
    'mlp.down_proj': 'ffn_down'}
_KEY = re.compile(r'layers\.(\d+)\.(self_attn\.\w+|mlp\.\w+)\.lora_([AB])\.(?:default\.)?weight$')


def permute(weights: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder the rows of a q or k matrix (heads * width, n) from halves to rotary pairs, as the base's are."""
    half = weights.shape[0] // heads // 2
    return weights.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weights.shape)


def write_adapter(model: Any, path: Path, name: str) -> Path:
    """Write a peft model's adapter as F16 GGUF; raises TrainingError for what llama.cpp cannot apply."""
    config = model.peft_config['default']
    if config.use_dora or config.bias != 'none' or config.modules_to_save:
        raise TrainingError('DoRA, biases and modules_to_save have no place in a GGUF adapter; train plain LoRA.')
    heads, kv_heads = model.config.num_attention_heads, model.config.num_key_value_heads
    with atomic_path(path) as temporary:
        writer = gguf.GGUFWriter(temporary, 'llama')
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_name(name)
        writer.add_string(gguf.Keys.Adapter.TYPE, 'lora')
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(config.lora_alpha))
        count = 0
        for key, tensor in model.state_dict().items():
            found = _KEY.search(key)
            if found is None:
                continue
            layer, part, side = found.groups()
            weights = tensor.detach().float().numpy()
            if side == 'B' and part.endswith(('q_proj', 'k_proj')):
                weights = permute(weights, heads if part.endswith('q_proj') else kv_heads)
            writer.add_tensor(f'blk.{layer}.{_NAMES[part]}.weight.lora_{side.lower()}', weights.astype(np.float16))
            count += 1
        if not count:
            raise TrainingError(f'The model of {name} holds no LoRA weights; nothing to write.')
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path
