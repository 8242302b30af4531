"""Which engine a model gets: decided by what its path is."""

from __future__ import annotations

from pathlib import Path

from moe_experts.engines.batching import BatchingEngine
from moe_experts.engines.engine import Engine, EngineError, EngineSettings
from moe_experts.engines.runtime import Runtime
from moe_experts.engines.slots import slots_needed


def open_engine(path: Path, settings: EngineSettings) -> Engine:
    """Load a GGUF file with llama.cpp, or a folder of safetensors with transformers; raises EngineError (1001)."""
    runtime: Runtime
    # A worker needs one of the libraries; importing the other as well would cost seconds and memory.
    if path.is_file():
        from moe_experts.engines.llama import LlamaRuntime
        runtime = LlamaRuntime(path, settings, slots_needed(settings.slots))
    elif (path / 'config.json').is_file():
        from moe_experts.engines.hugging_face import TransformersRuntime
        runtime = TransformersRuntime(path, settings)
    else:
        raise EngineError(f'{path} is neither a GGUF file nor a folder with config.json.', 1001)
    return BatchingEngine(runtime, settings)
