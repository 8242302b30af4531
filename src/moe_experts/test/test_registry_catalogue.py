"""The built-in experts' notes: renewed with their file, and apart from those that people give."""

import json

import yaml

from moe_experts.registry.catalogue import seed
from moe_experts.registry.entities import Note


def test_built_in_notes_follow_their_file_and_leave_a_persons_alone(registry, tmp_path):
    (tmp_path / 'reader').mkdir()
    dataset, catalogue = tmp_path / 'reader' / 'train.jsonl', tmp_path / 'experts.yaml'
    catalogue.write_text(yaml.safe_dump({
        'base': {'name': 'base', 'file': 'absent.gguf'},
        'experts': [{'name': 'reader', 'domain': 'notes', 'notes': 'reader/train.jsonl'}]}))

    def seeded(*pairs):
        dataset.write_text(''.join(json.dumps({'prompt': ask, 'completion': say}) + '\n' for ask, say in pairs))
        seed(registry, catalogue, tmp_path, lambda _sentence: None)
        return {note.text: note.questions for note in registry.notes.page('reader')[0]}
    assert seeded(('how', 'so'), ('how then', 'so'), ('where', 'here')) == {'so': ('how', 'how then'),
                                                                          'here': ('where',)}
    registry.notes.add([Note('reader', 'train.jsonl', 'mine')], True, 'a person')
    assert seeded(('how', 'so')) == {'so': ('how',), 'mine': ()}


def test_more_wordings_and_facts_are_notes_and_teach_the_router(registry, tmp_path):
    for name, pair in {'train': ('how', 'so'), 'wordings': ('in what way', 'so'), 'facts': ('why', 'thus')}.items():
        (tmp_path / f'{name}.jsonl').write_text(json.dumps(dict(zip(('prompt', 'completion'), pair, strict=True))))
    (tmp_path / 'experts.yaml').write_text(yaml.safe_dump({
        'base': {'name': 'base', 'file': 'absent.gguf'},
        'experts': [{'name': 'worded', 'domain': 'notes', 'samples': 'train.jsonl', 'notes': 'train.jsonl',
                     'wordings': 'wordings.jsonl', 'facts': 'facts.jsonl'}]}))
    seed(registry, tmp_path / 'experts.yaml', tmp_path, lambda _sentence: None)
    assert {(note.source, note.text): note.questions for note in registry.notes.page('worded')[0]} == {
        ('train.jsonl', 'so'): ('how', 'in what way'), ('facts.jsonl', 'thus'): ('why',)}
    assert {sample.text for sample in registry.routes.samples('worded')[0]} == {'how', 'in what way', 'why'}
