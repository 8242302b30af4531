"""The contract of an engine: requests go in, pieces and results come out of step()."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class EngineError(Exception):
    """A request that the engine refuses or loses; codes of moe_interfaces/msg/ErrorCode."""

    def __init__(self, message: str, code: int = 3004, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn; names and ranges are llama.cpp's. temp 0 = greedy, seed -1 = random."""

    temp: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    penalty_last_n: int = 64
    penalty_repeat: float = 1.0
    penalty_freq: float = 0.0
    penalty_present: float = 0.0
    mirostat: int = 0
    mirostat_eta: float = 0.1
    mirostat_tau: float = 5.0
    n_probs: int = 0
    seed: int = -1
    ignore_eos: bool = False
    logit_bias: tuple[tuple[int, float], ...] = ()

    @property
    def repeatable(self) -> bool:
        """Whether the same request gets the same answer again."""
        return self.temp == 0.0 or self.seed >= 0

    def check(self) -> None:
        """Raise EngineError for values that mean nothing (NaN included)."""
        ranges = (('temp', 0.0, 10.0), ('top_k', 0, 1 << 20), ('top_p', 0.0, 1.0), ('min_p', 0.0, 1.0),
                  ('typical_p', 0.0, 1.0), ('penalty_repeat', 1e-3, 10.0), ('penalty_freq', -2.0, 2.0),
                  ('penalty_present', -2.0, 2.0), ('penalty_last_n', -1, 1 << 20), ('mirostat', 0, 2),
                  ('mirostat_eta', 0.0, 1.0), ('mirostat_tau', 0.0, 20.0), ('n_probs', 0, 20),
                  ('seed', -1, (1 << 63) - 1))
        for name, low, high in ranges:
            if not low <= getattr(self, name) <= high:
                raise EngineError(f'{name} is {getattr(self, name)}; it must be {low:g}..{high:g}.')
        for token, bias in self.logit_bias:
            if math.isnan(bias) or token < 0:
                raise EngineError(f'logit_bias has {bias} for token {token}; it must be a number for a token >= 0.')


@dataclass(frozen=True)
class EngineSettings:
    """How an engine runs.

    Attributes:
        threads: for decoding, at most.
        threads_batch: for prompts, at most; 0 = as for decoding.
        slots: sequences at once; 1 = no batching.
        context_tokens: of the KV cache that all sequences share.
        queue_limit: requests that may wait.
        company_s: how long a lone request may wait for others while nothing runs, where requests have been coming as
            close to each other as that.
        use_kv_cache: whether prompts begin with what finished sequences left in the cache.
        kept_bytes: of what finished sequences had in the cache, kept beside it for prompts that begin alike.
        guess_answers: whether tokens are guessed and decoded along: from what an answer reads (lookup.py), and those
            of answers that a grammar binds from earlier ones (guesses.py).
        cache_type: number format of the KV cache, a name of ggml's ('f16', 'q8_0', 'f32').
        flash_attention: llama.cpp's. On CPUs it reads prompts a fifth faster and decodes slower, the more so the more
            cells an answer looks back on (500: half as fast); it rounds differently with each order of the cells, about
            3e-4 in a probability. Quantised caches need it.
        gpu_layers: layers on the GPU, where llama.cpp was built for one.
        mmap: map the file instead of reading it.
        mlock: keep the model from being swapped out.
        affinity: cores that the worker may use; () = all.
    """

    threads: int = 2
    threads_batch: int = 0
    slots: int = 32
    context_tokens: int = 8192
    queue_limit: int = 64
    company_s: float = 0.01
    use_kv_cache: bool = True
    kept_bytes: int = 64_000_000
    guess_answers: bool = True
    cache_type: str = 'f16'
    flash_attention: bool = False
    gpu_layers: int = 0
    mmap: bool = True
    mlock: bool = False
    affinity: tuple[int, ...] = ()


Messages = tuple[tuple[str, str], ...]
Probable = tuple[int, float, str]  # a token, its probability 0..1, its text


@dataclass(frozen=True)
class Part:
    """One expert of a mixture: its adapter and the scale of it, its weight >= 0, the prompt as that expert gets it."""

    adapter: str
    weight: float
    messages: Messages
    scale: float = 1.0


@dataclass(frozen=True)
class Request:
    """One answer wanted.

    Attributes:
        messages: (role, content), oldest first.
        adapter: key of a loaded adapter; '' = the bare base.
        scale: of the adapter for this request alone, times the one it was loaded with.
        mixture: experts whose distributions are mixed, each with its own adapter and scale; () = the one above.
        deadline: time.monotonic() [s] after which nobody waits; 0 = none.
        truncate: '' = a prompt longer than the context is an error, 'left' or 'middle' = cut there.
    """

    id: str
    messages: Messages
    adapter: str = ''
    scale: float = 1.0
    mixture: tuple[Part, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 256
    max_seq_len: int = 2048
    stop: tuple[str, ...] = ()
    json_schema: str = ''
    regex: str = ''
    grammar: str = ''
    priority: int = 10
    deadline: float = 0.0
    truncate: str = ''


@dataclass(frozen=True)
class Piece:
    """New text of a request; token is -1 where the text spans several. probs as n_probs wants them."""

    id: str
    text: str
    token: int
    probs: tuple[Probable, ...] = ()


@dataclass(frozen=True)
class Result:
    """The end of a request; durations in seconds. With an error, text is what was generated until then.

    cached_tokens are those of the prompt that were not computed again; retry_after_s comes with 3002. probs are the
    most probable tokens at every position of the answer, () unless n_probs asks for them. weights are those of a
    mixture's parts behind the last token.
    """

    id: str
    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    prompt_tokens: int
    queue_s: float = 0.0
    prefill_s: float = 0.0
    first_token_s: float = 0.0
    decode_s: float = 0.0
    total_s: float = 0.0
    error_code: int = 0
    error_msg: str = ''
    cached_tokens: int = 0
    retry_after_s: float = 0.0
    probs: tuple[tuple[Probable, ...], ...] = ()
    weights: tuple[float, ...] = ()


class Engine(Protocol):
    """One base model with adapters on it. Not thread-safe: one thread owns it."""

    def load_adapter(self, key: str, path: Path, scale: float) -> None:
        """Load a LoRA adapter; raises EngineError (1001)."""

    def unload_adapter(self, key: str) -> None:
        """Free an adapter; requests that use it end with an error."""

    def scale_adapter(self, key: str, scale: float) -> None:
        """Apply an adapter with another scale from now on; raises EngineError (1001)."""

    def submit(self, request: Request) -> None:
        """Queue a request; raises EngineError (1001, 3002, 3004)."""

    def cancel(self, request_id: str) -> None:
        """End a request within one step."""

    def interrupt(self, request_id: str) -> None:
        """End the step that computes for this request alone, so that a cancel is heard now. From any thread."""

    def step(self) -> list[Piece | Result]:
        """Decode one batch; [] when there was nothing to do."""

    def busy(self) -> bool:
        """Whether anything runs or waits."""

    def counts(self) -> tuple[int, int]:
        """Running and waiting requests."""

    def score(self, messages: Messages, texts: list[str], adapter: str = '') -> list[list[float]]:
        """Log-likelihood [nats] of every token of each text as the answer; raises EngineError (1001, 3002, 3004)."""

    def distribution(self, messages: Messages, count: int, adapter: str = '') -> list[tuple[int, float]]:
        """The most probable first tokens of an answer and their probabilities; raises EngineError as score()."""

    def embed(self, text: str, adapter: str = '') -> tuple[list[float], int]:
        """Mean of the last hidden states (width,) and the number of tokens; raises EngineError as score()."""

    def clear_cache(self, adapter: str | None = None) -> int:
        """Forget what finished sequences left, of one adapter or of all (None); returns how many."""

    def tokenize(self, text: str, *, special: bool = False, ends: bool = False) -> list[int]:
        """Tokens of a text; control tokens in it are text unless special. `ends` adds BOS and EOS as the model does."""

    def detokenize(self, tokens: list[int]) -> str:
        """Text of tokens; raises EngineError (3004) for a token that is none."""

    def metadata(self) -> dict[str, str]:
        """Keys and values of the model's file, named as GGUF names them, with n_ctx as loaded."""

    def close(self) -> None:
        """Free everything."""
