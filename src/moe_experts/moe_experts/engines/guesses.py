"""What a short answer will probably be: that to the most similar question before, with this question's numbers.

Speculative decoding by retrieval (He et al. 2023, "REST"), for answers that a grammar binds: commands as JSON are
alike for alike questions. A guess is decoded along with the prompt, in one step. Its tokens stand as far as what is
drawn from the logits before them agrees, so an answer is what it would have been without; what does not stand is cut.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial

KEPT_ANSWERS = 64  # of one kind
KEPT_KINDS = 32
LONGEST_TOKENS = 48  # of an answer that is worth a guess
WORTHWHILE = 0.3  # share of guessed tokens that has to stand on average
MEMORY = 0.8  # weight of what was known of that share before
RETRY = 16  # guesses that are not made while the share is too low, until one is tried again


@dataclass(frozen=True)
class Guess:
    """Tokens that may come next; judge(guessed, stood) is told how many were decoded, and how many of them stood."""

    tokens: list[int]
    judge: Callable[[int, int], None]


NO_GUESS = Guess([], lambda _guessed, _stood: None)


@dataclass
class _Kind:
    """Answers of one adapter to one grammar, newest last."""

    answers: deque[tuple[list[int], frozenset[int], list[int]]] = field(
        default_factory=lambda: deque(maxlen=KEPT_ANSWERS))
    standing: float = 1.0  # share of the guessed tokens that stood
    passed: int = 0


class Guesses:
    """Remembers answers by kind and guesses new ones.

    Args:
        is_number: whether the text of a token is digits.
    """

    def __init__(self, is_number: Callable[[int], bool]) -> None:
        self._is_number = cache(is_number)  # every token of every prompt is asked for
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()

    def remember(self, kind: Hashable, prompt: list[int], answer: list[int]) -> None:
        """Keep an answer, or what of it had to be decoded."""
        if not 0 < len(answer) <= LONGEST_TOKENS:
            return
        found = self._kinds.setdefault(kind, _Kind())
        self._kinds.move_to_end(kind)
        if len(self._kinds) > KEPT_KINDS:
            self._kinds.popitem(last=False)
        found.answers.append((prompt, self._words(prompt), answer))

    def guess(self, kind: Hashable, prompt: list[int]) -> Guess:
        """Tokens of the probable answer, where there are any that are worth their while."""
        found = self._kinds.get(kind)
        if found is None:
            return NO_GUESS
        if found.standing < WORTHWHILE:
            found.passed = (found.passed + 1) % RETRY
            if found.passed:
                return NO_GUESS
        words = self._words(prompt)
        # the newest of those that are equally similar: where a robot looked last, it looks again
        old, _words, answer = max(reversed(found.answers), key=lambda one: (
            len(one[1] & words) / max(1, len(one[1] | words))))
        tokens = self._with_numbers(answer, list(self._numbers(old)), list(self._numbers(prompt)))
        return Guess(tokens, partial(self._judge, found))

    @staticmethod
    def _judge(found: _Kind, guessed: int, stood: int) -> None:
        found.standing = MEMORY * found.standing + (1.0 - MEMORY) * stood / guessed

    def forget(self, adapter: str | None) -> None:
        """Forget what an adapter, or (None) any, answered; the adapter comes first in a kind."""
        self._kinds = OrderedDict((kind, found) for kind, found in self._kinds.items()
                                  if adapter is not None and kind[0] != adapter)  # type: ignore[index]

    def _words(self, tokens: list[int]) -> frozenset[int]:
        """What makes prompts similar: all but the numbers, which are put in their places afterwards."""
        return frozenset(token for token in tokens if not self._is_number(token))

    def _numbers(self, tokens: list[int]) -> Iterator[list[int]]:
        """Runs of digits."""
        run: list[int] = []
        for token in tokens:
            if self._is_number(token):
                run.append(token)
            elif run:
                yield run
                run = []
        if run:
            yield run

    def _with_numbers(self, answer: list[int], old: list[list[int]], new: list[list[int]]) -> list[int]:
        """An answer in which numbers of the old question are those in the same place of the new one."""
        # what a prompt says last is the question itself
        places = {tuple(number): new[index] for index, number in enumerate(old) if index < len(new)}
        result: list[int] = []
        run: list[int] = []
        for token in [*answer, -1]:
            if token >= 0 and self._is_number(token):
                run.append(token)
                continue
            result += places.get(tuple(run), run)
            run = []
            if token >= 0:
                result.append(token)
        return result
