"""The Hugging Face folder that adapters are trained on, dequantised once from the GGUF file of the base."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import gguf

from moe_training.atomic_files import exclusive
from moe_training.errors import TrainingError
from moe_training.paths import trainable_base
from moe_training.prepare_base import shipped_base

# llama.cpp's names of byte-level pre-tokenizers, with and without splitting digits one by one.
_PLAIN, _SINGLE_DIGITS = ('gpt-2', 'default'), ('smollm',)
_CONTROL_TOKEN = 3  # gguf.TokenType.CONTROL: a token that text never produces by itself


def gguf_tokenizer(source: Path) -> Any:
    """The tokenizer inside a GGUF file as a transformers tokenizer, chat template included.

    transformers' own conversion leaves out the pre-tokenizer that splits digits one by one, so that numbers would be
    trained as other tokens than llama.cpp makes of them. Raises TrainingError for another kind of tokenizer.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = gguf.GGUFReader(source).fields
    kind = fields['tokenizer.ggml.model'].contents()
    pre = fields['tokenizer.ggml.pre'].contents() if 'tokenizer.ggml.pre' in fields else 'default'
    if kind != 'gpt2' or pre not in (*_PLAIN, *_SINGLE_DIGITS):
        raise TrainingError(f'The tokenizer of {source} ({kind}, {pre}) cannot be trained with; there are '
                            f'{", ".join((*_PLAIN, *_SINGLE_DIGITS))}. Give the model as a Hugging Face folder.')
    tokens: list[str] = fields['tokenizer.ggml.tokens'].contents()
    merges = [tuple(merge.split(' ')) for merge in fields['tokenizer.ggml.merges'].contents()]
    types = fields['tokenizer.ggml.token_type'].contents()
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    digits = [pre_tokenizers.Digits(individual_digits=True)] if pre in _SINGLE_DIGITS else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([
        AddedToken(token, special=True, normalized=False)
        for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL_TOKEN])

    special = {f'{short}_token': tokens[int(fields[f'tokenizer.ggml.{name}_token_id'].contents())]
               for short, name in (('bos', 'bos'), ('eos', 'eos'), ('unk', 'unknown'), ('pad', 'padding'))
               if f'tokenizer.ggml.{name}_token_id' in fields}
    template = fields.get('tokenizer.chat_template')
    make: Any = PreTrainedTokenizerFast  # untyped
    return make(tokenizer_object=backend, **special, chat_template=template.contents() if template else None,
                clean_up_tokenization_spaces=False)


def prepare_trainable_base(target: Path | None = None, source: Path | None = None) -> Path:
    """Writes the folder (safetensors, bfloat16, 270 MB; about 20 s) once and returns its path.

    Two processes may ask at once; an interrupted one leaves nothing behind that counts as the folder.
    """
    target = target or trainable_base()
    source = source or shipped_base()
    if (target / 'config.json').is_file():
        return target
    with exclusive(target):
        if (target / 'config.json').is_file():
            return target
        import torch
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.bfloat16)
        # save_pretrained refuses a model that says it is quantised; these weights no longer are.
        if hasattr(model.config, 'quantization_config'):
            del model.config.quantization_config
        model.hf_quantizer = None
        temporary = target.with_name(f'.{target.name}.tmp')
        shutil.rmtree(temporary, ignore_errors=True)
        model.to(torch.bfloat16).save_pretrained(temporary)
        gguf_tokenizer(source).save_pretrained(temporary)
        os.replace(temporary, target)
    return target
