"""The model that a fit works on: the base with a new adapter, or all of its weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from moe_training.errors import TrainingError
from moe_training.settings import Settings


def device() -> Any:
    """CUDA where torch sees one (of this process's rank), otherwise the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device('cuda', int(os.environ.get('LOCAL_RANK', '0')))
    return torch.device('cpu')


def load_folder(folder: Path) -> Any:
    """A causal model from a Hugging Face folder in float32, never running code of that folder; TrainingError."""
    import torch
    from transformers import AutoModelForCausalLM

    if not any(folder.glob('*.safetensors')):
        raise TrainingError(f'{folder} holds no safetensors file; pickled weights are never loaded.')
    try:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False,
                                                    use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise TrainingError(f'The model in {folder} cannot be loaded: {error}') from error


def load_model(folder: Path, settings: Settings) -> Any:
    """A model to fit; the seed decides a new adapter's weights. Raises TrainingError."""
    model = load_folder(folder)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={'use_reentrant': False})
        model.enable_input_require_grads()
    if settings.method == 'lora':
        import torch
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(settings.seed)
        model = get_peft_model(model, LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha,  # type: ignore[arg-type]  # any number works
            target_modules=list(settings.targets), lora_dropout=0.0))
    return model.to(device())
