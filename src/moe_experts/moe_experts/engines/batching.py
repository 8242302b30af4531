"""Continuous batching of one base and its adapters, over any runtime.

Each step decodes one adapter's sequences: the next token of every running one and a chunk of the prompts that
wait (a runtime applies one adapter set per decode). Groups take turns, urgent requests first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moe_experts.engines.chat import ChatTemplate
from moe_experts.engines.engine import EngineError, EngineSettings, Messages, Piece, Request, Result
from moe_experts.engines.grammar import GrammarCompiler
from moe_experts.engines.prefix_cache import Owner, PrefixCache
from moe_experts.engines.runtime import Run, Runtime
from moe_experts.engines.sequence import Sequence

CHUNK_TOKENS = 256  # of prompts per step, so that running answers wait at most ~0.3 s
SCORED_TOKENS = 64  # per decode: their logits are 0.2 MB each with 49 k words
KEPT_SEQUENCES = 16


@dataclass
class _Adapter:
    """A loaded adapter; the revision changes with everything that changes what it computes."""

    scale: float
    revision: int


class BatchingEngine:
    """The Engine over a runtime, which it owns. A runtime has settings.slots + KEPT_SEQUENCES + 1 slots."""

    def __init__(self, runtime: Runtime, settings: EngineSettings) -> None:
        self._runtime, self._settings = runtime, settings
        self._chat = ChatTemplate(runtime.chat_template, runtime.special_texts,
                                  lambda text, special: runtime.tokenize(text, special=special))
        self._grammars = GrammarCompiler(runtime.grammar_tokenizer, runtime.vocabulary_size)
        # one slot more than can run and be kept: there is always a free one to copy a prefix into
        self._free = list(range(settings.slots + KEPT_SEQUENCES + 1))
        self._kept = PrefixCache(KEPT_SEQUENCES, min(settings.kept_tokens, runtime.context_tokens))
        self._running: list[Sequence] = []
        self._waiting: list[Sequence] = []
        self._ended: list[Piece | Result] = []
        self._adapters: dict[str, _Adapter] = {'': _Adapter(1.0, 0)}
        self._revision = 0
        self._served: dict[str, int] = {}
        self._turn = 0

    def load_adapter(self, key: str, path: Path, scale: float) -> None:
        """Load a LoRA adapter; raises EngineError (1001)."""
        self._runtime.load_adapter(key, path)
        self._revision += 1
        self._adapters[key] = _Adapter(scale, self._revision)

    def unload_adapter(self, key: str) -> None:
        """Free an adapter; requests that use it end with an error."""
        if not key or key not in self._adapters:
            return
        for sequence in [one for one in [*self._running, *self._waiting] if one.request.adapter == key]:
            self._end(sequence, 'error', 1001, f'The expert was unloaded ({key}).')
        self.clear_cache(key)
        self._served.pop(key, None)
        del self._adapters[key]
        self._runtime.unload_adapter(key)

    def scale_adapter(self, key: str, scale: float) -> None:
        """Apply an adapter with another scale from now on; raises EngineError (1001)."""
        self._owner(key)
        self.clear_cache(key)
        self._revision += 1
        self._adapters[key] = _Adapter(scale, self._revision)

    def clear_cache(self, adapter: str | None = None) -> int:
        """Forget what finished sequences left, of one adapter or of all (None); returns how many."""
        slots = self._kept.forget(adapter)
        self._release(slots)
        return len(slots)

    def submit(self, request: Request) -> None:
        """Queue a request; raises EngineError (1001, 3002, 3004)."""
        request.sampling.check()
        self._owner(request.adapter)
        if len(self._waiting) >= self._settings.queue_limit:
            raise EngineError(f'{len(self._waiting)} requests wait already; try again later.', 3002, 1.0)
        tokens = self._chat.tokens(request.messages)
        limit = min(request.max_seq_len, self._runtime.sequence_tokens)
        if len(tokens) >= limit and request.truncate:
            room = max(1, limit - min(request.max_tokens, limit // 2))
            head = 0 if request.truncate == 'left' else room // 2
            tokens = tokens[:head] + tokens[len(tokens) - (room - head):]
        if len(tokens) >= limit:
            raise EngineError(f'The prompt has {len(tokens)} tokens; prompt and answer together may have {limit}. '
                              'Shorten it or set truncate.')
        self._waiting.append(Sequence(request, tokens, self._grammars.matcher(request), limit))

    def cancel(self, request_id: str) -> None:
        """End a request within one step."""
        for sequence in [one for one in [*self._running, *self._waiting] if one.request.id == request_id]:
            self._end(sequence, 'cancelled', 3003, 'Cancelled.')

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
            self._decode(self._next_group())
        out, self._ended = self._ended, []
        return out

    def _expire(self) -> None:
        now = time.monotonic()
        for sequence in [one for one in [*self._running, *self._waiting] if 0 < one.request.deadline <= now]:
            when = 'while the answer was generated' if sequence.slot >= 0 else 'before the request had its turn'
            self._end(sequence, 'timeout', 3001, f'The deadline passed {when}.')

    def _admit(self) -> None:
        for sequence in sorted(self._waiting, key=lambda one: (-one.request.priority, one.arrived)):
            room = self._reserved() + sequence.room
            if len(self._running) >= self._settings.slots or room > self._runtime.context_tokens:
                break
            owner = self._owner(sequence.request.adapter)
            slot, cached = self._claim(owner, sequence.prompt, room)
            sequence.place(slot, owner, cached)
            self._waiting.remove(sequence)
            self._running.append(sequence)

    def _owner(self, adapter: str) -> Owner:
        if adapter not in self._adapters:
            raise EngineError(f'Adapter {adapter} is not loaded.', 1001)
        return adapter, self._adapters[adapter].revision

    def _reserved(self) -> int:
        return sum(one.room for one in self._running)

    def _claim(self, owner: Owner, prompt: list[int], reserved: int) -> tuple[int, int]:
        """A slot that begins with what is known of the prompt, and how much that is; leaves `reserved` cells."""
        source, cached = self._kept.find(owner, prompt[:-1])  # the last token is decoded anew: it gives the logits
        slot = self._free.pop()
        if cached:
            self._runtime.copy(source, slot, cached)
        self._release(self._kept.shrink(self._runtime.context_tokens - reserved))
        return slot, cached

    def _leave(self, owner: Owner, tokens: list[int], slot: int) -> None:
        """Keep what a slot holds for later prompts, or free it."""
        current = self._adapters.get(owner[0])
        if self._settings.use_kv_cache and current is not None and current.revision == owner[1]:
            self._release(self._kept.keep(owner, tokens, slot))
        else:
            self._release([slot])

    def _release(self, slots: list[int]) -> None:
        for slot in slots:
            self._runtime.cut(slot, 0)
            self._free.append(slot)

    def _next_group(self) -> list[Sequence]:
        """The sequences of the adapter whose turn it is: highest priority, then longest unserved."""
        groups: dict[str, list[Sequence]] = {}
        for sequence in self._running:
            groups.setdefault(sequence.request.adapter, []).append(sequence)
        self._turn += 1
        adapter = min(groups, key=lambda key: (
            -max(one.request.priority for one in groups[key]), self._served.get(key, 0)))
        self._served[adapter] = self._turn
        return groups[adapter]

    def _decode(self, group: list[Sequence]) -> None:
        """Decode what is pending, at most a chunk of prompts, and advance the sequences that have logits then."""
        chunk, runs, sequences = CHUNK_TOKENS, [], []
        for sequence in sorted(group, key=lambda one: len(one.pending)):
            position = len(sequence.decoded)
            tokens = sequence.take(1 if len(sequence.pending) == 1 else chunk)
            if tokens:
                chunk -= len(tokens) if len(tokens) > 1 else 0
                runs.append(Run(sequence.slot, position, tokens, 0 if sequence.pending else 1))
                sequences.append(sequence)
        adapter = group[0].request.adapter
        try:
            logits = self._runtime.decode(adapter, self._adapters[adapter].scale, runs)
        except EngineError as error:
            for sequence in sequences:
                sequence.decoded = []  # nobody knows what is in the cells
                self._end(sequence, 'error', error.code, str(error))
            return
        for sequence, rows in zip(sequences, logits, strict=True):
            if len(rows):
                self._advance(sequence, rows[-1])

    def _advance(self, sequence: Sequence, logits: NDArray[np.float32]) -> None:
        try:
            pieces, reason = sequence.advance(logits, self._runtime)
        except EngineError as error:
            self._end(sequence, 'error', error.code, str(error))
            return
        self._ended += pieces
        if reason:
            self._end(sequence, reason)

    def _end(self, sequence: Sequence, reason: str, code: int = 0, message: str = '') -> None:
        self._ended += sequence.finish(reason, code, message)
        if sequence.slot < 0:
            self._waiting.remove(sequence)
        else:
            self._running.remove(sequence)
            self._leave(sequence.owner, sequence.decoded, sequence.slot)

    def score(self, messages: Messages, texts: list[str], adapter: str = '') -> list[list[float]]:
        """Log-likelihood [nats] of every token of each text as the answer; raises EngineError (1001, 3002, 3004)."""
        answers = [self._runtime.tokenize(text) for text in texts]
        prompt = self._chat.tokens(messages)
        with self._borrow(adapter, prompt, max(map(len, answers), default=0)) as (slot, first):
            return [self._score(adapter, slot, len(prompt), first, answer) for answer in answers]

    def _score(self, adapter: str, slot: int, start: int, first: NDArray[np.float32], answer: list[int]) -> list[float]:
        """Log-likelihoods of an answer after `start` cells; `first` are the logits of its first token."""
        found, logits = [], first.reshape(1, -1)
        for begin in range(0, len(answer), SCORED_TOKENS):
            tokens = answer[begin:begin + SCORED_TOKENS]
            run = Run(slot, start + begin, tokens, len(tokens))
            logits = np.concatenate((logits[-1:], self._decode_one(adapter, run)))
            found += [float(_log_softmax(row)[token]) for row, token in zip(logits, tokens, strict=False)]
        self._runtime.cut(slot, start)
        return found

    def distribution(self, messages: Messages, count: int, adapter: str = '') -> list[tuple[int, float]]:
        """The most probable first tokens of an answer and their probabilities; raises EngineError as score()."""
        with self._borrow(adapter, self._chat.tokens(messages), 0) as (_slot, logits):
            best = np.argsort(-logits, kind='stable')[:count]
            return [(int(token), float(value)) for token, value in
                    zip(best, np.exp(_log_softmax(logits)[best]), strict=True)]

    def embed(self, text: str, adapter: str = '') -> tuple[list[float], int]:
        """Mean of the last hidden states (width,) and the number of tokens; raises EngineError as score()."""
        tokens = self._runtime.tokenize(text)
        if not tokens:
            raise EngineError('The text is empty; there is nothing to embed.')
        self._owner(adapter)
        self._make_room(len(tokens))
        slot = self._free.pop()
        try:
            states = self._runtime.hidden_states(adapter, self._adapters[adapter].scale, slot, tokens)
        finally:
            self._release([slot])
        return [float(value) for value in states.mean(axis=0)], len(tokens)

    @contextmanager
    def _borrow(self, adapter: str, prompt: list[int], more: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Decode a prompt at once in a slot with room for `more` tokens; yields slot and logits (vocabulary,)."""
        owner = self._owner(adapter)
        self._make_room(len(prompt) + more)
        slot, cached = self._claim(owner, prompt, self._reserved() + len(prompt) + more)
        known: list[int] = []
        try:
            for begin in range(cached, len(prompt), CHUNK_TOKENS):
                logits = self._decode_one(adapter, Run(slot, begin, prompt[begin:begin + CHUNK_TOKENS], 1))
            yield slot, logits[-1]
            known = prompt
        finally:
            self._leave(owner, known, slot)

    def _decode_one(self, adapter: str, run: Run) -> NDArray[np.float32]:
        return self._runtime.decode(adapter, self._adapters[adapter].scale, [run])[0]

    def _make_room(self, tokens: int) -> None:
        """Free cells of kept sequences; raises EngineError (3002, 3004) where that is not enough."""
        if tokens > self._runtime.sequence_tokens:
            raise EngineError(f'The text has {tokens} tokens; the context holds {self._runtime.sequence_tokens}. '
                              'Shorten it.')
        left = self._runtime.context_tokens - self._reserved() - tokens
        if left < 0:
            raise EngineError(f'{len(self._running)} requests fill the context; try again later.', 3002, 1.0)
        self._release(self._kept.shrink(left))

    def tokenize(self, text: str, *, special: bool = False, ends: bool = False) -> list[int]:
        """Tokens of a text; control tokens in it are text unless special. `ends` adds BOS and EOS as the model does."""
        return self._runtime.tokenize(text, special=special, ends=ends)

    def detokenize(self, tokens: list[int]) -> str:
        """Text of tokens; raises EngineError (3004) for a token that is none."""
        if any(not 0 <= token < self._runtime.vocabulary_size for token in tokens):
            raise EngineError(f'Tokens must be 0..{self._runtime.vocabulary_size - 1}.')
        return b''.join(map(self._runtime.piece, tokens)).decode(errors='replace')

    def metadata(self) -> dict[str, str]:
        """Keys and values of the model's file, named as GGUF names them, with n_ctx as loaded."""
        return self._runtime.metadata()

    def close(self) -> None:
        """Free everything."""
        self._runtime.close()


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()), dtype=np.float64)
