"""Datasets of question and answer: JSONL rows {"prompt", "completion"} or {"messages": [...]}.

"intent" groups prompts for the router; other keys are ignored. Every bad row is named by its line and the reason.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_training.errors import DatasetError

MAX_CHARACTERS = 32_768


@dataclass(frozen=True)
class Example:
    """One conversation: the messages before the answer (role, text), the answer and, for the router, its intent."""

    messages: tuple[tuple[str, str], ...]
    completion: str
    intent: str = ''

    @property
    def prompt(self) -> str:
        """The last message before the answer."""
        return self.messages[-1][1]

    def with_system(self, system_prompt: str) -> Example:
        """The example as it is served: the expert's system prompt first, unless the row has its own."""
        if not system_prompt or self.messages[0][0] == 'system':
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
        if self.problems:
            first = '; '.join(f'line {problem.line}: {problem.reason}' for problem in self.problems[:3])
            raise DatasetError(
                f'{self.path} has {len(self.problems)} bad of {self.rows} rows ({first}); correct or remove them.')
        if not self.examples:
            raise DatasetError(f'{self.path} has no rows; write one JSON object with "prompt" and "completion" a line.')
        return self


def _no_constant(name: str) -> float:
    raise ValueError(f'{name} is no JSON')


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f'"{name}" is {type(value).__name__}, not a string')
    if not value.strip():
        raise ValueError(f'"{name}" is empty')
    if len(value) > MAX_CHARACTERS:
        raise ValueError(f'"{name}" has {len(value)} characters, at most {MAX_CHARACTERS} are read')
    return value


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


def parse_row(text: str) -> Example:
    """One line as an example; raises ValueError with the reason where it is bad."""
    try:
        row = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f'not JSON ({error.msg} at column {error.colno})') from None
    except RecursionError:
        raise ValueError('not JSON that can be read (nested too deeply)') from None
    if not isinstance(row, dict):
        raise ValueError(f'a {type(row).__name__}, not an object')
    if 'messages' in row:
        return _from_messages(row['messages'])
    for key in ('prompt', 'completion'):
        if key not in row:
            raise ValueError(f'no key "{key}" (found: {", ".join(sorted(map(str, row))) or "none"})')
    return Example((('user', _text(row['prompt'], 'prompt')),), _text(row['completion'], 'completion'),
                   str(row.get('intent') or ''))


def _lines(path: Path, digest: Any) -> Iterator[tuple[int, bytes]]:
    with open(path, 'rb') as file:
        for number, line in enumerate(file, start=1):
            digest.update(line)
            if line.strip():
                yield number, line


def read_dataset(path: Path) -> Dataset:
    """Reads a JSONL file line by line; raises DatasetError where there is no such file."""
    digest = hashlib.sha256()
    examples: list[Example] = []
    problems: list[Problem] = []
    try:
        for number, line in _lines(path, digest):
            try:
                examples.append(parse_row(line.decode('utf-8-sig' if number == 1 else 'utf-8')))
            except UnicodeDecodeError as error:
                problems.append(Problem(number, f'not UTF-8 (byte {error.start})'))
            except ValueError as error:
                problems.append(Problem(number, str(error)))
    except OSError as error:
        raise DatasetError(f'Dataset {path} cannot be read ({error.strerror}); name a JSONL file.') from error
    return Dataset(path, examples, problems, digest.hexdigest())


def split(examples: list[Example], holdout: float) -> tuple[list[Example], list[Example]]:
    """Training and held-out part, chosen by the hash of the prompt: the same row always falls on the same side.

    `holdout` is the share kept (0..0.5); at least one row stays in training, and with a share above 0 one is held out
    where there are two or more.
    """
    if holdout <= 0 or len(examples) < 2:
        return examples, []
    ranked = sorted(examples, key=lambda example: hashlib.sha256(example.prompt.encode()).digest())
    count = min(max(1, round(len(examples) * holdout)), len(examples) - 1)
    held = {id(example) for example in ranked[:count]}
    return [e for e in examples if id(e) not in held], [e for e in examples if id(e) in held]
