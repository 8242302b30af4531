"""The llama.cpp runtime, over the low-level API: GGUF bases and LoRA adapters."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama
import llguidance.llamacpp
import numpy as np
from numpy.typing import NDArray

from moe_experts.engines.engine import EngineError
from moe_experts.engines.runtime import Run
from moe_experts.engines.spare_cores import SpareCores

BATCH_TOKENS = 2048
MICROBATCH_TOKENS = 512
_quiet = llama.llama_log_callback(lambda _level, _text, _data: None)


class LlamaRuntime:
    """A GGUF base in one context; all slots share its unified KV cache.

    Args:
        path: the base.
        threads: for decoding, at most.
        slots: sequence ids.
        context_tokens: cells of the cache.

    Raises EngineError (1001) when the file cannot be loaded.
    """

    def __init__(self, path: Path, threads: int, slots: int, context_tokens: int) -> None:
        llama.llama_log_set(_quiet, ctypes.c_void_p(0))
        llama.llama_backend_init()
        loading = llama.llama_model_default_params()
        # llama.cpp's AMX kernels crash on virtual machines that show AMX but do not let it be used
        loading.use_extra_bufts = False
        self._model = llama.llama_model_load_from_file(str(path).encode(), loading)
        if not self._model:
            raise EngineError(f'llama.cpp cannot load {path}; it is damaged or of an unknown architecture.', 1001)
        settings = llama.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = context_tokens, BATCH_TOKENS, MICROBATCH_TOKENS
        settings.n_seq_max, settings.kv_unified = slots, True
        settings.n_threads = settings.n_threads_batch = threads
        self._spare_cores, self._threads = SpareCores(threads), threads
        self._context = llama.llama_init_from_model(self._model, settings)
        if not self._context:
            raise EngineError(f'No memory for a context of {context_tokens} tokens; lower max_seq_len.', 1001)
        self._memory = llama.llama_get_memory(self._context)
        self._vocabulary = llama.llama_model_get_vocab(self._model)
        self._width = llama.llama_model_n_embd(self._model)
        self._batch = llama.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._adapters: dict[str, Any] = {}
        self._active = ('', 1.0)
        self._metadata = self._read_metadata()
        self.vocabulary_size = llama.llama_vocab_n_tokens(self._vocabulary)
        self.context_tokens = context_tokens
        self.sequence_tokens = min(context_tokens, llama.llama_model_n_ctx_train(self._model) or context_tokens)
        self.end_token = llama.llama_vocab_eos(self._vocabulary)
        self.chat_template = self._metadata.get('tokenizer.chat_template', '')
        self.special_texts = {'bos_token': self._text(llama.llama_vocab_bos(self._vocabulary)),
                              'eos_token': self._text(self.end_token)}
        self.grammar_tokenizer = llguidance.llamacpp.lltokenizer_from_vocab(self._vocabulary)

    def load_adapter(self, key: str, path: Path) -> None:
        """Load a LoRA adapter; raises EngineError (1001)."""
        adapter = llama.llama_adapter_lora_init(self._model, str(path).encode())
        if not adapter:
            raise EngineError(f'{path} is no adapter for this base, or is damaged.', 1001)
        self._adapters[key] = adapter

    def unload_adapter(self, key: str) -> None:
        """Free a loaded adapter."""
        if self._active[0] == key:
            self._use('', 1.0)
        llama.llama_adapter_lora_free(self._adapters.pop(key))

    def _use(self, adapter: str, scale: float) -> None:
        if (adapter, scale) == self._active:
            return
        handles, scales = (llama.llama_adapter_lora_p_ctypes * 1)(), (ctypes.c_float * 1)(scale)
        if adapter:
            handles[0] = self._adapters[adapter]
        if llama.llama_set_adapters_lora(self._context, handles, 1 if adapter and scale else 0, scales):
            raise EngineError(f'Adapter {adapter} cannot be applied to this base.', 3000)
        self._active = (adapter, scale)

    def decode(self, adapter: str, scale: float, runs: list[Run]) -> list[NDArray[np.float32]]:
        """Compute runs with one adapter; returns logits (wanted, vocabulary) per run. Raises EngineError (3000)."""
        self._use(adapter, scale)
        used, rows = 0, []
        for run in runs:
            used = self._put(run, used)
            rows.append(range(used - run.wanted, used))
        self._compute(used)
        return [self._rows(llama.llama_get_logits_ith, one, self.vocabulary_size) for one in rows]

    def hidden_states(self, adapter: str, scale: float, slot: int, tokens: list[int]) -> NDArray[np.float32]:
        """Last hidden states (tokens, width), computed in an empty slot. Raises EngineError (3000)."""
        self._use(adapter, scale)
        llama.llama_set_embeddings(self._context, True)
        try:
            found = []
            for begin in range(0, len(tokens), MICROBATCH_TOKENS):
                part = tokens[begin:begin + MICROBATCH_TOKENS]
                used = self._put(Run(slot, begin, part, len(part)), 0)
                self._compute(used)
                found.append(self._rows(llama.llama_get_embeddings_ith, range(used), self._width))
            return np.concatenate(found)
        finally:
            llama.llama_set_embeddings(self._context, False)

    def _put(self, run: Run, used: int) -> int:
        """Write a run into the batch behind the `used` entries; returns how many there are now."""
        batch, end = self._batch, used + len(run.tokens)
        if end > BATCH_TOKENS:
            raise EngineError(f'A batch of {end} tokens is more than {BATCH_TOKENS}.', 3000)
        first_wanted = end - run.wanted
        for index, token in enumerate(run.tokens, used):
            batch.token[index], batch.pos[index] = token, run.position + index - used
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, run.slot
            batch.logits[index] = index >= first_wanted
        return end

    def _compute(self, count: int) -> None:
        threads = self._spare_cores.count()
        if threads != self._threads:
            llama.llama_set_n_threads(self._context, threads, threads)
            self._threads = threads
        self._batch.n_tokens = count
        if code := llama.llama_decode(self._context, self._batch):
            raise EngineError(f'llama.cpp could not decode (code {code}).', 3000)

    def _rows(self, get: Any, rows: range, width: int) -> NDArray[np.float32]:
        found = np.empty((len(rows), width), dtype=np.float32)
        for index, row in enumerate(rows):
            found[index] = np.ctypeslib.as_array(get(self._context, row), shape=(width,))
        return found

    def copy(self, source: int, target: int, length: int) -> None:
        """Let an empty slot begin with the first cells of another one; the cells are shared."""
        llama.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def cut(self, slot: int, length: int) -> None:
        """Free the cells of a slot from `length` on; 0 empties it."""
        llama.llama_memory_seq_rm(self._memory, slot, length, -1)

    def tokenize(self, text: str, *, special: bool = False, ends: bool = False) -> list[int]:
        """Tokens of a text; control tokens in it are text unless special."""
        data = text.encode()
        room = len(data) + 8
        buffer = (ctypes.c_int32 * room)()
        count = llama.llama_tokenize(self._vocabulary, data, len(data), buffer, room, ends, special)
        return list(buffer[:max(0, count)])

    def piece(self, token: int) -> bytes:
        """Bytes of a token; b'' for control tokens."""
        buffer = ctypes.create_string_buffer(256)
        length = llama.llama_token_to_piece(self._vocabulary, token, buffer, 256, 0, False)
        return buffer.raw[:max(0, length)]

    def is_end(self, token: int) -> bool:
        """Whether a token ends an answer."""
        return bool(llama.llama_vocab_is_eog(self._vocabulary, token))

    def _text(self, token: int) -> str:
        return '' if token < 0 else (llama.llama_vocab_get_text(self._vocabulary, token) or b'').decode(
            errors='replace')

    def _read_metadata(self) -> dict[str, str]:
        buffer, found = ctypes.create_string_buffer(1 << 16), {}
        for index in range(llama.llama_model_meta_count(self._model)):
            llama.llama_model_meta_key_by_index(self._model, index, buffer, len(buffer))
            key = buffer.value.decode(errors='replace')
            llama.llama_model_meta_val_str_by_index(self._model, index, buffer, len(buffer))
            found[key] = buffer.value.decode(errors='replace')
        return found

    def metadata(self) -> dict[str, str]:
        """Keys and values of the model's file, with n_ctx as loaded."""
        return {**self._metadata, 'n_ctx': str(self.context_tokens), 'vocabulary_size': str(self.vocabulary_size),
                'parameter_count': str(llama.llama_model_n_params(self._model))}

    def close(self) -> None:
        """Free everything; adapters go with their model."""
        self._spare_cores.close()
        llama.llama_batch_free(self._batch)
        llama.llama_free(self._context)
        llama.llama_model_free(self._model)
