"""What an engine needs of a library that holds a model: tokens, adapters, and a KV cache in numbered slots."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moe_experts.engines.engine import EngineError


class NoRoomError(EngineError):
    """The KV cache has no free cells; nothing was computed and nothing changed."""

    def __init__(self) -> None:
        super().__init__('The KV cache is full; try again later.', 3002, 1.0)


class InterruptedStepError(Exception):
    """Runtime.interrupt() ended a decode; nothing was computed and nothing changed."""


@dataclass(frozen=True)
class Run:
    """Consecutive tokens of one slot; the first goes to cell `position`, logits of the last `wanted` come back."""

    slot: int
    position: int
    tokens: list[int]
    wanted: int = 0


@dataclass(frozen=True)
class State:
    """What a slot held; only the runtime that saved it can read it."""

    data: Any
    bytes: int


class Runtime(Protocol):
    """A loaded base model.

    Attributes:
        vocabulary_size: columns of the logits.
        context_tokens: cells of the KV cache, all slots together.
        sequence_tokens: most tokens in one slot; the model's own limit where that is lower.
        end_tokens: each of them ends an answer.
        chat_template: Jinja source; '' = the model has none.
        special_texts: texts of tokens that templates name ('bos_token', 'eos_token').
        grammar_tokenizer: llguidance's view of the vocabulary; it may still be in the making.
    """

    vocabulary_size: int
    context_tokens: int
    sequence_tokens: int
    chat_template: str
    special_texts: dict[str, str]
    grammar_tokenizer: Future[Any]

    @property
    def end_tokens(self) -> list[int]:
        """See above."""

    def load_adapter(self, key: str, path: Path) -> None:
        """Load a LoRA adapter; raises EngineError (1001)."""

    def unload_adapter(self, key: str) -> None:
        """Free a loaded adapter."""

    def decode(self, adapter: str, scale: float, runs: list[Run]) -> list[NDArray[np.float32]]:
        """Compute runs with one adapter ('' = none); returns logits (wanted, vocabulary) per run.

        The logits may be a view that the next decode overwrites. Raises NoRoomError, InterruptedStepError, and
        EngineError (3000) where the cells of the runs are undefined then.
        """

    def interrupt(self) -> None:
        """End the decode that another thread is in, where the library can; without one, nothing happens."""

    def hidden_states(self, adapter: str, scale: float, slot: int, tokens: list[int]) -> NDArray[np.float32]:
        """Last hidden states (tokens, width) of a text, computed in an empty slot; raises EngineError (3000)."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Let an empty slot begin with the first cells of another one."""

    def cut(self, slot: int, length: int) -> None:
        """Free the cells of a slot from `length` on; 0 empties it."""

    def save(self, slot: int) -> State:
        """What a slot holds, to be restored after its cells were freed."""

    def restore(self, slot: int, state: State) -> None:
        """Fill an empty slot with what was saved, which stays as it is; raises NoRoomError."""

    def tokenize(self, text: str, *, special: bool = False, ends: bool = False) -> list[int]:
        """As Engine.tokenize."""

    def piece(self, token: int) -> bytes:
        """Bytes of a token; b'' for control tokens."""

    def is_end(self, token: int) -> bool:
        """Whether a token ends an answer."""

    def metadata(self) -> dict[str, str]:
        """As Engine.metadata."""

    def close(self) -> None:
        """Free everything."""
