"""Where the training package keeps its files: folders under MOE_HOME."""

from __future__ import annotations

import os
from pathlib import Path

BASE_NAME = 'smollm2-135m-instruct'


def moe_home() -> Path:
    """Folder of all that the suite writes: MOE_HOME, by default ~/.local/share/moe."""
    return Path(os.environ.get('MOE_HOME') or '~/.local/share/moe').expanduser().absolute()


def served_base() -> Path:
    """GGUF file (Q8_0) of the base that every built-in adapter is served on."""
    return moe_home() / 'models' / f'{BASE_NAME}-q8_0.gguf'


def trainable_base() -> Path:
    """Hugging Face folder (safetensors) of the base that adapters are trained on."""
    return moe_home() / 'models' / f'{BASE_NAME}-hf'


def job_folder(job_id: int) -> Path:
    """Folder of a training job: settings, checkpoints, adapter."""
    return moe_home() / 'training' / str(job_id)


def job_log(job_id: int) -> Path:
    """Log file of a training job."""
    return moe_home() / 'logs' / f'training_{job_id}.log'
