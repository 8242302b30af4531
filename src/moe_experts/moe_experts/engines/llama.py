"""The llama.cpp runtime, over the low-level API: GGUF bases and LoRA adapters."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp
import llama_cpp.llama_cpp as llama
import llguidance
import numpy as np
from numpy.typing import NDArray

from moe_experts.engines.engine import EngineError, EngineSettings
from moe_experts.engines.gguf_header import inspect_gguf
from moe_experts.engines.runtime import InterruptedStepError, NoRoomError, Run, State
from moe_experts.engines.spare_cores import SpareCores

UNQUANTISED = ('f16', 'bf16', 'f32')
BATCH_TOKENS = 2048
MICROBATCH_TOKENS = 512
_ERROR = 4  # of ggml_log_level
_complaints: list[str] = []  # of llama.cpp, since the last look at them


@llama.llama_log_callback  # type: ignore[untyped-decorator]
def _log(level: int, text: bytes, _data: Any) -> None:
    if level == _ERROR and len(_complaints) < 10:
        _complaints.append(text.decode(errors='replace').strip().partition(': ')[2])


def _complaint() -> str:
    """The first that llama.cpp complained of since it was asked last; those behind it only repeat that it failed."""
    first = next(iter(_complaints), 'no reason given')
    _complaints.clear()
    return first


class Batch:
    """llama.cpp's batch over arrays of numpy, so that a chunk of a prompt is copied at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tokens, self._positions, self._slots = (np.zeros(most, dtype=np.int32) for _ in range(3))
        self._wanted = np.zeros(most, dtype=np.int8)
        self._one = np.ones(most, dtype=np.int32)  # every token belongs to one sequence
        step, first = self._slots.itemsize, self._slots.ctypes.data
        pointer = ctypes.POINTER(ctypes.c_int32)
        self._slot_pointers = (pointer * most)(*(
            ctypes.cast(first + step * index, pointer) for index in range(most)))
        self.structure = llama.llama_batch(
            n_tokens=0, token=self._tokens.ctypes.data_as(pointer), embd=None,
            pos=self._positions.ctypes.data_as(pointer), n_seq_id=self._one.ctypes.data_as(pointer),
            seq_id=self._slot_pointers, logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)))

    def fill(self, runs: list[Run]) -> bool:
        """Hold these runs; False where they are too many."""
        used = 0
        for run in runs:
            end = used + len(run.tokens)
            if end > self._most:
                return False
            self._tokens[used:end] = run.tokens
            self._positions[used:end] = np.arange(run.position, run.position + len(run.tokens))
            self._slots[used:end] = run.slot
            self._wanted[used:end] = 0
            self._wanted[end - run.wanted:end] = 1
            used = end
        self.structure.n_tokens = used
        return True


def _pointer(data: NDArray[np.uint8]) -> Any:
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def grammar_tokenizer(vocabulary: Any) -> Any:
    """llguidance's view of a vocabulary; it knows control tokens by a leading FF.

    llguidance's own llamacpp.lltokenizer_from_vocab takes twice as long, by a deprecation warning for every token.
    """
    size = 4096  # [bytes] longer than any token's text
    buffer = ctypes.create_string_buffer(size)
    texts = []
    for token in range(llama.llama_vocab_n_tokens(vocabulary)):
        text = ctypes.string_at(buffer, max(0, llama.llama_token_to_piece(vocabulary, token, buffer, size, 0, True)))
        kind = llama.llama_vocab_get_attr(vocabulary, token)
        if kind & llama.LLAMA_TOKEN_ATTR_CONTROL or (
                kind & llama.LLAMA_TOKEN_ATTR_USER_DEFINED and text.startswith(b'<') and text.endswith(b'>')):
            text = b'\xff' + text
        texts.append(text)
    return llguidance.LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]  # its stub forgot it
        tokens=texts, vocab_ptr=vocabulary, eos_token=llama.llama_vocab_eos(vocabulary),
        tokenize_fptr=ctypes.cast(llama._lib.llama_tokenize, ctypes.c_void_p).value)


def cache_type(settings: EngineSettings) -> int:
    """ggml's number of the KV cache's type; raises EngineError."""
    name = settings.cache_type
    found = getattr(llama_cpp, f'GGML_TYPE_{name.upper()}', None)
    if found is None:
        raise EngineError(f'cache_type {name} is unknown; f16, f32 and q8_0 are usual.', 1001)
    if name not in UNQUANTISED and not settings.flash_attention:
        raise EngineError(f'cache_type {name} needs flash_attention; switch it on, or take f16.', 1001)
    return int(found)


def repacks() -> bool:
    """Whether weights are repacked for this processor.

    That makes some formats (Q4_0) twice as fast. llama.cpp's AMX kernels belong to it, and built with GCC they crash,
    SIGILL at the first tile instruction: the compiler drops the stores that set up the tiles
    (ggml-org/llama.cpp#26954).
    """
    return 'amx_tile' not in Path('/proc/cpuinfo').read_text()


class LlamaRuntime:
    """A GGUF base in one context; all slots share its unified KV cache.

    Args:
        path: the base.
        slots: sequence ids.

    Raises EngineError (1001) when the file cannot be loaded.
    """

    def __init__(self, path: Path, settings: EngineSettings, slots: int) -> None:
        inspect_gguf(path, 'model')
        kind = cache_type(settings)
        llama.llama_log_set(_log, ctypes.c_void_p(0))
        llama.llama_backend_init()
        loading = llama.llama_model_default_params()
        loading.use_extra_bufts = repacks()
        loading.n_gpu_layers = settings.gpu_layers
        loading.use_mmap, loading.use_mlock = settings.mmap, settings.mlock
        _complaints.clear()
        self._model = llama.llama_model_load_from_file(str(path).encode(), loading)
        if not self._model:
            raise EngineError(f'llama.cpp cannot load {path}: {_complaint()}.', 1001)
        self._vocabulary = llama.llama_model_get_vocab(self._model)
        self._making = ThreadPoolExecutor(1, 'grammar')  # it takes as long as all the rest, and most never need it
        self.grammar_tokenizer = self._making.submit(grammar_tokenizer, self._vocabulary)
        context = llama.llama_context_default_params()
        context.n_ctx, context.n_batch, context.n_ubatch = settings.context_tokens, BATCH_TOKENS, MICROBATCH_TOKENS
        context.n_seq_max, context.kv_unified = slots, True
        context.type_k = context.type_v = kind
        if not settings.flash_attention:
            context.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context.n_threads = settings.threads
        context.n_threads_batch = settings.threads_batch or settings.threads
        self._spare_cores, self._threads = SpareCores(settings.threads), settings.threads
        self._threads_batch = context.n_threads_batch
        self._context = llama.llama_init_from_model(self._model, context)
        if not self._context:
            raise EngineError(f'llama.cpp makes no KV cache of {settings.context_tokens} tokens as '
                              f'{settings.cache_type}: {_complaint()}; lower inference.context_tokens where it is '
                              'memory.', 3002)
        self._memory = llama.llama_get_memory(self._context)
        # llama.cpp asks before each of a step's thousand operations whether to end it. libc's strlen answers: it is 0
        # while the first byte is; a function of Python's would have to take the lock each time.
        self._interrupted = (ctypes.c_byte * 2)()
        llama.llama_set_abort_callback(self._context, ctypes.cast(ctypes.CDLL(None).strlen, llama.ggml_abort_callback),
                                       ctypes.cast(self._interrupted, ctypes.c_void_p))
        self._width = llama.llama_model_n_embd(self._model)
        self._batch = Batch(BATCH_TOKENS)
        self._adapters: dict[str, Any] = {}
        self._active = ('', 1.0)
        self._metadata = self._read_metadata()
        self.vocabulary_size = llama.llama_vocab_n_tokens(self._vocabulary)
        self.context_tokens = settings.context_tokens
        self.sequence_tokens = min(settings.context_tokens,
                                   llama.llama_model_n_ctx_train(self._model) or settings.context_tokens)
        self.chat_template = self._metadata.get('tokenizer.chat_template', '')
        self.special_texts = {'bos_token': self._text(llama.llama_vocab_bos(self._vocabulary)),
                              'eos_token': self._text(llama.llama_vocab_eos(self._vocabulary))}

    def load_adapter(self, key: str, path: Path) -> None:
        """Load a LoRA adapter; raises EngineError (1001)."""
        inspect_gguf(path, 'adapter', self._metadata.get('general.architecture', ''))
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
        """Compute runs with one adapter; returns logits (wanted, vocabulary) per run, a view until the next decode.

        Raises NoRoomError, InterruptedStepError, EngineError (3000).
        """
        self._use(adapter, scale)
        self._compute(runs)
        wanted = sum(run.wanted for run in runs)
        if not wanted:
            return [np.empty((0, self.vocabulary_size), dtype=np.float32) for _run in runs]
        logits = np.ctypeslib.as_array(llama.llama_get_logits(self._context), shape=(wanted, self.vocabulary_size))
        ends = np.cumsum([run.wanted for run in runs])
        return [logits[end - run.wanted:end] for run, end in zip(runs, ends, strict=True)]

    def hidden_states(self, adapter: str, scale: float, slot: int, tokens: list[int]) -> NDArray[np.float32]:
        """Last hidden states (tokens, width), computed in an empty slot. Raises EngineError (3000)."""
        self._use(adapter, scale)
        llama.llama_set_embeddings(self._context, True)
        try:
            found = []
            for begin in range(0, len(tokens), MICROBATCH_TOKENS):
                part = tokens[begin:begin + MICROBATCH_TOKENS]
                self._compute([Run(slot, begin, part, len(part))])
                found.append(np.ctypeslib.as_array(llama.llama_get_embeddings(self._context),
                                                   shape=(len(part), self._width)).copy())
            return np.concatenate(found)
        finally:
            llama.llama_set_embeddings(self._context, False)

    def interrupt(self) -> None:
        """End the decode that another thread is in."""
        self._interrupted[0] = 1

    def _compute(self, runs: list[Run]) -> None:
        if not self._batch.fill(runs):
            raise EngineError(f'A batch of more than {BATCH_TOKENS} tokens cannot be computed.', 3000)
        threads = self._spare_cores.count()
        if threads != self._threads:
            llama.llama_set_n_threads(self._context, threads, min(threads, self._threads_batch))
            self._threads = threads
        self._interrupted[0] = 0
        code = llama.llama_decode(self._context, self._batch.structure)
        if code == 1:
            raise NoRoomError
        if code == 2:
            for run in runs:  # of several microbatches the first may have been computed
                self.cut(run.slot, run.position)
            raise InterruptedStepError
        if code:
            raise EngineError(f'llama.cpp could not decode (code {code}).', 3000)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let an empty slot begin with the first cells of another one; the cells are shared."""
        llama.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def cut(self, slot: int, length: int) -> None:
        """Free the cells of a slot from `length` on; 0 empties it."""
        llama.llama_memory_seq_rm(self._memory, slot, length, -1)

    def save(self, slot: int) -> State:
        """What a slot holds, to be restored after its cells were freed."""
        size = llama.llama_state_seq_get_size(self._context, slot)
        data = np.empty(size, dtype=np.uint8)
        llama.llama_state_seq_get_data(self._context, _pointer(data), size, slot)
        return State(data, size)

    def restore(self, slot: int, state: State) -> None:
        """Fill an empty slot with what was saved; raises NoRoomError."""
        if not llama.llama_state_seq_set_data(self._context, _pointer(state.data), state.bytes, slot):
            raise NoRoomError

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

    @cached_property
    def end_tokens(self) -> list[int]:
        """Tokens that end an answer; looked for when they are first asked for, which takes some 20 ms."""
        return [token for token in range(self.vocabulary_size) if self.is_end(token)]

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
        self._making.shutdown()
        llama.llama_free(self._context)
        llama.llama_model_free(self._model)
