"""Experts, their versions, trials and notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moe_client.errors import ExpertNotFound, ExpertNotReady
from moe_client.transport import Event, Transport, Values
from moe_client.types import AbTest, ExpertInfo, version

DAY_S = 24 * 3600.0
ACTOR = 'client'


class Experts:
    """Experts and their versions, in the registry; every method takes an id or a name."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, domain: str = '', status: str = '', sort: str = 'id', *, category: str = '', offset: int = 0,
             limit: int = 1000) -> list[ExpertInfo]:
        """List a page of experts, filtered and sorted by name, id, domain, status or updated_at ("-" reverses)."""
        values = self._transport.call('experts.list', {
            'domain': domain, 'category': category, 'status': status, 'sort': sort, 'offset': offset, 'limit': limit})
        return [ExpertInfo.of(row) for row in values['experts']]

    def get(self, id_or_name: int | str) -> ExpertInfo:
        """Get one expert with its versions; raises ExpertNotFound."""
        values = self._transport.call('experts.get', {'id_or_name': self._reference(id_or_name)})
        return ExpertInfo.with_versions(values['expert'], values['versions'])

    def create(self, name: str, domain: str, description: str = '', system_prompt: str = '',
               max_tokens: int = 96, *, size: str = '', artifact: str = '', base_expert: str = '',
               **fields: Any) -> ExpertInfo:
        """Create an expert; raises NameTaken.

        Without size and artifact it has no version and answers once it is trained. `size` makes an untrained model
        ("tiny" .. "large"), `artifact` registers a GGUF file or Hugging Face folder, `base_expert` makes a candidate.
        """
        expert = {'name': name, 'domain': domain, 'category': domain, 'description': description,
                  'system_prompt': system_prompt or f'You answer questions about {domain} briefly.',
                  'max_tokens': max_tokens, 'sampling_config': {'temp': 0.0}, 'base_expert': base_expert, **fields}
        values = self._transport.call('experts.create', {
            'expert': expert, 'size': size, 'artifact_path': artifact, 'actor': ACTOR})
        return ExpertInfo.of(values['expert'])

    def update(self, id_or_name: int | str, reason: str = '', **fields: Any) -> ExpertInfo:
        """Write fields of an expert (description='...', status='disabled', ...); raises StaleVersion."""
        row = self.get(id_or_name)
        values = self._transport.call('experts.update', {
            'expert': {'id': row.id, 'name': row.name, 'row_version': row.row_version, **fields},
            'fields': sorted(fields), 'actor': ACTOR, 'reason': reason})
        return ExpertInfo.of(values['expert'])

    def delete(self, id_or_name: int | str, *, hard: bool = False, reason: str = '') -> None:
        """Delete an expert; softly, unless `hard`."""
        self._transport.call('experts.delete', {'id_or_name': self._reference(id_or_name), 'hard': hard,
                                                'actor': ACTOR, 'reason': reason})

    def resize(self, id_or_name: int | str, size: str, reason: str = '') -> dict[str, Any]:
        """Make an untrained version of another size; returns the version."""
        values = self._transport.call('experts.resize', {'id_or_name': self._reference(id_or_name), 'size': size,
                                                         'actor': ACTOR, 'reason': reason})
        return version(values['version'])

    def register(self, id_or_name: int | str, artifact: str, *, base: int | str = '', alias: str = '',
                 reason: str = '') -> dict[str, Any]:
        """Register a GGUF file or safetensors folder of the registry's host as a new version; returns it.

        An adapter needs `base`: the expert on whose champion's base it is served. Raises CreationFailed.
        """
        fields = {'artifact_path': artifact, **(self._as_base(base) if base else {})}
        values = self._transport.call('experts.register', {
            'expert': self.name_of(id_or_name), 'version': fields, 'alias': alias, 'actor': ACTOR, 'reason': reason})
        return version(values['version'])

    def _as_base(self, id_or_name: int | str) -> Values:
        """What an adapter says of its base that is served on that of this expert's champion."""
        values = self._transport.call('experts.get', {'id_or_name': self._reference(id_or_name)})
        expert, number = values['expert'], values['expert']['champion_version']
        champion = next((row for row in values['versions'] if row['number'] == number), None)
        if champion is None:
            raise ExpertNotReady(f'Expert {expert["name"]} serves no version, so an adapter cannot share its base.')
        if champion['kind'] == 'model':
            return {'base': expert['name'], 'base_path': champion['artifact_path'], 'base_sha256': champion['sha256']}
        return {key: champion[key] for key in ('base', 'base_path', 'base_sha256')}

    def set_alias(self, id_or_name: int | str, alias: str, number: int, reason: str = '') -> int:
        """Point an alias at a version, 0 removes it; returns the number it pointed at before, 0 = it was new."""
        return int(self._transport.call('experts.set_alias', {
            'expert': self.name_of(id_or_name), 'alias': alias, 'version': number, 'actor': ACTOR,
            'reason': reason})['previous_version'])

    def promote(self, id_or_name: int | str, reason: str = '') -> tuple[str, int, int]:
        """Candidate or challenger becomes champion; returns expert, version and previous version."""
        return self._moved('experts.promote', id_or_name, reason)

    def rollback(self, id_or_name: int | str, reason: str = '') -> tuple[str, int, int]:
        """Champion back to what it was; returns expert, version and previous version."""
        return self._moved('experts.rollback', id_or_name, reason)

    def _moved(self, operation: str, id_or_name: int | str, reason: str) -> tuple[str, int, int]:
        values = self._transport.call(operation, {'expert': self.name_of(id_or_name), 'actor': ACTOR, 'reason': reason})
        return values['expert']['name'], values['version'], values['previous_version']

    def history(self, id_or_name: int | str = '', after: int = 0, limit: int = 100) -> Sequence[Values]:
        """Transitions of an expert, or of all, oldest first: RegistryEvents."""
        name = self.name_of(id_or_name) if id_or_name else ''
        events: Sequence[Values] = self._transport.call('registry.events', {
            'expert': name, 'after_sequence': after, 'limit': limit})['events']
        return events

    def metadata(self, id_or_name: int | str) -> Values:
        """What the file of the model that answers says: a GetMetadata response."""
        return self._transport.call('experts.metadata', {'expert': self.name_of(id_or_name)})

    def load(self, id_or_name: int | str, pin: bool = False) -> Values:
        """Load an expert now; returns its ExpertStatus."""
        values = self._transport.call('experts.load', {'expert': self.name_of(id_or_name), 'pin': pin})
        status: Values = values['status']
        return status

    def unload(self, id_or_name: int | str) -> int:
        """Free an expert's memory; returns bytes."""
        return int(self._transport.call('experts.unload', {'expert': self.name_of(id_or_name)})['freed_bytes'])

    def quantize(self, id_or_name: int | str, quantization: str, *, promote: bool = False,
                 timeout: float = DAY_S, **fields: Any) -> Iterator[Event]:
        """A version in another number format; yields progress and the result."""
        return self._transport.stream('experts.quantize', {
            'expert': self.name_of(id_or_name), 'quantization': quantization, 'promote': promote, **fields}, timeout)

    def convert(self, source: str, destination: str, quantization: str = 'F16', *, timeout: float = DAY_S,
                **fields: Any) -> Iterator[Event]:
        """A Hugging Face folder or adapter to a GGUF file; yields progress and the result."""
        return self._transport.stream('experts.convert', {
            'source': source, 'destination': destination, 'quantization': quantization, **fields}, timeout)

    def benchmark(self, id_or_name: int | str, *, timeout: float = DAY_S, **fields: Any) -> Iterator[Event]:
        """Measure speed, memory and score; yields progress and the result."""
        return self._transport.stream('experts.benchmark', {'expert': self.name_of(id_or_name), **fields}, timeout)

    def name_of(self, id_or_name: int | str) -> str:
        """The name of an id; a name stays as it is."""
        reference = self._reference(id_or_name)
        return self.get(reference).name if reference.isdigit() else reference

    @staticmethod
    def _reference(id_or_name: int | str) -> str:
        reference = str(id_or_name).strip()
        if not reference:
            raise ExpertNotFound('Expert with name="" not found; `moe list-experts` lists them.')
        return reference


class AbTests:
    """Blue-green trials between an expert and its candidate."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def start(self, control: str, treatment: str, share: float = 0.1, auto_decide: bool = False) -> AbTest:
        """Begin a trial."""
        return self._test('ab_tests.start', {'control': control, 'treatment': treatment, 'share': share,
                                             'auto_decide': auto_decide, 'actor': ACTOR})

    def get(self, number: int = 0, control: str = '') -> AbTest:
        """A trial by its number, or the running one of an expert."""
        return self._test('ab_tests.get', {'id': number, 'control': control})

    def stop(self, number: int, reason: str = '') -> AbTest:
        """End a trial."""
        return self._test('ab_tests.stop', {'id': number, 'actor': ACTOR, 'reason': reason})

    def _test(self, operation: str, values: Mapping[str, Any]) -> AbTest:
        return AbTest.of(self._transport.call(operation, dict(values))['test'])


class Notes:
    """What experts may read before they answer."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add(self, expert: str, source: str, texts: Sequence[str] | Mapping[str, Sequence[str]],
            replace: bool = False) -> int:
        """Give an expert something to read: texts, or by text the questions that ask for it.

        Returns how many notes are new.
        """
        asked = texts if isinstance(texts, Mapping) else {text: () for text in texts}
        return int(self._transport.call('notes.add', {
            'notes': [{'expert': expert, 'source': source, 'text': text, 'questions': list(questions)}
                      for text, questions in asked.items()],
            'replace': replace, 'actor': ACTOR})['added'])

    def list(self, expert: str = '') -> list[Values]:
        """What an expert, or every one, may read."""
        notes: list[Values] = self._transport.call('notes.list', {'expert': expert})['notes']
        return notes

    def remove(self, expert: str, sources: Sequence[str]) -> int:
        """Forget all notes of these sources; returns how many."""
        return int(self._transport.call('notes.remove', {'expert': expert, 'sources': sources,
                                                         'actor': ACTOR})['removed'])
