"""How fast an engine is, as measured on the way: the size of a prompt's chunks, and how long things will take."""

from __future__ import annotations

STEP_S = 0.06  # of prompts per step: so long may a cancel take and a running answer wait
LEAST_TOKENS, MOST_TOKENS = 32, 512
_SMOOTHING = 0.2


class Pace:
    """Moving averages over the last steps and answers."""

    def __init__(self) -> None:
        self._tokens_per_s = 0.0
        self._answer_s = 0.0

    def stepped(self, prompt_tokens: int, seconds: float) -> None:
        """Learn from a step that computed so many tokens of prompts; few of them tell nothing."""
        if prompt_tokens >= LEAST_TOKENS and seconds > 0.0:
            self._tokens_per_s = _average(self._tokens_per_s, prompt_tokens / seconds)

    def answered(self, seconds: float) -> None:
        """Learn how long an answer took from its turn to its end."""
        self._answer_s = _average(self._answer_s, seconds)

    def chunk_tokens(self) -> int:
        """Tokens of prompts for the next step."""
        wanted = self._tokens_per_s * STEP_S if self._tokens_per_s else 2 * LEAST_TOKENS
        return max(LEAST_TOKENS, min(MOST_TOKENS, int(wanted)))

    def prompt_s(self, tokens: int) -> float:
        """How long [s] a prompt will take; 0 while nothing is known."""
        return tokens / self._tokens_per_s if self._tokens_per_s else 0.0

    def clearing_s(self, waiting: int, slots: int) -> float:
        """When [s] half of those who wait will have had their turn."""
        return max(0.1, self._answer_s * waiting / slots / 2)


def _average(known: float, value: float) -> float:
    return known + _SMOOTHING * (value - known) if known else value
