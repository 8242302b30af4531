"""Exact rules: keywords, whole prompts and patterns, by priority; and the samples that stand beside them.

    routes:
      - expert: motion
        priority: 10            # higher is asked first; 0 where it is not given
        exact: [centre the head]
        keywords: [servo, pan and tilt]
        patterns: ['^look (left|right)\\b']
        samples: [look to the left, {text: nod, intent: gesture}]
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LONGEST = 2000  # characters that patterns are tried on, so that none of them can take long
_KEYS = {'expert', 'priority', 'exact', 'keywords', 'patterns', 'samples'}


@dataclass(frozen=True)
class Rule:
    """One way to recognise an expert's prompts; `name` says which, for people."""

    expert: str
    priority: int
    name: str
    pattern: re.Pattern[str]


@dataclass(frozen=True)
class Rules:
    """Rules in the order in which they are tried, and samples as (expert, intent, text)."""

    rules: tuple[Rule, ...] = ()
    samples: tuple[tuple[str, str, str], ...] = ()

    def match(self, prompt: str, available: Set[str]) -> Rule | None:
        """The first rule that matches and whose expert is available."""
        text = ' '.join(prompt[:LONGEST].split())
        return next((rule for rule in self.rules if rule.expert in available and rule.pattern.search(text)), None)

    @classmethod
    def load(cls, path: Path) -> Rules:
        """Read a YAML file; raises ValueError with the place of what is wrong, OSError."""
        try:
            content = yaml.safe_load(path.read_text(encoding='utf-8')) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f'{path} is no YAML: {error}') from error
        if not isinstance(content, dict) or not isinstance(content.get('routes', []), list):
            raise ValueError(f'{path} must hold a list below "routes".')
        rules: list[Rule] = []
        samples: list[tuple[str, str, str]] = []
        for number, entry in enumerate(content.get('routes', [])):
            where = f'{path}, route {number + 1}'
            if not isinstance(entry, dict) or not isinstance(entry.get('expert'), str) or set(entry) - _KEYS:
                raise ValueError(f'{where} must name an expert and may have {", ".join(sorted(_KEYS))}.')
            rules += _rules(entry, where)
            samples += [_sample(entry['expert'], sample, where) for sample in _texts(entry, 'samples', where)]
        return cls(tuple(sorted(rules, key=lambda rule: -rule.priority)), tuple(samples))


def _texts(entry: dict[str, Any], key: str, where: str) -> list[Any]:
    found = entry.get(key, [])
    if not isinstance(found, list) or not all(found):
        raise ValueError(f'{where}: {key} must be a list without empty entries.')
    return found


def _rules(entry: dict[str, Any], where: str) -> list[Rule]:
    """Rules of one entry; the exact ones before keywords before patterns."""
    sources = [('exact', text, rf'^{re.escape(" ".join(str(text).split()))}[.!?]?$')
               for text in _texts(entry, 'exact', where)]
    sources += [('keyword', text, rf'(?<!\w){re.escape(str(text))}(?!\w)') for text in _texts(entry, 'keywords', where)]
    sources += [('pattern', text, str(text)) for text in _texts(entry, 'patterns', where)]
    found = []
    for kind, text, pattern in sources:
        try:
            found.append(Rule(entry['expert'], int(entry.get('priority', 0)), f'{kind} "{text}"',
                              re.compile(pattern, re.IGNORECASE)))
        except (re.error, TypeError, ValueError) as error:
            raise ValueError(f'{where}: {kind} "{text}" is wrong: {error}.') from error
    return found


def _sample(expert: str, sample: Any, where: str) -> tuple[str, str, str]:
    if isinstance(sample, dict) and isinstance(sample.get('text'), str):
        return expert, str(sample.get('intent', '')), sample['text']
    if isinstance(sample, str):
        return expert, '', sample
    raise ValueError(f'{where}: a sample is a text or {{text: ..., intent: ...}}, not {sample!r}.')
