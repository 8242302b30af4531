"""Continuous batching of one base and its adapters, over any runtime.

Each step decodes one adapter's sequences: the next token of every running one and a chunk of the prompts that
wait (a runtime applies one adapter set per decode). Groups take turns of a few steps, urgent requests first.
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
from moe_experts.engines.engine import EngineError, EngineSettings, Messages, Part, Piece, Request, Result
from moe_experts.engines.grammar import GrammarCompiler
from moe_experts.engines.guesses import Guesses
from moe_experts.engines.mixture import log_softmax
from moe_experts.engines.pace import Pace
from moe_experts.engines.prefix_cache import Owner, common_length
from moe_experts.engines.runtime import NoRoomError, Run, Runtime
from moe_experts.engines.sequence import Branch, Sequence, check_mixture
from moe_experts.engines.slots import Holder, Slots

SCORED_TOKENS = 64  # per decode: their logits are 0.2 MB each with 49 k words
CERTAINLY = 0.5  # a deadline is refused before its time only where twice the measured speed would miss it
QUANTUM_STEPS = 4  # of one adapter in a row: a switch costs half as much as a step
GUESSING = 2  # sequences at most while answers are guessed: in company a guess costs more than the steps that it saves
WORTH_WAITING_TOKENS = 32  # of a prompt that a neighbour is decoding right now: a step's patience saves them
Group = tuple[str, float]  # an adapter and the scale of its requests


@dataclass
class _Adapter:
    """A loaded adapter; the revision changes with everything that changes what it computes."""

    scale: float
    revision: int


class BatchingEngine:
    """The Engine over a runtime, which it owns; slots_needed(settings.slots) says how many slots that has."""

    def __init__(self, runtime: Runtime, settings: EngineSettings) -> None:
        self._runtime, self._settings = runtime, settings
        self._chat = ChatTemplate(runtime.chat_template, runtime.special_texts,
                                  lambda text, special: runtime.tokenize(text, special=special))
        self._grammars = GrammarCompiler(runtime.grammar_tokenizer, runtime.vocabulary_size)
        self._slots = Slots(runtime, settings.slots, settings.kept_bytes if settings.use_kv_cache else 0)
        self._running: list[Sequence] = []
        self._waiting: list[Sequence] = []
        self._ended: list[Piece | Result] = []
        self._adapters: dict[str, _Adapter] = {'': _Adapter(1.0, 0)}
        self._revision = 0
        self._served: dict[Group, int] = {}
        self._turn = 0
        self._current: tuple[Group, int] = (('', 0.0), 0)  # whose turn it is, and for how many steps already
        self._pace = Pace()
        self._guesses = Guesses(lambda token: runtime.piece(token).strip().isdigit())

    def load_adapter(self, key: str, path: Path, scale: float) -> None:
        """Load a LoRA adapter; raises EngineError (1001)."""
        self._runtime.load_adapter(key, path)
        self._revision += 1
        self._adapters[key] = _Adapter(scale, self._revision)

    def unload_adapter(self, key: str) -> None:
        """Free an adapter; requests that use it end with an error."""
        if not key or key not in self._adapters:
            return
        for sequence in [one for one in [*self._running, *self._waiting]
                         if key in {branch.adapter for branch in one.branches}]:
            self._end(sequence, 'error', 1001, f'The expert was unloaded ({key}).')
        self.clear_cache(key)
        self._served = {group: turn for group, turn in self._served.items() if group[0] != key}
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
        self._guesses.forget(adapter)
        return self._slots.forget(adapter)

    def submit(self, request: Request) -> None:
        """Queue a request; raises EngineError (1001, 3002, 3004)."""
        request.sampling.check()
        check_mixture(request)
        parts = request.mixture or (Part(request.adapter, 1.0, request.messages, request.scale),)
        for part in parts:
            if not np.isfinite(part.scale):
                raise EngineError(f'The scale of the adapter is {part.scale}; it must be a finite number.')
            self._owner(part.adapter)
        if len(parts) > self._settings.slots:
            raise EngineError(f'A mixture of {len(parts)} experts is more than the {self._settings.slots} sequences '
                              'that run at once.')
        if len(self._waiting) >= self._settings.queue_limit:
            raise EngineError(f'{len(self._waiting)} requests wait already; try again later.', 3002,
                              self._pace.clearing_s(len(self._waiting), self._settings.slots))
        limit = min(request.max_seq_len, self._runtime.sequence_tokens)
        branches = [Branch(part.adapter, part.scale, self._prompt(part.messages, request, limit)) for part in parts]
        if sum(min(len(one.prompt) + request.max_tokens, limit) for one in branches) > self._runtime.context_tokens:
            raise EngineError(f'A mixture of {len(parts)} such answers does not fit into the context of '
                              f'{self._runtime.context_tokens} tokens; lower max_tokens.')
        self._waiting.append(Sequence(request, branches, self._grammars.matcher(request), limit))

    def _prompt(self, messages: Messages, request: Request, limit: int) -> list[int]:
        tokens = self._chat.tokens(messages)
        if len(tokens) >= limit and request.truncate:
            room = max(1, limit - min(request.max_tokens, limit // 2))
            head = 0 if request.truncate == 'left' else room // 2
            tokens = tokens[:head] + tokens[len(tokens) - (room - head):]
        if len(tokens) >= limit:
            raise EngineError(f'The prompt has {len(tokens)} tokens; prompt and answer together may have {limit}. '
                              'Shorten it or set truncate.')
        return tokens

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
        now = time.monotonic()
        self._expire(now)
        self._admit(now)
        if self._running:
            self._decode(self._next_group())
        out, self._ended = self._ended, []
        return out

    def _expire(self, now: float) -> None:
        for sequence in [one for one in [*self._running, *self._waiting] if one.request.deadline]:
            left = sequence.request.deadline - now
            if left <= 0:
                when = 'while the answer was generated' if sequence.admitted else 'before the request had its turn'
                self._end(sequence, 'timeout', 3001, f'The deadline passed {when}.')
            elif not sequence.admitted and left < CERTAINLY * (needed := self._prompt_s(sequence)):
                self._end(sequence, 'timeout', 3001, f'The deadline is in {left:.2f} s, and the prompt alone takes '
                                                     f'about {needed:.2f} s.')

    def _prompt_s(self, sequence: Sequence) -> float:
        return self._pace.prompt_s(sum(len(branch.prompt) - self._known(branch) for branch in sequence.branches))

    def _admit(self, now: float) -> None:
        """Give places in the batch to the most urgent; the least urgent that run make room for them."""
        order = sorted(self._waiting, key=lambda one: (
            -one.urgency(now), one.request.deadline or float('inf'), one.queued))
        for sequence in order:
            urgency = sequence.urgency(now)
            while not (enough := self._has_slots(sequence)) or not self._has_cells(sequence):
                lower = [one for one in self._running if one.standing < urgency
                         and one.request.priority < sequence.request.priority]
                if not lower:
                    return
                self._preempt(min(lower, key=lambda one: (one.standing, -one.arrived)), now)
            if enough and not self._soon_shared(sequence):
                self._place(sequence, now, urgency)

    def _has_slots(self, sequence: Sequence) -> bool:
        return sum(len(one.branches) for one in self._running) + len(sequence.branches) <= self._settings.slots

    def _has_cells(self, sequence: Sequence) -> bool:
        # what a prompt shares needs no cells of its own
        shared = sum(max((common_length(tokens, branch.prompt) for _slot, tokens in self._holders(
            self._owner(branch.adapter, branch.scale))), default=0)
            for branch in sequence.branches if branch.state is None) if self._settings.use_kv_cache else 0
        return self._reserved() + sequence.room - shared <= self._runtime.context_tokens

    def _soon_shared(self, sequence: Sequence) -> bool:
        """Whether a neighbour is just decoding what this prompt begins with."""
        if sequence.branches[0].state is not None or not self._settings.use_kv_cache:
            return False
        for branch in sequence.branches:
            known = self._known(branch)
            for other in self._branches(self._owner(branch.adapter, branch.scale)):
                if len(other.decoded) < len(other.prompt) and common_length(
                        other.prompt, branch.prompt) - max(known, len(other.decoded)) >= WORTH_WAITING_TOKENS:
                    return True
        return False

    def _branches(self, owner: Owner) -> list[Branch]:
        return [branch for one in self._running for branch in one.branches if branch.owner == owner]

    def _holders(self, owner: Owner) -> list[Holder]:
        return [(branch.slot, branch.decoded) for branch in self._branches(owner)]

    def _known(self, branch: Branch) -> int:
        owner = self._owner(branch.adapter, branch.scale)
        return self._slots.known(owner, branch.prompt, self._holders(owner))

    def _place(self, sequence: Sequence, now: float, urgency: float) -> None:
        """Give every branch its slot; where the cache has no room for that, the sequence goes on waiting."""
        began = sequence.branches[0].state is None
        try:
            for branch in sequence.branches:
                owner = self._owner(branch.adapter, branch.scale)
                if branch.state is None:
                    branch.slot, branch.cached, branch.shared = self._slots.claim(
                        owner, branch.prompt, self._holders(owner))
                else:
                    branch.slot = self._slots.resume(branch.state)
                branch.owner = owner
        except NoRoomError:
            for branch in sequence.branches:
                if branch.slot >= 0:
                    self._slots.free(branch.slot)
                    branch.slot, branch.owner = -1, ('', 0, 0.0)
                    branch.cached, branch.shared = (0, 0) if branch.state is None else (branch.cached, 0)
            return
        for branch in sequence.branches:
            branch.state = None
        self._waiting.remove(sequence)
        self._running.append(sequence)
        sequence.admitted, sequence.standing = True, urgency
        if began:
            sequence.begin(now, self._guess(sequence))

    def _guess(self, sequence: Sequence) -> list[int]:
        if sequence.kind is None or not self._settings.guess_answers or len(self._running) > GUESSING:
            return []
        return self._guesses.guess(sequence.kind, sequence.branches[0].prompt)

    def _preempt(self, sequence: Sequence, now: float) -> None:
        """Take a sequence out of the batch with all that it has computed; it goes on when its turn comes again."""
        self._running.remove(sequence)
        self._waiting.append(sequence)
        sequence.admitted, sequence.queued = False, now
        for branch in sequence.branches:
            branch.state = self._runtime.save(branch.slot)
            self._slots.free(branch.slot)
            branch.slot, branch.shared, branch.owner = -1, 0, ('', 0, 0.0)  # restored cells will be its own

    def _owner(self, adapter: str, scale: float = 1.0) -> Owner:
        if adapter not in self._adapters:
            raise EngineError(f'Adapter {adapter} is not loaded.', 1001)
        return adapter, self._adapters[adapter].revision, scale

    def _reserved(self) -> int:
        return sum(one.room for one in self._running)

    def _leave(self, owner: Owner, tokens: list[int], slot: int) -> None:
        """Keep what a slot holds for later prompts, where nothing has changed since it was computed."""
        current = self._adapters.get(owner[0])
        if current is not None and current.revision == owner[1]:
            self._slots.keep(owner, tokens, slot)
        else:
            self._slots.free(slot)

    def _next_group(self) -> list[tuple[Sequence, Branch]]:
        """What is pending of the adapter whose turn it is: priority, and a point more for each turn passed over."""
        groups: dict[Group, list[tuple[Sequence, Branch]]] = {}
        for sequence in self._running:
            for branch in sequence.branches:
                if branch.pending:
                    groups.setdefault((branch.adapter, branch.scale), []).append((sequence, branch))
        self._turn += 1
        urgency = {key: max(one.request.priority for one, _branch in groups[key]) for key in groups}
        chosen, steps = self._current
        if chosen not in groups or steps >= QUANTUM_STEPS or urgency[chosen] < max(urgency.values()):
            chosen, steps = max(groups, key=lambda key: (
                urgency[key] + self._turn - self._served.get(key, self._turn))), 0
        self._current = chosen, steps + 1
        self._served = {key: self._served.get(key, self._turn) for key in groups} | {chosen: self._turn}
        return groups[chosen]

    def _decode(self, group: list[tuple[Sequence, Branch]]) -> None:
        """Decode what is pending, at most a chunk of prompts, and advance the sequences that have logits then."""
        chunk, runs, decoded = self._pace.chunk_tokens(), [], []
        for sequence, branch in sorted(group, key=lambda one: (
                len(one[1].pending) > 1, -one[0].request.priority, one[0].arrived)):
            position = len(branch.decoded)
            tokens = branch.take(1 if len(branch.pending) == 1 else chunk)
            if tokens:
                chunk -= len(tokens) if len(tokens) > 1 else 0
                guess = [] if branch.pending else branch.guess
                runs.append(Run(branch.slot, position, tokens + guess, 0 if branch.pending else 1 + len(guess)))
                decoded.append((sequence, branch))
        adapter, scale = group[0][1].adapter, group[0][1].scale
        began = time.monotonic()
        try:
            logits = self._runtime.decode(adapter, self._adapters[adapter].scale * scale, runs)
        except NoRoomError:
            for (_sequence, branch), run in zip(decoded, runs, strict=True):
                branch.put_back(run.tokens[:len(branch.decoded) - run.position])
                branch.guess = []
            self._make_way()
            return
        except EngineError as error:
            for sequence in {id(one): one for one, _branch in decoded}.values():
                for branch in sequence.branches:
                    branch.decoded = []  # nobody knows what is in the cells
                self._end(sequence, 'error', error.code, str(error))
            return
        self._pace.stepped(sum(len(run.tokens) for run in runs if len(run.tokens) > 1), time.monotonic() - began)
        for (sequence, branch), rows in zip(decoded, logits, strict=True):
            if len(rows) > 1:
                self._verify(sequence, branch, rows)
            elif len(rows):
                branch.logits = rows[-1] if len(sequence.branches) == 1 else rows[-1].copy()
                if sequence.ready():
                    self._advance(sequence)

    def _verify(self, sequence: Sequence, branch: Branch, rows: NDArray[np.float32]) -> None:
        """Advance through a guess as far as what is drawn agrees; rows[i] are the logits behind i of its tokens."""
        guess, branch.guess, stood, reason = branch.guess, [], 0, ''
        try:
            while not reason:
                branch.logits = rows[stood]
                pieces, reason = sequence.advance(self._runtime)
                self._ended += pieces
                drawn = branch.pending
                if reason or guess[stood:stood + len(drawn)] != drawn:
                    break
                stood += len(branch.take(len(drawn)))
        except EngineError as error:
            self._runtime.cut(branch.slot, len(branch.decoded))
            self._end(sequence, 'error', error.code, str(error))
            return
        self._guesses.judge(sequence.kind, len(guess), stood)
        self._runtime.cut(branch.slot, len(branch.decoded))
        if reason:
            self._end(sequence, reason)

    def _make_way(self) -> None:
        """Free cells when the cache is full: the least urgent sequence's."""
        if len(self._running) > 1:
            self._preempt(min(self._running, key=lambda one: (one.standing, -one.arrived)), time.monotonic())
        else:
            self._end(self._running[0], 'error', 3002, str(NoRoomError()), 1.0)

    def _advance(self, sequence: Sequence) -> None:
        try:
            pieces, reason = sequence.advance(self._runtime)
        except EngineError as error:
            self._end(sequence, 'error', error.code, str(error))
            return
        self._ended += pieces
        if reason:
            self._end(sequence, reason)

    def _end(self, sequence: Sequence, reason: str, code: int = 0, message: str = '',
             retry_after_s: float = 0.0) -> None:
        found = sequence.finish(reason, code, message, retry_after_s)
        self._ended += found
        if not sequence.admitted:
            self._waiting.remove(sequence)
            return
        if isinstance(found[-1], Result):
            self._pace.answered(found[-1].total_s - found[-1].queue_s)
        self._running.remove(sequence)
        if reason == 'stop' and sequence.kind is not None:
            self._guesses.remember(sequence.kind, sequence.branches[0].prompt, sequence.tokens)
        for branch in sequence.branches:
            self._leave(branch.owner, branch.decoded, branch.slot)

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
            last = logits[-1:].copy()
            logits = np.concatenate((last, self._decode_one(adapter, run)))
            found += [float(row[token]) for row, token in zip(log_softmax(logits), tokens, strict=False)]
        self._runtime.cut(slot, start)
        return found

    def distribution(self, messages: Messages, count: int, adapter: str = '') -> list[tuple[int, float]]:
        """The most probable first tokens of an answer and their probabilities; raises EngineError as score()."""
        with self._borrow(adapter, self._chat.tokens(messages), 0) as (_slot, logits):
            best = np.argsort(-logits, kind='stable')[:count]
            return [(int(token), float(value)) for token, value in
                    zip(best, np.exp(log_softmax(logits)[best]), strict=True)]

    def embed(self, text: str, adapter: str = '') -> tuple[list[float], int]:
        """Mean of the last hidden states (width,) and the number of tokens; raises EngineError as score()."""
        tokens = self._runtime.tokenize(text)
        if not tokens:
            raise EngineError('The text is empty; there is nothing to embed.')
        self._owner(adapter)
        self._check_room(len(tokens))
        slot = self._slots.take()
        try:
            states = self._runtime.hidden_states(adapter, self._adapters[adapter].scale, slot, tokens)
        finally:
            self._slots.free(slot)
        return [float(value) for value in states.mean(axis=0)], len(tokens)

    @contextmanager
    def _borrow(self, adapter: str, prompt: list[int], more: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Decode a prompt at once in a slot with room for `more` tokens; yields slot and logits (vocabulary,)."""
        owner, wanted = self._owner(adapter), len(prompt) + more
        self._check_room(wanted)
        slot, cached, _shared = self._slots.claim(owner, prompt, self._holders(owner))
        known: list[int] = []
        try:
            chunk = self._pace.chunk_tokens()
            for begin in range(cached, len(prompt), chunk):
                logits = self._decode_one(adapter, Run(slot, begin, prompt[begin:begin + chunk], 1))
            yield slot, logits[-1].copy()
            known = prompt
        finally:
            self._leave(owner, known, slot)

    def _decode_one(self, adapter: str, run: Run) -> NDArray[np.float32]:
        return self._runtime.decode(adapter, self._adapters[adapter].scale, [run])[0]

    def _check_room(self, tokens: int) -> None:
        """Raise EngineError (3002, 3004) where so many cells are not free."""
        if tokens > self._runtime.sequence_tokens:
            raise EngineError(f'The text has {tokens} tokens; the context holds {self._runtime.sequence_tokens}. '
                              'Shorten it.')
        if self._reserved() + tokens > self._runtime.context_tokens:
            raise EngineError(f'{len(self._running)} requests fill the context; try again later.', 3002, 1.0)

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
