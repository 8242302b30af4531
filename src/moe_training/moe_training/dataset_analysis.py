"""What is in a dataset: counts, lengths, duplicates, languages, characters, leakage."""

from __future__ import annotations

import unicodedata
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from moe_training.dataset import Example, Problem, rank, rows_of
from moe_training.near_duplicates import NearDuplicates, normalised
from moe_training.paths import trainable_base

PERCENTILES = (0, 5, 25, 50, 75, 95, 99, 100)
BINS = 24
LISTED = 20
# The most frequent short words that tell languages of one script apart.
_STOP_WORDS = {
    'en': {'the', 'is', 'of', 'and', 'to', 'a', 'in', 'how', 'do', 'what', 'i', 'it', 'my', 'for', 'you'},
    'de': {'der', 'die', 'das', 'und', 'ist', 'ein', 'eine', 'nicht', 'wie', 'ich', 'zu', 'mit', 'den', 'es'},
    'fr': {'le', 'la', 'les', 'et', 'est', 'un', 'une', 'des', 'je', 'que', 'pour', 'dans', 'comment', 'du'},
    'es': {'el', 'los', 'las', 'y', 'es', 'un', 'una', 'que', 'para', 'en', 'como', 'por', 'cómo', 'del'},
    'ru': {'и', 'в', 'не', 'на', 'что', 'как', 'я', 'с', 'по', 'это', 'для', 'к', 'из', 'у'},
    'uk': {'і', 'в', 'не', 'на', 'що', 'як', 'я', 'з', 'це', 'для', 'та', 'у', 'є'}}
_BY_SCRIPT = {'HIRAGANA': 'ja', 'KATAKANA': 'ja', 'HANGUL': 'ko', 'CJK': 'zh', 'ARABIC': 'ar', 'HEBREW': 'he',
              'GREEK': 'el', 'DEVANAGARI': 'hi', 'THAI': 'th'}


def character_kind(character: str) -> str:
    """Script of a letter ("latin"), or "digit", "space", "punctuation", "symbol", "control"."""
    category = unicodedata.category(character)
    if category.startswith('L'):
        return unicodedata.name(character, 'unknown').split(' ')[0].split('-')[0].lower()
    if character.isspace():
        return 'space'
    return {'N': 'digit', 'P': 'punctuation', 'S': 'symbol', 'M': 'mark'}.get(category[0], 'control')


def language(text: str) -> str:
    """Language of a text by script and frequent words; "other" where nothing tells."""
    for character in text:
        if (script := character_kind(character).upper()) in _BY_SCRIPT:
            return _BY_SCRIPT[script]
    words = set(normalised(text).split())
    best, count = max(((name, len(words & known)) for name, known in _STOP_WORDS.items()), key=lambda item: item[1])
    return best if count else 'other'


@dataclass
class _Seen:
    """What one pass gathers; 8 bytes a length, 32 a prompt and the sketches of near_duplicates."""

    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    bad: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, array[int]] = field(default_factory=dict)
    exact: dict[bytes, int] = field(default_factory=dict)
    keys: dict[bytes, int] = field(default_factory=dict)
    near: NearDuplicates = field(default_factory=NearDuplicates)
    duplicates: list[tuple[int, int]] = field(default_factory=list)
    near_duplicates: list[tuple[int, int]] = field(default_factory=list)
    contradictions: list[tuple[int, int]] = field(default_factory=list)

    def add(self, line: int, example: Example, tokenizer: Any) -> None:
        text = f'{example.key}\n{example.completion}'
        self.rows += 1
        self.shapes['text' if not example.messages else 'conversation' if len(example.messages) > 1 else 'pair'] += 1
        self.languages[language(example.key)] += 1
        self.characters.update(text)
        self._length('prompt_characters', len(example.prompt))
        self._length('completion_characters', len(example.completion))
        if tokenizer is not None:
            self._length('prompt_tokens', len(tokenizer.encode(example.prompt, add_special_tokens=False).ids))
            self._length('completion_tokens', len(tokenizer.encode(example.completion, add_special_tokens=False).ids))
        row, key = rank(text), rank(normalised(example.key) or example.key)
        if row in self.exact:
            self.duplicates.append((line, self.exact[row]))
            return
        self.exact[row] = line
        if key in self.keys:
            self.contradictions.append((line, self.keys[key]))
        else:
            self.keys[key] = line
            if earlier := self.near.add(example.key, line):
                self.near_duplicates.append((line, earlier))

    def _length(self, name: str, value: int) -> None:
        self.lengths.setdefault(name, array('I')).append(value)


def base_tokenizer() -> Any:
    """The fast tokenizer of the shared base; None where it was not prepared yet."""
    path = trainable_base() / 'tokenizer.json'
    if not path.is_file():
        return None
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def _gather(path: Path, tokenizer: Any) -> _Seen:
    seen = _Seen()
    for line, row in rows_of(path):
        if isinstance(row, Problem):
            seen.bad += 1
            seen.problems += [row] if seen.bad <= LISTED else []
        else:
            seen.add(line, row, tokenizer)
    return seen


def _distribution(values: array[int]) -> dict[str, Any]:
    numbers = np.asarray(values)
    counts, edges = np.histogram(numbers, bins=BINS)
    return {'percentiles': {str(share): float(np.percentile(numbers, share)) for share in PERCENTILES},
            'mean': float(numbers.mean()), 'total': int(numbers.sum()),
            'histogram': {'counts': counts.tolist(), 'edges': [round(float(edge), 2) for edge in edges]}}


def _pairs(found: list[tuple[int, int]]) -> dict[str, Any]:
    return {'count': len(found), 'first': [{'line': line, 'of': other} for line, other in found[:LISTED]]}


def _leakage(path: Path, seen: _Seen) -> dict[str, Any]:
    exact: list[tuple[int, int]] = []
    near: list[tuple[int, int]] = []
    rows = 0
    for line, row in rows_of(path):
        if isinstance(row, Problem):
            continue
        rows += 1
        if other := seen.keys.get(rank(normalised(row.key) or row.key)):
            exact.append((line, other))
        elif other := seen.near.find(row.key):
            near.append((line, other))
    return {'rows': rows, 'exact': _pairs(exact), 'near': _pairs(near)}


def analyse(path: Path, compared_with: Path | None = None, plot: Path | None = None) -> dict[str, Any]:
    """Report on a dataset, in one pass over the file.

    Args:
        compared_with: file whose prompts must not be in it; its lines come first in the pairs of "leakage".
        plot: PNG to draw the histograms into.

    Raises DatasetError where a file cannot be read.
    """
    tokenizer = base_tokenizer()
    seen = _gather(path, tokenizer)
    kinds: Counter[str] = Counter()
    for character, count in seen.characters.items():
        kinds[character_kind(character)] += count
    total = max(1, kinds.total())
    report: dict[str, Any] = {
        'rows': seen.rows + seen.bad, 'bad_rows': seen.bad,
        'problems': [{'line': problem.line, 'reason': problem.reason} for problem in seen.problems],
        'shapes': dict(seen.shapes), 'languages': dict(seen.languages.most_common()),
        'characters': {kind: round(count / total, 4) for kind, count in kinds.most_common()},
        'lengths': {name: _distribution(values) for name, values in seen.lengths.items()},
        'tokens_of': 'the shared base' if tokenizer is not None else 'no tokenizer is prepared yet',
        'duplicates': _pairs(seen.duplicates), 'near_duplicates': _pairs(seen.near_duplicates),
        'same_prompt_other_answer': _pairs(seen.contradictions)}
    if compared_with is not None:
        report['leakage'] = _leakage(compared_with, seen)
    if plot is not None:
        draw(report, plot)
        report['plot'] = str(plot)
    return report


def draw(report: dict[str, Any], target: Path) -> None:
    """Histograms of the lengths as a PNG."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    from moe_training.atomic_files import atomic_path

    lengths = report['lengths'] or {'no rows': {'histogram': {'counts': [0], 'edges': [0, 1]}}}
    figure, axes = pyplot.subplots(1, len(lengths), figsize=(4 * len(lengths), 3), squeeze=False)
    for axis, (name, values) in zip(axes[0], lengths.items(), strict=True):
        edges = values['histogram']['edges']
        axis.stairs(values['histogram']['counts'], edges, fill=True)
        axis.set_title(name.replace('_', ' '))
        axis.set_ylabel('rows')
    figure.tight_layout()
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format='png')
    pyplot.close(figure)
