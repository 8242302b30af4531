"""Models from nothing: a Llama of a named size with random weights and a tokenizer trained on the dataset."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from moe_training.atomic_files import exclusive
from moe_training.dataset import Example

SIZES = ('tiny', 'small', 'medium', 'large')
SPECIAL = ('<|endoftext|>', '<|im_start|>', '<|im_end|>')
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}')
_ROLES = ('system', 'user', 'assistant', '\n')
CONTEXT_TOKENS = 8192


@dataclass(frozen=True)
class Size:
    """Dimensions of a model; parameters in millions with a full vocabulary."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    parameters: float


@cache
def sizes() -> dict[str, Size]:
    """The size table by name."""
    table = yaml.safe_load((Path(__file__).parent / 'model_sizes.yaml').read_text())
    return {name: Size(**row) for name, row in table.items()}


def _texts(examples: Iterable[Example], system_prompt: str) -> Iterator[str]:
    yield from (*_ROLES, system_prompt)
    for example in examples:
        yield from (text for _role, text in example.messages)
        yield example.completion


def train_tokenizer(examples: Iterable[Example], system_prompt: str, vocabulary: int) -> Any:
    """A byte-level BPE tokenizer with single digits, ChatML; llama.cpp's pre-tokenizer "smollm"."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(_texts(examples, system_prompt), trainers.BpeTrainer(
        vocab_size=vocabulary, min_frequency=2, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIAL]))
    make: Any = PreTrainedTokenizerFast  # untyped
    return make(tokenizer_object=backend, bos_token=SPECIAL[1], eos_token=SPECIAL[2], unk_token=SPECIAL[0],
                pad_token=SPECIAL[2], chat_template=CHAT_TEMPLATE, clean_up_tokenization_spaces=False)


def make_model(name: str, examples: Iterable[Example], system_prompt: str, target: Path, seed: int) -> Path:
    """Write the untrained model and its tokenizer as a Hugging Face folder once; the seed decides the weights."""
    with exclusive(target):
        if not (target / 'config.json').is_file():
            _write(sizes()[name], examples, system_prompt, target, seed)
    return target


def _write(size: Size, examples: Iterable[Example], system_prompt: str, target: Path, seed: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_tokenizer(examples, system_prompt, size.vocabulary)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=size.hidden_size, intermediate_size=size.intermediate_size,
        num_hidden_layers=size.layers, num_attention_heads=size.heads, num_key_value_heads=size.kv_heads,
        max_position_embeddings=CONTEXT_TOKENS, tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    temporary = target.with_name(f'.{target.name}.tmp')
    shutil.rmtree(temporary, ignore_errors=True)
    model: Any = LlamaForCausalLM(config)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    os.replace(temporary, target)
