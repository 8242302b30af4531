"""The llama.cpp engine: continuous batching over the low-level API.

Each step decodes one adapter's sequences: the next token of every running one and a chunk of the prompts that
wait (llama.cpp applies one adapter set per decode). Groups take turns, urgent requests first.
"""

from __future__ import annotations

import ctypes
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2.sandbox
import llama_cpp.llama_cpp as llama
import llguidance.llamacpp
import numpy as np
from numpy.typing import NDArray

from moe_experts.engines.engine import EngineError, Piece, Request, Result
from moe_experts.engines.grammar import GrammarCompiler, Matcher
from moe_experts.engines.sampling import Sampler
from moe_experts.engines.text import AnswerText

CHUNK_TOKENS = 256  # of a prompt per step, so that running answers wait at most ~0.3 s
_quiet = llama.llama_log_callback(lambda _level, _text, _data: None)


@dataclass
class _Sequence:
    """A request while it has a place in the context."""

    request: Request
    slot: int
    pending: list[int]
    prompt_tokens: int
    sampler: Sampler
    text: AnswerText
    matcher: Matcher | None
    arrived: float
    started: float
    past: int = 0
    tokens: list[int] = field(default_factory=list)
    first: float = 0.0


class LlamaEngine:
    """A GGUF base with LoRA adapters on it.

    Args:
        path: the base.
        threads: for decoding.
        slots: sequences at once.
        context_tokens: of the cache that they share.
        queue_limit: requests that may wait.

    Raises EngineError (1001) when the file cannot be loaded.
    """

    def __init__(self, path: Path, threads: int = 2, slots: int = 8, context_tokens: int = 8192,
                 queue_limit: int = 64) -> None:
        llama.llama_log_set(_quiet, ctypes.c_void_p(0))
        llama.llama_backend_init()
        loading = llama.llama_model_default_params()
        # llama.cpp's AMX kernels crash on virtual machines that show AMX but do not let it be used
        loading.use_extra_bufts = False
        self._model = llama.llama_model_load_from_file(str(path).encode(), loading)
        if not self._model:
            raise EngineError(f'llama.cpp cannot load {path}; it is damaged or of an unknown architecture.', 1001)
        settings = llama.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = context_tokens, 2048, 512
        settings.n_seq_max, settings.kv_unified = slots, True
        settings.n_threads = settings.n_threads_batch = threads
        self._context = llama.llama_init_from_model(self._model, settings)
        if not self._context:
            raise EngineError(f'No memory for a context of {context_tokens} tokens; lower max_seq_len.', 1001)
        self._memory = llama.llama_get_memory(self._context)
        self._vocabulary = llama.llama_model_get_vocab(self._model)
        self._size = llama.llama_vocab_n_tokens(self._vocabulary)
        self._batch = llama.llama_batch_init(2048, 0, 1)
        self._context_tokens, self._queue_limit = context_tokens, queue_limit
        self._free = list(range(slots))
        self._running: list[_Sequence] = []
        self._waiting: deque[tuple[Request, list[int], float]] = deque()
        self._ended: list[Piece | Result] = []
        self._adapters: dict[str, tuple[Any, float]] = {}
        self._active = ''
        self._served: dict[str, int] = {}
        self._turn = 0
        self._metadata = self._read_metadata()
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self._template = environment.from_string(self._metadata.get('tokenizer.chat_template', _CHATML))
        tokenizer = llguidance.llamacpp.lltokenizer_from_vocab(self._vocabulary)
        self._grammars = GrammarCompiler(tokenizer, self._size)

    def load_adapter(self, key: str, path: Path, scale: float) -> None:
        """Load a LoRA adapter; raises EngineError (1001)."""
        adapter = llama.llama_adapter_lora_init(self._model, str(path).encode())
        if not adapter:
            raise EngineError(f'{path} is no adapter for this base, or is damaged.', 1001)
        self._adapters[key] = (adapter, scale)

    def unload_adapter(self, key: str) -> None:
        """Free an adapter; requests that use it end with an error."""
        for sequence in [one for one in self._running if one.request.adapter == key]:
            self._end(sequence, 'error', 1001, f'The expert was unloaded ({key}).')
        if key in self._adapters:
            if self._active == key:
                self._use('')
            llama.llama_adapter_lora_free(self._adapters.pop(key)[0])

    def submit(self, request: Request) -> None:
        """Queue a request; raises EngineError (1001, 3002, 3004)."""
        request.sampling.check()
        if request.adapter and request.adapter not in self._adapters:
            raise EngineError(f'Adapter {request.adapter} is not loaded.', 1001)
        if len(self._waiting) >= self._queue_limit:
            raise EngineError(f'{len(self._waiting)} requests wait already; try again later.', 3002, 1.0)
        tokens = self._prompt(request)
        limit = min(request.max_seq_len, self._context_tokens)
        room = limit - 1
        if len(tokens) > room:
            if not request.truncate:
                raise EngineError(f'The prompt has {len(tokens)} tokens, more than the context of {limit} holds; '
                                  'shorten it or set truncate.')
            room = max(1, limit - min(request.max_tokens, limit // 2))
            tokens = tokens[-room:] if request.truncate == 'left' else tokens[:room // 2] + tokens[-(room - room // 2):]
        self._grammars.matcher(request)  # a bad schema is refused here, before the request waits
        self._waiting.append((request, tokens, time.monotonic()))

    def cancel(self, request_id: str) -> None:
        """End a request within one step."""
        for sequence in self._running:
            if sequence.request.id == request_id:
                self._end(sequence, 'cancelled', 3003, 'Cancelled.')
                return
        for item in self._waiting:
            if item[0].id == request_id:
                self._waiting.remove(item)
                self._refuse(*item, 'cancelled', 3003, 'Cancelled.')
                return

    def busy(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self._running or self._waiting or self._ended)

    def counts(self) -> tuple[int, int]:
        """Running and waiting requests."""
        return len(self._running), len(self._waiting)

    def step(self) -> list[Piece | Result]:
        """Decode one batch; [] when there was nothing to do."""
        self._expire()
        self._admit()
        if self._running:
            group = self._next_group()
            self._use(group[0].request.adapter)
            decoded = self._decode(group)
            for sequence, row in decoded:
                try:
                    self._advance(sequence, row)
                except EngineError as error:
                    self._end(sequence, 'error', error.code, str(error))
        out, self._ended = self._ended, []
        return out

    def _expire(self) -> None:
        now = time.monotonic()
        for sequence in [one for one in self._running if 0 < one.request.deadline <= now]:
            self._end(sequence, 'timeout', 3001, 'The deadline passed while the answer was generated.')
        for item in [one for one in self._waiting if 0 < one[0].deadline <= now]:
            self._waiting.remove(item)
            self._refuse(*item, 'timeout', 3001, 'The deadline passed before the request had its turn.')

    def _admit(self) -> None:
        reserved = sum(one.prompt_tokens + one.request.max_tokens for one in self._running)
        for item in sorted(self._waiting, key=lambda one: (-one[0].priority, one[2])):
            request, tokens, arrived = item
            need = min(len(tokens) + request.max_tokens, self._context_tokens)
            if not self._free or reserved + need > self._context_tokens:
                break
            reserved += need
            self._waiting.remove(item)
            sampler = Sampler(request.sampling)
            self._running.append(_Sequence(
                request, self._free.pop(), tokens, len(tokens), sampler, AnswerText(request.stop),
                self._grammars.matcher(request), arrived, time.monotonic()))

    def _next_group(self) -> list[_Sequence]:
        """The sequences of the adapter whose turn it is: highest priority, then longest unserved."""
        groups: dict[str, list[_Sequence]] = {}
        for sequence in self._running:
            groups.setdefault(sequence.request.adapter, []).append(sequence)
        self._turn += 1
        adapter = min(groups, key=lambda key: (
            -max(one.request.priority for one in groups[key]), self._served.get(key, 0)))
        self._served[adapter] = self._turn
        return groups[adapter]

    def _use(self, adapter: str) -> None:
        if adapter == self._active:
            return
        count = 1 if adapter else 0
        handles = (llama.llama_adapter_lora_p_ctypes * 1)()
        scales = (ctypes.c_float * 1)()
        if adapter:
            handles[0], scales[0] = self._adapters[adapter]
        if llama.llama_set_adapters_lora(self._context, handles, count, scales):
            raise EngineError(f'Adapter {adapter} cannot be applied to this base.', 3000)
        self._active = adapter

    def _decode(self, group: list[_Sequence]) -> list[tuple[_Sequence, int]]:
        """Decode what is pending; returns the sequences whose logits are there, with their row."""
        batch, used, chunk, ready = self._batch, 0, CHUNK_TOKENS, []
        for sequence in sorted(group, key=lambda one: len(one.pending)):
            take = min(len(sequence.pending), max(1, chunk))
            chunk -= take if take > 1 else 0
            tokens, sequence.pending = sequence.pending[:take], sequence.pending[take:]
            for token in tokens:
                batch.token[used], batch.pos[used] = token, sequence.past
                batch.n_seq_id[used], batch.seq_id[used][0], batch.logits[used] = 1, sequence.slot, 0
                sequence.past += 1
                used += 1
            if not sequence.pending:
                batch.logits[used - 1] = 1
                ready.append((sequence, used - 1))
        batch.n_tokens = used
        code = llama.llama_decode(self._context, batch)
        if code:
            for sequence in group:
                self._end(sequence, 'error', 3000, f'llama.cpp could not decode (code {code}).')
            return []
        return ready

    def _advance(self, sequence: _Sequence, row: int) -> None:
        """Draw the next token of a sequence and everything that follows from it."""
        pointer = llama.llama_get_logits_ith(self._context, row)
        logits: NDArray[np.float32] = np.ctypeslib.as_array(pointer, shape=(self._size,)).copy()
        if sequence.request.sampling.ignore_eos:
            logits[llama.llama_vocab_eos(self._vocabulary)] = -np.inf
        if sequence.matcher:
            sequence.matcher.apply(logits)
        token = sequence.sampler.draw(logits)
        if not sequence.first:
            sequence.first = time.monotonic()
        fresh = [token]
        if not llama.llama_vocab_is_eog(self._vocabulary, token) and sequence.matcher:
            sequence.matcher.accept(token)
            fresh += sequence.matcher.forced()
        for one in fresh:
            if llama.llama_vocab_is_eog(self._vocabulary, one):
                self._end(sequence, 'stop')
                return
            sequence.tokens.append(one)
            sequence.sampler.accept(one)
            text = sequence.text.add(self._piece(one))
            if text:
                self._ended.append(Piece(sequence.request.id, text, one))
            if sequence.text.stopped:
                self._end(sequence, 'stop')
                return
            if len(sequence.tokens) >= sequence.request.max_tokens:
                self._end(sequence, 'length')
                return
        if sequence.matcher and sequence.matcher.done:
            self._end(sequence, 'stop')
            return
        if sequence.past + len(fresh) >= min(sequence.request.max_seq_len, self._context_tokens):
            self._end(sequence, 'length')
            return
        sequence.pending = fresh

    def _end(self, sequence: _Sequence, reason: str, code: int = 0, message: str = '') -> None:
        if tail := sequence.text.finish():
            self._ended.append(Piece(sequence.request.id, tail, -1))
        now = time.monotonic()
        first = sequence.first or now
        self._ended.append(Result(
            sequence.request.id, sequence.text.text, tuple(sequence.tokens), reason, sequence.prompt_tokens,
            queue_s=sequence.started - sequence.arrived, prefill_s=first - sequence.started,
            first_token_s=first - sequence.arrived, decode_s=now - first, total_s=now - sequence.arrived,
            error_code=code, error_msg=message))
        self._running.remove(sequence)
        self._free.append(sequence.slot)
        llama.llama_memory_seq_rm(self._memory, sequence.slot, -1, -1)

    def _refuse(self, request: Request, tokens: list[int], arrived: float, reason: str, code: int,
                message: str) -> None:
        waited = time.monotonic() - arrived
        self._ended.append(Result(request.id, '', (), reason, len(tokens), queue_s=waited, total_s=waited,
                                  error_code=code, error_msg=message))

    def _prompt(self, request: Request) -> list[int]:
        """Tokens of the chat template with the messages in it; control tokens in messages stay text."""
        marks = [f'\x02{index}\x03' for index in range(len(request.messages))]
        rendered = self._template.render(
            messages=[{'role': role, 'content': mark}
                      for (role, _content), mark in zip(request.messages, marks, strict=True)],
            add_generation_prompt=True)
        tokens: list[int] = []
        for mark, (_role, content) in zip(marks, request.messages, strict=True):
            before, found, rendered = rendered.partition(mark)
            tokens += self.tokenize(before, special=True)
            if found:
                tokens += self.tokenize(content)
        return tokens + self.tokenize(rendered, special=True)

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text; control tokens in it are text unless special."""
        data = text.encode()
        room = len(data) + 8
        buffer = (ctypes.c_int32 * room)()
        count = llama.llama_tokenize(self._vocabulary, data, len(data), buffer, room, False, special)
        return list(buffer[:max(0, count)])

    def detokenize(self, tokens: list[int]) -> str:
        """Text of tokens; raises EngineError for a token that is none."""
        if any(not 0 <= token < self._size for token in tokens):
            raise EngineError(f'Tokens must be 0..{self._size - 1}.')
        return b''.join(self._piece(token) for token in tokens).decode(errors='replace')

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        length = llama.llama_token_to_piece(self._vocabulary, token, buffer, 256, 0, False)
        return buffer.raw[:max(0, length)]

    def _read_metadata(self) -> dict[str, str]:
        buffer, found = ctypes.create_string_buffer(1 << 16), {}
        for index in range(llama.llama_model_meta_count(self._model)):
            llama.llama_model_meta_key_by_index(self._model, index, buffer, len(buffer))
            key = buffer.value.decode(errors='replace')
            llama.llama_model_meta_val_str_by_index(self._model, index, buffer, len(buffer))
            found[key] = buffer.value.decode(errors='replace')
        return found

    def metadata(self) -> dict[str, str]:
        """Keys and values of the model file, with n_ctx as loaded."""
        return {**self._metadata, 'n_ctx': str(self._context_tokens), 'vocabulary_size': str(self._size),
                'parameter_count': str(llama.llama_model_n_params(self._model))}

    def close(self) -> None:
        """Free everything."""
        llama.llama_batch_free(self._batch)
        llama.llama_free(self._context)
        llama.llama_model_free(self._model)


_CHATML = ("{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
           "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
