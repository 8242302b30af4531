"""The transformers runtime: folders of safetensors with peft adapters, on CUDA where torch sees it."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import llguidance
import numpy as np
import tokenizers
import torch
import transformers
from numpy.typing import NDArray

from moe_experts.engines.engine import EngineError, EngineSettings
from moe_experts.engines.runtime import Run, State


class TransformersRuntime:
    """A causal model from a folder; every slot has a cache of its own and is decoded by itself.

    Nothing of the folder is executed: weights come from safetensors only, model code from transformers only.

    Args:
        folder: config.json, tokenizer.json, *.safetensors.
        settings: threads and context_tokens are used; a GPU that torch sees is.

    Raises EngineError (1001) when the folder cannot be loaded.
    """

    def __init__(self, folder: Path, settings: EngineSettings) -> None:
        torch.set_num_threads(settings.threads)
        transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        if not any(folder.glob('*.safetensors')):
            raise EngineError(f'{folder} holds no safetensors; other formats can run code and are not loaded.', 1001)
        self._model: Any
        self._device = 'cuda' if torch.cuda.is_available() else 'cpu'
        try:
            # bfloat16 and float16 are slow on most CPUs
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, trust_remote_code=False, use_safetensors=True, local_files_only=True,
                dtype='auto' if self._device == 'cuda' else torch.float32)
            self._model = model.to(self._device).eval()
            source = (folder / 'tokenizer.json').read_text(encoding='utf-8')
            self._tokenizer = tokenizers.Tokenizer.from_str(source)
            self._plain = tokenizers.Tokenizer.from_str(source)
            self._plain.encode_special_tokens = True
            self._settings = self._read(folder)
        except Exception as error:  # whatever a damaged folder makes these libraries raise
            raise EngineError(f'transformers cannot load {folder}: {error}', 1001) from error
        config = self._model.config
        self.end_tokens = self._read_end_tokens()
        added = self._tokenizer.get_added_tokens_decoder()
        self._control = {number for number, token in added.items() if token.special}
        self._caches: dict[int, Any] = {}
        self._adapters: dict[str, str] = {}
        self._count = 0
        self._active: tuple[str, float] | None = None
        self.vocabulary_size = int(config.vocab_size)
        self.context_tokens = settings.context_tokens
        self.sequence_tokens = min(settings.context_tokens, int(config.max_position_embeddings))
        self.chat_template = self._settings.get('chat_template') or ''
        self.special_texts = {name: _token_text(self._settings.get(name)) for name in ('bos_token', 'eos_token')}
        self._tokens = llguidance.LLTokenizer(source, n_vocab=self.vocabulary_size, eos_token=self.end_tokens)
        self.grammar_tokenizer: Future[Any] = Future()
        self.grammar_tokenizer.set_result(self._tokens)

    @staticmethod
    def _read(folder: Path) -> dict[str, Any]:
        """The tokenizer's settings, with the chat template wherever it stands."""
        path = folder / 'tokenizer_config.json'
        settings: dict[str, Any] = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
        template = folder / 'chat_template.jinja'
        if template.is_file():
            settings['chat_template'] = template.read_text(encoding='utf-8')
        return settings

    def _read_end_tokens(self) -> list[int]:
        found: list[int] = []
        for config in (self._model.generation_config, self._model.config):
            value = getattr(config, 'eos_token_id', None)
            found += [value] if isinstance(value, int) else list(value or [])
        if not found:
            raise EngineError('The model names no end token; config.json needs eos_token_id.', 1001)
        return list(dict.fromkeys(found))

    def load_adapter(self, key: str, path: Path) -> None:
        """Load a peft adapter from its folder; raises EngineError (1001)."""
        if not (path / 'adapter_model.safetensors').is_file():
            raise EngineError(f'{path} is no folder with adapter_model.safetensors.', 1001)
        self._count += 1
        name = f'adapter_{self._count}'  # peft makes module names of it, which a key's characters may not fit
        try:
            self._model.load_adapter(str(path), adapter_name=name)
        except Exception as error:  # whatever a damaged or foreign adapter makes peft raise
            raise EngineError(f'{path} is no adapter for this base, or is damaged: {error}', 1001) from error
        self._adapters[key] = name
        self._active = None

    def unload_adapter(self, key: str) -> None:
        """Free a loaded adapter."""
        self._model.delete_adapter(self._adapters.pop(key))
        self._active = None

    def _use(self, adapter: str, scale: float) -> None:
        if (adapter, scale) == self._active:
            return
        if adapter and scale:
            name = self._adapters[adapter]
            self._model.enable_adapters()
            self._model.set_adapter(name)
            for module in self._model.modules():
                if hasattr(module, 'set_scale') and name in getattr(module, 'scaling', {}):
                    module.set_scale(name, scale)
        elif self._adapters:
            self._model.disable_adapters()
        self._active = (adapter, scale)

    def decode(self, adapter: str, scale: float, runs: list[Run]) -> list[NDArray[np.float32]]:
        """Compute runs with one adapter; returns logits (wanted, vocabulary) per run. Raises EngineError (3000)."""
        self._use(adapter, scale)
        return [self._decode(run) for run in runs]

    def _decode(self, run: Run) -> NDArray[np.float32]:
        output = self._forward(self._model, run, logits_to_keep=run.wanted or 1)
        found = output.logits[0, -run.wanted:] if run.wanted else output.logits[0, :0]
        return np.asarray(found.float().cpu().numpy(), dtype=np.float32)

    def interrupt(self) -> None:
        """Nothing: torch ends no computation half-way."""

    def hidden_states(self, adapter: str, scale: float, slot: int, tokens: list[int]) -> NDArray[np.float32]:
        """Last hidden states (tokens, width), computed in an empty slot. Raises EngineError (3000)."""
        self._use(adapter, scale)
        output = self._forward(self._model.base_model, Run(slot, 0, tokens))
        return np.asarray(output.last_hidden_state[0].float().cpu().numpy(), dtype=np.float32)

    def _forward(self, model: Any, run: Run, **options: Any) -> Any:
        cache = self._caches.setdefault(run.slot, transformers.DynamicCache())
        try:
            with torch.inference_mode():
                return model(input_ids=torch.tensor([run.tokens], device=self._device), past_key_values=cache,
                             use_cache=True, **options)
        except RuntimeError as error:
            self._caches.pop(run.slot, None)
            raise EngineError(f'torch could not decode: {error}', 3000) from error

    def copy(self, source: int, target: int, length: int) -> None:
        """Let an empty slot begin with the first cells of another one."""
        cache = transformers.DynamicCache()
        with torch.inference_mode():
            for index, layer in enumerate(self._caches[source].layers):
                cache.update(layer.keys[:, :, :length], layer.values[:, :, :length], index)
        self._caches[target] = cache

    def cut(self, slot: int, length: int) -> None:
        """Free the cells of a slot from `length` on; 0 empties it."""
        if length == 0:
            self._caches.pop(slot, None)
        elif slot in self._caches:
            self.copy(slot, slot, length)

    def save(self, slot: int) -> State:
        """What a slot holds, to be restored after its cells were freed."""
        layers = [(layer.keys, layer.values) for layer in self._caches[slot].layers] if slot in self._caches else []
        return State(layers, sum(tensor.nbytes for pair in layers for tensor in pair))

    def restore(self, slot: int, state: State) -> None:
        """Fill an empty slot with what was saved."""
        cache = transformers.DynamicCache()
        with torch.inference_mode():
            for index, (keys, values) in enumerate(state.data):
                cache.update(keys, values, index)
        self._caches[slot] = cache

    def tokenize(self, text: str, *, special: bool = False, ends: bool = False) -> list[int]:
        """Tokens of a text; control tokens in it are text unless special."""
        tokenizer = self._tokenizer if special else self._plain
        return list(tokenizer.encode(text, add_special_tokens=ends).ids)

    def piece(self, token: int) -> bytes:
        """Bytes of a token; b'' for control tokens."""
        return b'' if token in self._control else bytes(self._tokens.decode_bytes([token]))

    def is_end(self, token: int) -> bool:
        """Whether a token ends an answer."""
        return token in self.end_tokens

    def metadata(self) -> dict[str, str]:
        """The model's configuration under GGUF's names, with n_ctx as loaded."""
        config = self._model.config
        name = str(config.model_type)
        return {
            'general.architecture': name, f'{name}.context_length': str(config.max_position_embeddings),
            f'{name}.embedding_length': str(config.hidden_size), f'{name}.block_count': str(config.num_hidden_layers),
            'tokenizer.chat_template': self.chat_template, 'n_ctx': str(self.context_tokens),
            'vocabulary_size': str(self.vocabulary_size),
            'parameter_count': str(sum(one.numel() for name, one in self._model.named_parameters()
                                       if 'lora_' not in name))}

    def close(self) -> None:
        """Free everything."""
        self._caches.clear()
        del self._model
        if self._device == 'cuda':
            torch.cuda.empty_cache()


def _token_text(token: Any) -> str:
    """A token of tokenizer_config.json, which is a text or an object with its text."""
    return str(token.get('content', '')) if isinstance(token, dict) else str(token or '')
