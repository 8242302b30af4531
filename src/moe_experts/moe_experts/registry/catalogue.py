"""The built-in experts: created on an empty robot, renewed when their files change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from moe_experts.registry.artifacts import sha256_of
from moe_experts.registry.entities import Note, Sample, Version
from moe_experts.registry.errors import CreationFailed, ExpertNotFound, RegistryError
from moe_experts.registry.registry import Registry

ACTOR = 'catalogue'
_FIELDS = ('name', 'domain', 'category', 'description', 'fallback', 'system_prompt', 'max_tokens', 'priority',
           'sampling')


def seed(registry: Registry, catalogue: Path, home: Path, tell: Callable[[str], None]) -> None:
    """Create what the catalogue names and the registry lacks; doing it twice changes nothing.

    A missing file leaves its expert in status creating and says so. Raises CreationFailed for a bad catalogue.
    """
    try:
        content = yaml.safe_load(catalogue.read_text(encoding='utf-8'))
        base, rows = content['base'], content['experts']
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise CreationFailed(f'The catalogue {catalogue} cannot be read: {error}') from error
    folder = catalogue.resolve().parent
    base_path = home / base['file']
    base_sha256 = sha256_of(base_path) if base_path.is_file() else ''
    metrics = _metrics(folder / 'adapters' / 'manifest.json')
    for row in rows:
        if not _create(registry, row, folder):
            continue
        adapter = folder / row['adapter'] if 'adapter' in row else None
        if not base_sha256 or (adapter and not adapter.is_file()):
            tell(f'Expert {row["name"]} waits for {base_path if not base_sha256 else adapter}.')
        else:
            try:
                _serve(registry, row['name'], Version(
                    str(adapter or base_path), base=base['name'] if adapter else '',
                    base_path=str(base_path) if adapter else '', base_sha256=base_sha256 if adapter else '',
                    sha256=sha256_of(adapter) if adapter else base_sha256, metrics=metrics.get(row['name'], {})))
            except RegistryError as error:
                tell(f'Expert {row["name"]}: {error}')
        samples, notes, wordings, facts = (_rows(folder / row[key]) if key in row else []
                                           for key in ('samples', 'notes', 'wordings', 'facts'))
        if samples:
            registry.routes.add_samples(_samples(row['name'], samples + wordings + facts), ACTOR)
        if notes:
            registry.notes.add(_notes(row['name'], row['notes'], notes + wordings), True, ACTOR)
        if facts:  # a source of their own: a training replaces the notes of its dataset
            registry.notes.add(_notes(row['name'], row['facts'], facts), True, ACTOR)


def _create(registry: Registry, row: dict[str, Any], folder: Path) -> bool:
    """Create an expert unless it is there; False for one that somebody deleted."""
    try:
        registry.experts.get(name=row['name'])
    except ExpertNotFound:
        if any(event.kind == 'expert_deleted' for event in registry.events.after(0, row['name'])[0]):
            return False
        definition = {key: row[key] for key in _FIELDS if key in row}
        if 'output_schema' in row:
            definition['output_schema'] = json.dumps(json.loads((folder / row['output_schema']).read_text()))
        registry.experts.create(definition, ACTOR, 'built in')
    return True


def _serve(registry: Registry, name: str, version: Version) -> None:
    """Register the file unless it is known; what a person promoted since stays champion."""
    _expert, versions = registry.versions.all_of(name=name)
    if any(known.sha256 == version.sha256 and known.base_sha256 == version.base_sha256 for known in versions):
        return
    by_hand = any(event.alias == 'champion' and event.actor != ACTOR for event in registry.events.after(0, name)[0])
    registry.versions.register(name, version, '' if by_hand else 'champion', ACTOR, 'built in')


def _rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a dataset; [] where there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]


def _samples(expert: str, rows: list[dict[str, Any]]) -> list[Sample]:
    return [Sample(expert, str(row.get('intent', '')), row['prompt']) for row in rows]


def _notes(expert: str, source: str, rows: list[dict[str, Any]]) -> list[Note]:
    """The answers of a dataset, each with the prompts that ask for it.

    The source has its folder before it, so that notes of a file that a person gave are never taken for these.
    """
    asked: dict[str, list[str]] = {}
    for row in rows:
        asked.setdefault(row['completion'], []).append(row['prompt'])
    return [Note(expert, source, text, questions=tuple(questions)) for text, questions in asked.items()]


def _metrics(manifest: Path) -> dict[str, dict[str, float]]:
    """Metrics by expert from the adapters' manifest; {} where there is none."""
    if not manifest.is_file():
        return {}
    content = json.loads(manifest.read_text())
    adapters = content.get('adapters', content)
    return {name: {key: float(value) for key, value in entry.get('metrics', {}).items()
                   if isinstance(value, (int, float))}
            for name, entry in adapters.items() if isinstance(entry, dict)}
