"""Continuous batching of one base and its adapters, over any runtime.

Each step decodes one adapter's sequences: the next token of every running one and a chunk of the prompts that wait. Who
runs is decided in places.py, whose adapter's turn it is in turns.py.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moe_experts.engines.adapters import Adapters
from moe_experts.engines.chat import ChatTemplate
from moe_experts.engines.engine import EngineError, EngineSettings, Messages, Part, Piece, Request, Result
from moe_experts.engines.grammar import GrammarCompiler
from moe_experts.engines.guesses import NO_GUESS, Guess, Guesses
from moe_experts.engines.pace import Pace
from moe_experts.engines.places import Places
from moe_experts.engines.runtime import InterruptedStepError, NoRoomError, Run, Runtime
from moe_experts.engines.scoring import Scoring
from moe_experts.engines.sequence import Branch, Sequence, check_mixture
from moe_experts.engines.slots import Slots
from moe_experts.engines.turns import Group, Turns

CERTAINLY = 0.5  # a deadline is refused before its time only where twice the measured speed would miss it
GUESSING = 2  # sequences at most while answers are guessed: in company a guess costs more than the steps that it saves
Pending = list[tuple[Sequence, Branch]]  # branches of one adapter that have tokens to decode
Taken = list[tuple[Sequence, Branch, list[int]]]  # and those of them that a step decodes


class BatchingEngine:
    """The Engine over a runtime, which it owns; slots_needed(settings.slots) says how many slots that has."""

    def __init__(self, runtime: Runtime, settings: EngineSettings) -> None:
        self._runtime, self._settings = runtime, settings
        self._chat = ChatTemplate(runtime.chat_template, runtime.special_texts,
                                  lambda text, special: runtime.tokenize(text, special=special))
        self._grammars = GrammarCompiler(runtime.grammar_tokenizer, runtime.vocabulary_size)
        self._adapters = Adapters(runtime)
        self._slots = Slots(runtime, settings.slots, settings.kept_bytes if settings.use_kv_cache else 0)
        self._places = Places(runtime, self._adapters, self._slots, settings)
        self._turns, self._pace = Turns(), Pace()
        self._guesses = Guesses(lambda token: runtime.piece(token).strip().isdigit())
        self._scoring = Scoring(runtime, self._adapters, self._slots, self._places, self._pace)
        self._ended: list[Piece | Result] = []
        self._alone = ''  # the request that a step is computing for, where it is one
        self._alone_lock = threading.Lock()  # what is interrupted is that step and none after it

    def load_adapter(self, key: str, path: Path, scale: float) -> None:
        """Load a LoRA adapter; raises EngineError (1001)."""
        self._adapters.load(key, path, scale)

    def unload_adapter(self, key: str) -> None:
        """Free an adapter; requests that use it end with an error."""
        if not key or key not in self._adapters:
            return
        for sequence in self._places.all():
            if key in {branch.adapter for branch in sequence.branches}:
                self._end(sequence, 'error', 1001, f'The expert was unloaded ({key}).')
        self.clear_cache(key)
        self._adapters.unload(key)

    def scale_adapter(self, key: str, scale: float) -> None:
        """Apply an adapter with another scale from now on; raises EngineError (1001)."""
        self._adapters.owner(key)
        self.clear_cache(key)
        self._adapters.rescale(key, scale)

    def clear_cache(self, adapter: str | None = None) -> int:
        """Forget what finished sequences left, of one adapter or of all (None); returns how many."""
        self._guesses.forget(adapter)
        return self._slots.forget(adapter)

    def submit(self, request: Request) -> None:
        """Queue a request; raises EngineError (1001, 3002, 3004)."""
        arrived = time.monotonic()  # its caller waits for the template and the tokens, too
        request.sampling.check()
        check_mixture(request)
        parts = request.mixture or (Part(request.adapter, 1.0, request.messages, request.scale),)
        for part in parts:
            if not np.isfinite(part.scale):
                raise EngineError(f'The scale of the adapter is {part.scale}; it must be a finite number.')
            self._adapters.owner(part.adapter)
        if len(parts) > self._settings.slots:
            raise EngineError(f'A mixture of {len(parts)} experts is more than the {self._settings.slots} sequences '
                              'that run at once.')
        if (waiting := len(self._places.waiting)) >= self._settings.queue_limit:
            raise EngineError(f'{waiting} requests wait already; try again later.', 3002,
                              self._pace.clearing_s(waiting, self._settings.slots))
        limit = min(request.max_seq_len, self._runtime.sequence_tokens)
        branches = [Branch(part.adapter, part.scale, self._prompt(part.messages, request, limit)) for part in parts]
        if sum(min(len(one.prompt) + request.max_tokens, limit) for one in branches) > self._runtime.context_tokens:
            raise EngineError(f'A mixture of {len(parts)} such answers does not fit into the context of '
                              f'{self._runtime.context_tokens} tokens; lower max_tokens.')
        sequence = Sequence(request, branches, self._grammars.matcher(request), limit, arrived)
        self._places.waiting.append(sequence)
        if sequence.foregone:  # there is nothing to compute
            pieces, reason = sequence.advance(self._runtime, time.monotonic())
            self._ended += pieces
            self._end(sequence, reason)

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
        for sequence in self._places.all():
            if sequence.request.id == request_id:
                self._end(sequence, 'cancelled', 3003, 'Cancelled.')

    def interrupt(self, request_id: str) -> None:
        """End the step that computes for this request alone, so that a cancel is heard now. From any thread."""
        with self._alone_lock:
            if self._alone == request_id:
                self._runtime.interrupt()

    def busy(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self._places.running or self._places.waiting or self._ended)

    def counts(self) -> tuple[int, int]:
        """Running and waiting requests."""
        return len(self._places.running), len(self._places.waiting)

    def step(self) -> list[Piece | Result]:
        """Decode one batch; [] when there was nothing to do."""
        now = time.monotonic()
        self._expire(now)
        self._places.admit(now, lambda sequence: sequence.begin(now, self._guess(sequence)))
        if self._places.running:
            self._decode(*self._next_group())
        out, self._ended = self._ended, []
        return out

    def _expire(self, now: float) -> None:
        for sequence in self._places.all():
            if not sequence.request.deadline:
                continue
            left = sequence.request.deadline - now
            if left <= 0:
                when = 'while the answer was generated' if sequence.admitted else 'before the request had its turn'
                self._end(sequence, 'timeout', 3001, f'The deadline passed {when}.')
            elif not sequence.admitted and left < CERTAINLY * (needed := self._prompt_s(sequence)):
                self._end(sequence, 'timeout', 3001, f'The deadline is in {left:.2f} s, and the prompt alone takes '
                                                     f'about {needed:.2f} s.')

    def _prompt_s(self, sequence: Sequence) -> float:
        return self._pace.prompt_s(sum(len(branch.prompt) - self._places.known(branch) for branch in sequence.branches))

    def _guess(self, sequence: Sequence) -> Guess:
        if sequence.kind is None or not self._settings.guess_answers or len(self._places.running) > GUESSING:
            return NO_GUESS
        return self._guesses.guess(sequence.kind, sequence.branches[0].prompt)

    def _next_group(self) -> tuple[Group, Pending]:
        """The adapter whose turn it is, and what is pending of it."""
        groups: dict[Group, Pending] = {}
        for sequence in self._places.running:
            for branch in sequence.branches:
                if branch.pending:
                    groups.setdefault((branch.adapter, branch.scale), []).append((sequence, branch))
        chosen = self._turns.next({group: max(one.request.priority for one, _branch in pending)
                                   for group, pending in groups.items()})
        return chosen, groups[chosen]

    def _decode(self, group: Group, pending: Pending) -> None:
        """Decode what is pending, at most a chunk of prompts, and advance the sequences that have logits then."""
        decoded = self._take(pending)
        runs = self._runs(decoded)
        adapter, scale = group
        began = time.monotonic()
        names = {sequence.request.id for sequence, _branch, _tokens in decoded}
        self._alone = names.pop() if len(names) == 1 else ''
        try:
            logits = self._runtime.decode(adapter, self._adapters.scale(adapter) * scale, runs)
        except (NoRoomError, InterruptedStepError) as error:
            for _sequence, branch, tokens in decoded:
                branch.put_back(tokens)
                branch.guess = NO_GUESS
            if isinstance(error, NoRoomError) and not self._places.make_way(time.monotonic()):
                self._end(self._places.running[0], 'error', 3002, str(NoRoomError()), 1.0)
            return
        except EngineError as error:
            for sequence in {id(one): one for one, _branch, _tokens in decoded}.values():
                for branch in sequence.branches:
                    branch.decoded = []  # nobody knows what is in the cells
                self._end(sequence, 'error', error.code, str(error))
            return
        finally:
            with self._alone_lock:
                self._alone = ''
        self._pace.stepped(sum(len(run.tokens) for run, (_sequence, _branch, tokens) in zip(runs, decoded, strict=True)
                               if len(tokens) > 1), time.monotonic() - began)
        for (sequence, branch, _tokens), rows in zip(decoded, logits, strict=True):
            if len(rows):
                branch.logits = rows[0] if len(sequence.branches) == 1 else rows[0].copy()
                if sequence.ready():
                    self._advance(sequence, branch, rows)

    def _take(self, pending: Pending) -> Taken:
        """The next tokens of every branch; those of prompts, the most urgent first, as far as a chunk goes."""
        chunk, taken = self._pace.chunk_tokens(), []
        for sequence, branch in sorted(pending, key=lambda one: (
                len(one[1].pending) > 1, -one[0].request.priority, one[0].arrived)):
            tokens = branch.take(1 if len(branch.pending) == 1 else chunk)
            if tokens:
                chunk -= len(tokens) if len(tokens) > 1 else 0
                taken.append((sequence, branch, tokens))
        return taken

    def _runs(self, taken: Taken) -> list[Run]:
        """What the runtime computes: what was taken, and behind it what is guessed."""
        company, runs = sum(len(tokens) for _sequence, _branch, tokens in taken), []
        for sequence, branch, tokens in taken:
            if self._settings.guess_answers:
                sequence.look_up(company)
            guess = [] if branch.pending else branch.guess.tokens
            runs.append(Run(branch.slot, len(branch.decoded) - len(tokens), tokens + guess,
                            0 if branch.pending else 1 + len(guess)))
        return runs

    def _advance(self, sequence: Sequence, branch: Branch, rows: NDArray[np.float32]) -> None:
        """Draw the next token, and more for as long as they were guessed: rows[i] are the logits behind i of those."""
        guess, branch.guess, stood = branch.guess, NO_GUESS, 0
        reason, code, message, now = '', 0, '', time.monotonic()
        try:
            while True:
                pieces, reason = sequence.advance(self._runtime, now)
                self._ended += pieces
                if reason or guess.tokens[stood:stood + len(branch.pending)] != branch.pending:
                    break
                stood += len(branch.take(len(branch.pending)))
                branch.logits = rows[stood]
        except EngineError as error:
            reason, code, message = 'error', error.code, str(error)
        if guess.tokens:
            guess.judge(len(guess.tokens), stood)
            self._runtime.cut(branch.slot, len(branch.decoded))
        if reason:
            self._end(sequence, reason, code, message)

    def _end(self, sequence: Sequence, reason: str, code: int = 0, message: str = '',
             retry_after_s: float = 0.0) -> None:
        found = sequence.finish(reason, code, message, retry_after_s)
        self._ended += found
        if sequence.admitted:
            if isinstance(found[-1], Result):
                self._pace.answered(found[-1].total_s - found[-1].queue_s)
            if reason == 'stop' and sequence.kind is not None:
                branch = sequence.branches[0]
                # what comes behind the last choice was never decoded, and need not be next time
                self._guesses.remember(sequence.kind, branch.prompt, branch.decoded[len(branch.prompt):])
        self._places.leave(sequence)

    def score(self, messages: Messages, texts: list[str], adapter: str = '') -> list[list[float]]:
        """Log-likelihood [nats] of every token of each text as the answer; raises EngineError (1001, 3002, 3004)."""
        return self._scoring.score(self._chat.tokens(messages), [self._runtime.tokenize(text) for text in texts],
                                   adapter)

    def distribution(self, messages: Messages, count: int, adapter: str = '') -> list[tuple[int, float]]:
        """The most probable first tokens of an answer and their probabilities; raises EngineError as score()."""
        return self._scoring.distribution(self._chat.tokens(messages), count, adapter)

    def embed(self, text: str, adapter: str = '') -> tuple[list[float], int]:
        """Mean of the last hidden states (width,) and the number of tokens; raises EngineError as score()."""
        tokens = self._runtime.tokenize(text)
        if not tokens:
            raise EngineError('The text is empty; there is nothing to embed.')
        return self._scoring.embed(tokens, adapter), len(tokens)

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
