"""Held-out score of an adapter as it is served: quantised base, GGUF adapter, llama.cpp, greedy."""

from __future__ import annotations

import ctypes
import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray

from moe_training.chat import TokenRow
from moe_training.dataset import Example
from moe_training.errors import TrainingError
from moe_training.quantization import silence_log
from moe_training.scratch import CHAT_TEMPLATE

ANSWER_TOKENS = 96
CONTEXT_TOKENS = 1024


@dataclass(frozen=True)
class Score:
    """Shares 0..1 over the rows: the exact answer, and the mean overlap of words (F1)."""

    exact: float
    f1: float
    rows: int
    samples: tuple[tuple[str, str], ...]


def word_f1(answer: str, expected: str) -> float:
    """Harmonic mean of precision and recall of words, as SQuAD scores answers (arXiv 1606.05250)."""
    found, wanted = Counter(answer.lower().split()), Counter(expected.lower().split())
    common = sum((found & wanted).values())
    return 2 * common / (found.total() + wanted.total()) if common else 0.0


def same(answer: str, expected: str) -> bool:
    """Equal text; JSON is compared by value."""
    try:
        return bool(json.loads(answer) == json.loads(expected))
    except ValueError:
        return answer.strip() == expected.strip()


def usable_threads() -> int:
    """OMP_NUM_THREADS where it is set, else the cores that this process may use."""
    return int(os.environ.get('OMP_NUM_THREADS') or 0) or len(os.sched_getaffinity(0))


class ServedModel:
    """The base with at most one adapter, for scoring; one sequence at a time.

    Raises TrainingError when a file cannot be loaded.
    """

    def __init__(self, base: Path, adapter: Path | None, threads: int = 0, context: int = CONTEXT_TOKENS) -> None:
        silence_log()
        llama.llama_backend_init()
        loading = llama.llama_model_default_params()
        # llama.cpp's AMX kernels, built with GCC, crash (ggml-org/llama.cpp#26954)
        loading.use_extra_bufts = False
        self._model = llama.llama_model_load_from_file(str(base).encode(), loading)
        settings = llama.llama_context_default_params()
        settings.n_ctx = settings.n_batch = context
        self._tokens = context
        settings.n_threads = settings.n_threads_batch = threads or usable_threads()
        self._context = llama.llama_init_from_model(self._model, settings) if self._model else None
        if not self._context:
            raise TrainingError(f'{base} cannot be loaded by llama.cpp.')
        self._vocabulary = llama.llama_model_get_vocab(self._model)
        self._size = llama.llama_vocab_n_tokens(self._vocabulary)
        if adapter is not None:
            handle = llama.llama_adapter_lora_init(self._model, str(adapter).encode())
            if not handle:
                raise TrainingError(f'{adapter} is no adapter for {base}.')
            handles = (llama.llama_adapter_lora_p_ctypes * 1)(handle)
            llama.llama_set_adapters_lora(self._context, handles, 1, (ctypes.c_float * 1)(1.0))

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Tokens of a text; control tokens in it are text, unless `special`."""
        data = text.encode()
        buffer = (ctypes.c_int32 * (len(data) + 8))()
        count = llama.llama_tokenize(self._vocabulary, data, len(data), buffer, len(buffer), False, special)
        return list(buffer[:max(0, count)])

    def prompt(self, example: Example) -> list[int]:
        """Tokens of a conversation up to the assistant's header, by the chat template in the file.

        A text has its first character as prompt. The template runs in a sandbox.
        """
        if not example.messages:
            return self.tokenize(example.completion[:1])
        template = llama.llama_model_chat_template(self._model, None)
        text = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
            template.decode() if template else CHAT_TEMPLATE).render(
            messages=[{'role': role, 'content': content} for role, content in example.messages],
            add_generation_prompt=True, bos_token='', eos_token='')
        return self.tokenize(text, special=True)

    def _decode(self, batch: Any) -> None:
        if llama.llama_decode(self._context, batch):
            raise TrainingError('llama.cpp could not decode; a row may be longer than its context of '
                                f'{self._tokens} tokens.')

    def _clear(self) -> None:
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)

    def _logits(self, row: int) -> NDArray[np.float32]:
        return np.ctypeslib.as_array(llama.llama_get_logits_ith(self._context, row), shape=(self._size,))

    def greedy(self, prompt: list[int], limit: int = ANSWER_TOKENS, *, stop: bool = True) -> list[int]:
        """Tokens of the greedy answer, without the one that ends it; `stop` False goes on behind that one."""
        self._clear()
        tokens, out = list(prompt), []
        for _ in range(min(limit, self._tokens - len(prompt))):
            buffer = (ctypes.c_int32 * len(tokens))(*tokens)
            self._decode(llama.llama_batch_get_one(buffer, len(tokens)))
            token = int(self._logits(-1).argmax())
            if stop and llama.llama_vocab_is_eog(self._vocabulary, token):
                break
            out.append(token)
            tokens = [token]
        return out

    def answer(self, prompt: list[int], limit: int = ANSWER_TOKENS) -> str:
        """Greedy answer to a prompt of token ids."""
        return self.text(self.greedy(prompt, limit))

    def text(self, tokens: list[int]) -> str:
        """Text of tokens; control tokens have none."""
        out = b''
        for token in tokens:
            piece = ctypes.create_string_buffer(256)
            length = llama.llama_token_to_piece(self._vocabulary, token, piece, len(piece), 0, False)
            out += piece.raw[:max(0, length)]
        return out.decode(errors='replace')

    def rate(self, prompt: list[int], tokens: int = 32) -> float:
        """Decoding speed behind a prompt [tokens/s], the prompt's own time taken off."""
        begin = time.monotonic()
        self.greedy(prompt, 1, stop=False)
        first = time.monotonic()
        made = len(self.greedy(prompt, 1 + tokens, stop=False)) - 1
        return made / max(1e-9, time.monotonic() - first - (first - begin))

    def answer_nats(self, row: TokenRow) -> float:
        """Negative log-likelihood of a row's answer, summed over its tokens [nats]."""
        self._clear()
        tokens = row.prompt + row.answer
        batch = llama.llama_batch_init(len(tokens), 0, 1)
        try:
            for index, token in enumerate(tokens):
                batch.token[index], batch.pos[index], batch.n_seq_id[index] = token, index, 1
                batch.seq_id[index][0], batch.logits[index] = 0, index >= len(row.prompt) - 1
            batch.n_tokens = len(tokens)
            self._decode(batch)
        finally:
            llama.llama_batch_free(batch)
        total = 0.0
        for index, token in enumerate(row.answer):
            logits = self._logits(len(row.prompt) - 1 + index).astype(np.float64)
            peak = logits.max()
            total += float(peak + np.log(np.exp(logits - peak).sum()) - logits[token])
        return total

    def close(self) -> None:
        """Free the model."""
        llama.llama_free(self._context)
        llama.llama_model_free(self._model)


def score(model: ServedModel, rows: list[TokenRow], asked: list[Example]) -> Score:
    """Ask every row and compare with the examples they were made of."""
    answers = [model.answer(row.prompt) for row in rows]
    expected = [example.completion for example in asked]
    count = max(1, len(rows))
    return Score(
        sum(map(same, answers, expected)) / count, sum(map(word_f1, answers, expected)) / count, len(rows),
        tuple((example.prompt, answer) for example, answer in zip(asked, answers, strict=True)))


def mean_nats(model: ServedModel, rows: list[TokenRow]) -> float:
    """Loss of the answers [nats/token]."""
    return sum(map(model.answer_nats, rows)) / max(1, sum(len(row.answer) for row in rows))
