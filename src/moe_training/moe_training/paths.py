"""Where the training package keeps its files: folders under MOE_HOME."""

from __future__ import annotations

import os
from pathlib import Path

BASE_NAME = 'smollm2-135m-instruct'


def moe_home() -> Path:
    """Folder of all that the suite writes: MOE_HOME, by default ~/.local/share/moe."""
    return Path(os.environ.get('MOE_HOME') or '~/.local/share/moe').expanduser().absolute()


def served_base(quantization: str = 'Q8_0') -> Path:
    """GGUF file of the base that adapters are served on; every built-in one on Q8_0."""
    return moe_home() / 'models' / f'{BASE_NAME}-{quantization.lower()}.gguf'


def trainable_base() -> Path:
    """Hugging Face folder (safetensors) of the base that adapters are trained on."""
    return moe_home() / 'models' / f'{BASE_NAME}-hf'


def job_folder(job_id: int) -> Path:
    """Folder of a training job: settings, checkpoints, adapter."""
    return moe_home() / 'training' / str(job_id)


def job_log(job_id: int) -> Path:
    """Log file of a training job."""
    return moe_home() / 'logs' / f'training_{job_id}.log'
