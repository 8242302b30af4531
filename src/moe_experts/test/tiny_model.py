"""A tiny Llama with random weights, the same as a safetensors folder and as GGUF, and a LoRA adapter of each kind."""

import json

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
TEMPLATE = ("{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
            "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
WORDS = ['the robot turns its head to the left and looks at the door', 'what is the capital of France',
         'you are a helpful assistant that answers in short sentences', 'tell me a story about a small red robot']
HEADS, KV_HEADS, LAYERS, WIDTH, CONTEXT = 4, 2, 2, 64, 8192
RANK, ALPHA = 4, 8.0


def make_models(folder):
    """Write base/ and base.gguf, adapter/ and adapter.gguf, and merged.gguf with both in one; returns the folder."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(WORDS * 4, trainers.BpeTrainer(
        vocab_size=384, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=[AddedToken(text, special=True) for text in SPECIAL]))
    size = tokenizer.get_vocab_size()
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=size, hidden_size=WIDTH, intermediate_size=128, num_hidden_layers=LAYERS, bos_token_id=1,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=CONTEXT, eos_token_id=2,
        initializer_range=0.15, tie_word_embeddings=False)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / 'base')
    tokenizer.save(str(folder / 'base' / 'tokenizer.json'))
    (folder / 'base' / 'tokenizer_config.json').write_text(json.dumps(
        {'chat_template': TEMPLATE, 'bos_token': SPECIAL[1], 'eos_token': SPECIAL[2]}))
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    _write_base(folder / 'base.gguf', weights, tokenizer, config)
    merged = _write_adapters(folder, weights)
    _write_base(folder / 'merged.gguf', merged, tokenizer, config)
    return folder


def _permuted(weights, heads):
    """q and k rows from halves to rotary pairs, as llama.cpp wants them."""
    half = weights.shape[0] // heads // 2
    return weights.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weights.shape)


def _write_base(path, weights, tokenizer, config):
    writer = gguf.GGUFWriter(path, 'llama')
    for add, value in (
            (writer.add_context_length, CONTEXT), (writer.add_embedding_length, WIDTH),
            (writer.add_block_count, LAYERS), (writer.add_feed_forward_length, config.intermediate_size),
            (writer.add_head_count, HEADS), (writer.add_head_count_kv, KV_HEADS), (writer.add_rope_freq_base, 10000.0),
            (writer.add_layer_norm_rms_eps, config.rms_norm_eps), (writer.add_vocab_size, config.vocab_size),
            (writer.add_rope_dimension_count, WIDTH // HEADS), (writer.add_tokenizer_model, 'gpt2'),
            (writer.add_tokenizer_pre, 'gpt-2'), (writer.add_bos_token_id, 1), (writer.add_eos_token_id, 2),
            (writer.add_add_bos_token, False), (writer.add_chat_template, TEMPLATE)):
        add(value)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_token_list([text for text, _number in vocabulary])
    writer.add_token_types([3 if text in SPECIAL else 1 for text, _number in vocabulary])
    writer.add_token_merges([' '.join(pair) for pair in json.loads(tokenizer.to_str())['model']['merges']])
    names = {'model.embed_tokens': 'token_embd', 'model.norm': 'output_norm', 'lm_head': 'output'}
    parts = {'self_attn.q_proj': 'attn_q', 'self_attn.k_proj': 'attn_k', 'self_attn.v_proj': 'attn_v',
             'self_attn.o_proj': 'attn_output', 'mlp.gate_proj': 'ffn_gate', 'mlp.up_proj': 'ffn_up',
             'mlp.down_proj': 'ffn_down', 'input_layernorm': 'attn_norm', 'post_attention_layernorm': 'ffn_norm'}
    names |= {f'model.layers.{layer}.{theirs}': f'blk.{layer}.{ours}'
              for layer in range(LAYERS) for theirs, ours in parts.items()}
    for name, tensor in weights.items():
        stem = name.removesuffix('.weight')
        if stem.endswith(('q_proj', 'k_proj')):
            tensor = _permuted(tensor, HEADS if stem.endswith('q_proj') else KV_HEADS)
        writer.add_tensor(f'{names[stem]}.weight', np.ascontiguousarray(tensor, dtype=np.float32))
    _finish(writer)


def _write_adapters(folder, weights):
    random, merged = np.random.default_rng(11), dict(weights)
    tensors, writer = {}, gguf.GGUFWriter(folder / 'adapter.gguf', 'llama')
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, 'lora')
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, ALPHA)
    for layer in range(LAYERS):
        for part, name, heads in (('q_proj', 'attn_q', HEADS), ('k_proj', 'attn_k', KV_HEADS), ('v_proj', 'attn_v', 0)):
            rows, columns = weights[f'model.layers.{layer}.self_attn.{part}.weight'].shape
            a, b = (random.normal(0.0, 0.3, shape).astype(np.float32) for shape in ((RANK, columns), (rows, RANK)))
            merged[f'model.layers.{layer}.self_attn.{part}.weight'] = \
                weights[f'model.layers.{layer}.self_attn.{part}.weight'] + ALPHA / RANK * b @ a
            stem = f'base_model.model.model.layers.{layer}.self_attn.{part}'
            tensors[f'{stem}.lora_A.weight'], tensors[f'{stem}.lora_B.weight'] = torch.tensor(a), torch.tensor(b)
            writer.add_tensor(f'blk.{layer}.{name}.weight.lora_a', a)
            writer.add_tensor(f'blk.{layer}.{name}.weight.lora_b', _permuted(b, heads) if heads else b)
    _finish(writer)
    (folder / 'adapter').mkdir()
    save_file(tensors, folder / 'adapter' / 'adapter_model.safetensors')
    (folder / 'adapter' / 'adapter_config.json').write_text(json.dumps({
        'peft_type': 'LORA', 'task_type': 'CAUSAL_LM', 'r': RANK, 'lora_alpha': ALPHA, 'bias': 'none',
        'target_modules': ['q_proj', 'k_proj', 'v_proj'], 'base_model_name_or_path': 'tiny'}))
    return merged


def _finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
