"""Datasets as conversations and texts, in the shapes people already have.

{"messages": [...]}, {"prompt", "completion"}, {"instruction", "input", "output"} (Alpaca) and {"text"}; formats as in
dataset_rows. "intent" groups prompts for the router; other keys are ignored. Every bad row is named by its line and
the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_training.atomic_files import sha256_of
from moe_training.dataset_rows import raw_rows
from moe_training.errors import DatasetError

MAX_CHARACTERS = 32_768
LISTED_PROBLEMS = 100


@dataclass(frozen=True)
class Example:
    """One conversation: the messages before the answer (role, text), the answer and, for the router, its intent.

    A text to continue has no messages; all of it is the completion.
    """

    messages: tuple[tuple[str, str], ...]
    completion: str
    intent: str = ''

    @property
    def prompt(self) -> str:
        """The last message before the answer; '' for a text."""
        return self.messages[-1][1] if self.messages else ''

    @property
    def key(self) -> str:
        """What two rows share that ask the same: the prompt, or the whole text."""
        return self.prompt or self.completion

    def with_system(self, system_prompt: str) -> Example:
        """The example as it is served: the expert's system prompt first, unless the row has its own."""
        if not system_prompt or not self.messages or self.messages[0][0] == 'system':
            return self
        return Example((('system', system_prompt), *self.messages), self.completion, self.intent)


@dataclass(frozen=True)
class Problem:
    """A bad row: 1-based line and the reason."""

    line: int
    reason: str


@dataclass(frozen=True)
class Dataset:
    """What a file holds: the good rows, the bad ones, and the SHA-256 of its bytes."""

    path: Path
    examples: list[Example]
    problems: list[Problem]
    digest: str

    @property
    def rows(self) -> int:
        """All rows, good and bad; empty lines do not count."""
        return len(self.examples) + len(self.problems)

    def require_valid(self) -> Dataset:
        """Itself; raises DatasetError with the first problems where a row is bad or no row is there."""
        _require(self.path, self.rows, len(self.problems), self.problems)
        return self


def _require(path: Path, rows: int, bad_rows: int, problems: list[Problem]) -> None:
    if bad_rows:
        first = '; '.join(f'line {problem.line}: {problem.reason}' for problem in problems[:3])
        raise DatasetError(f'{path} has {bad_rows} bad of {rows} rows ({first}); correct or remove them.')
    if not rows:
        raise DatasetError(f'{path} has no rows; write one JSON object with "prompt" and "completion" a line.')


@dataclass(frozen=True)
class Validation:
    """What validate() counted; `problems` are the first of the bad rows."""

    rows: int
    bad_rows: int
    problems: list[Problem]
    digest: str

    def require_valid(self, path: Path) -> Validation:
        """Itself; raises DatasetError with the first problems where a row is bad or no row is there."""
        _require(path, self.rows, self.bad_rows, self.problems)
        return self


def _string(value: Any, name: str) -> str:
    if isinstance(value, float):
        raise ValueError(f'"{name}" is the number {value}, not a string')
    if not isinstance(value, str):
        raise ValueError(f'"{name}" is {type(value).__name__}, not a string')
    if len(value) > MAX_CHARACTERS:
        raise ValueError(f'"{name}" is too long: {len(value)} characters, at most {MAX_CHARACTERS} are read')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f'"{name}" holds half a surrogate pair at character {error.start}, which is no text') from None
    return value


def _text(value: Any, name: str) -> str:
    if not _string(value, name).strip():
        raise ValueError(f'"{name}" is empty')
    return str(value)


def _from_messages(messages: Any) -> Example:
    if not isinstance(messages, list) or len(messages) < 2:
        raise ValueError('"messages" is no list of at least a user and an assistant message')
    parsed: list[tuple[str, str]] = []
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            raise ValueError(f'message {number} is no object')
        parsed.append((str(message.get('role')), _text(message.get('content'), f'messages[{number}].content')))
    roles = [role for role, _ in parsed]
    turns = roles[1:] if roles[0] == 'system' else roles
    if not turns or len(turns) % 2 or turns != ['user', 'assistant'] * (len(turns) // 2):
        raise ValueError(f'wrong order of roles: {", ".join(roles)}; user and assistant take turns, assistant is last')
    return Example(tuple(parsed[:-1]), parsed[-1][1])


def example_of(row: dict[str, Any]) -> Example:
    """A row of any shape as an example; raises ValueError with the reason where it is bad."""
    if 'messages' in row:
        return _from_messages(row['messages'])
    if 'instruction' in row and 'output' in row:
        context = _string(row.get('input') or '', 'input').strip()
        question = _text(row['instruction'], 'instruction')
        return Example((('user', f'{question}\n\n{context}' if context else question),), _text(row['output'], 'output'),
                       str(row.get('intent') or ''))
    if 'text' in row and 'prompt' not in row:
        return Example((), _text(row['text'], 'text'))
    for key in ('prompt', 'completion'):
        if key not in row:
            found = ', '.join(sorted(map(str, row))) or 'none'
            raise ValueError(f'no key "{key}" (found: {found}); rows hold messages, prompt and completion, instruction '
                             'and output, or text')
    return Example((('user', _text(row['prompt'], 'prompt')),), _text(row['completion'], 'completion'),
                   str(row.get('intent') or ''))


def rows_of(path: Path) -> Iterator[tuple[int, Example | Problem]]:
    """Every row with its line, good or bad, one in memory at a time; raises DatasetError as raw_rows does."""
    for line, raw in raw_rows(path):
        try:
            yield line, Problem(line, raw) if isinstance(raw, str) else example_of(raw)
        except ValueError as error:
            yield line, Problem(line, str(error))


def validate(path: Path) -> Validation:
    """Count the good and bad rows of a file of any size; raises DatasetError where it cannot be read."""
    rows, bad, problems = 0, 0, []
    for _line, row in rows_of(path):
        rows += 1
        if isinstance(row, Problem):
            bad += 1
            if bad <= LISTED_PROBLEMS:
                problems.append(row)
    return Validation(rows, bad, problems, sha256_of(path))


def read_dataset(path: Path) -> Dataset:
    """Read a whole file; raises DatasetError where there is no such file."""
    examples: list[Example] = []
    problems: list[Problem] = []
    for _line, row in rows_of(path):
        if isinstance(row, Problem):
            problems.append(row)
        else:
            examples.append(row)
    return Dataset(path, examples, problems, sha256_of(path))


def rank(key: str) -> bytes:
    """Place of a prompt or text in the order by which rows are held out; evenly spread over all bytes."""
    return hashlib.sha256(key.encode()).digest()


def split(examples: list[Example], holdout: float) -> tuple[list[Example], list[Example]]:
    """Training and held-out part, chosen by the hash of the prompt: the same row always falls on the same side.

    `holdout` is the share kept (0..0.5); at least one row stays in training, and with a share above 0 one is held out
    where there are two or more.
    """
    if holdout <= 0 or len(examples) < 2:
        return examples, []
    ranked = sorted(examples, key=lambda example: rank(example.key))
    count = min(max(1, round(len(examples) * holdout)), len(examples) - 1)
    held = {id(example) for example in ranked[:count]}
    return [e for e in examples if id(e) not in held], [e for e in examples if id(e) in held]
