"""From the files people have to the two files a job reads: cleaned, without duplicates, split by hash."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from moe_training.atomic_files import atomic_path, sha256_of
from moe_training.dataset import Example, Problem, rank, rows_of
from moe_training.dataset_rows import SUFFIXES
from moe_training.errors import DatasetError
from moe_training.near_duplicates import normalised
from moe_training.paths import moe_home

MAX_HOLDOUT = 0.5


@dataclass(frozen=True)
class Prepared:
    """The two files, their rows, how many rows were dropped and why, and the digest of the training part."""

    train: str
    heldout: str
    rows: int
    heldout_rows: int
    dropped: int
    digest: str
    reasons: dict[str, int]
    problems: list[dict[str, Any]]


def files_of(paths: list[Path]) -> list[Path]:
    """Files, and the dataset files in folders, in a fixed order; raises DatasetError where there are none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(each for each in path.rglob('*') if each.suffix.lower() in SUFFIXES and each.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise DatasetError(f'{path} does not exist; name files or folders of {", ".join(SUFFIXES)}.')
    if not found:
        raise DatasetError(f'No file of {", ".join(SUFFIXES)} in {", ".join(map(str, paths)) or "nothing"}.')
    return found


def cleaned(text: str) -> str:
    """Text in Unicode's composed form (NFC), with \\n ends of lines, without control characters and outer space."""
    text = unicodedata.normalize('NFC', text.replace('\r\n', '\n').replace('\r', '\n'))
    return ''.join(each for each in text if each in '\n\t' or unicodedata.category(each) != 'Cc').strip()


def _clean(example: Example) -> Example:
    return Example(tuple((role, cleaned(text)) for role, text in example.messages), cleaned(example.completion),
                   example.intent)


def _row(example: Example) -> dict[str, Any]:
    """The shape that the trainer reads."""
    if not example.messages:
        return {'text': example.completion}
    if len(example.messages) > 1:
        turns = [*example.messages, ('assistant', example.completion)]
        return {'messages': [{'role': role, 'content': text} for role, text in turns]}
    return {'prompt': example.prompt, 'completion': example.completion,
            **({'intent': example.intent} if example.intent else {})}


class _Sieve:
    """Lets every row through once and counts what it drops; 64 bytes a row are kept."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.problems: list[dict[str, Any]] = []
        self._seen: set[bytes] = set()

    def rows(self, files: list[Path]) -> Iterator[Example]:
        for path in files:
            for line, row in rows_of(path):
                if isinstance(row, Problem):
                    self._drop('bad', path, line, row.reason)
                    continue
                example = _clean(row)
                if not example.completion or (example.messages and not all(text for _, text in example.messages)):
                    self._drop('empty', path, line, 'empty after cleaning')
                    continue
                digest = rank(json.dumps([example.messages, normalised(example.completion) or example.completion]))
                if digest in self._seen:
                    self._drop('duplicate', path, line, 'said before')
                    continue
                self._seen.add(digest)
                yield example

    def _drop(self, kind: str, path: Path, line: int, reason: str) -> None:
        self.reasons[kind] += 1
        if kind != 'duplicate' and len(self.problems) < 100:
            self.problems.append({'file': str(path), 'line': line, 'reason': reason})


def prepare(domain: str, paths: list[Path], output: Path | None = None, holdout: float = 0.1) -> Prepared:
    """Write train.jsonl and heldout.jsonl; the same rows always fall on the same side, whatever else is there.

    Raises DatasetError where nothing usable is left.
    """
    if not 0.0 <= holdout <= MAX_HOLDOUT:
        raise DatasetError(f'holdout is {holdout}; it must be 0..{MAX_HOLDOUT}.')
    if output is None:
        if not domain or Path(domain).name != domain or domain.startswith('.'):
            raise DatasetError(f'Domain {domain!r} is no name of a folder; use a word like "rust", or name an output.')
        output = moe_home() / 'datasets' / domain
    files, sieve = files_of(paths), _Sieve()
    targets = {'train': output / 'train.jsonl', 'heldout': output / 'heldout.jsonl'}
    if inside := sorted(set(map(Path.resolve, files)) & set(map(Path.resolve, targets.values()))):
        raise DatasetError(f'{inside[0]} would be read and written at once; choose another output.')
    counts = Counter({'train': 0, 'heldout': 0})
    limit = int(holdout * 2 ** 64)
    with ExitStack() as stack:
        streams: dict[str, TextIO] = {
            part: stack.enter_context(open(stack.enter_context(atomic_path(target)), 'w', encoding='utf-8'))
            for part, target in targets.items()}
        for example in sieve.rows(files):
            part = 'heldout' if int.from_bytes(rank(example.key)[:8], 'big') < limit else 'train'
            streams[part].write(json.dumps(_row(example), ensure_ascii=False) + '\n')
            counts[part] += 1
        if not counts['train']:
            raise DatasetError(f'No usable row for training in {len(files)} files ({dict(sieve.reasons)}).')
    digest = sha256_of(targets['train'])
    prepared = Prepared(str(targets['train']), str(targets['heldout']), counts['train'], counts['heldout'],
                        sieve.reasons.total(), digest, dict(sieve.reasons), sieve.problems)
    with atomic_path(output / 'dataset.json') as temporary:
        temporary.write_text(json.dumps({'domain': domain, 'holdout': holdout, 'sources': list(map(str, files)),
                                         'sha256': digest, 'rows': counts}, indent=2))
    return prepared
