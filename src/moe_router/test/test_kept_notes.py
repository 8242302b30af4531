"""Notes over a restart."""

import pytest

from moe_router.kept_notes import KeptNotes
from moe_router.kept_vectors import KeptVectors
from moe_router.notes import Note, NoteIndex

NOTES = [Note(1, 'helper', 'house.md', 'The dock stands beside the door.', questions=('where is the dock', 'dock?')),
         Note(2, 'helper', 'house.md', 'Größe: 30 cm.')]


@pytest.fixture
def start(encoder, tmp_path):
    def begin():
        vectors = KeptVectors(encoder.encode, tmp_path / 'vectors.npz', encoder.name, lambda: False)
        index = NoteIndex(vectors.encode)
        return KeptNotes(index, tmp_path / 'notes', vectors.knows), index
    return begin


def found(index, encoder, text='where is the dock'):
    return [note.text for note in index.find('helper', encoder.encode([text])[0], 3, 1000)]


def test_notes_are_there_after_a_restart_before_anybody_gave_them(start, encoder, tmp_path):
    kept, index = start()
    assert kept.experts() == [] and index.count('helper') == 0
    kept.replace('helper', NOTES)
    again, index = start()
    assert again.experts() == ['helper'] and found(index, encoder)[0] == NOTES[0].text
    assert found(index, encoder, 'how tall is it, the size') == [NOTES[1].text]
    assert [path.name for path in (tmp_path / 'notes').iterdir()] == ['helper.json']


def test_nothing_is_embedded_at_a_start(start, tmp_path):
    start()[0].replace('helper', NOTES)
    (tmp_path / 'vectors.npz').unlink()
    kept, index = start()
    assert kept.experts() == [] and index.count('helper') == 0
    kept.replace('helper', NOTES)
    assert start()[1].count('helper') == 2


def test_removed_notes_stay_removed(start):
    kept, _index = start()
    kept.replace('helper', NOTES)
    kept.replace('helper', [])
    again, index = start()
    assert kept.experts() == again.experts() == [] and index.count('helper') == 0


def test_a_damaged_file_counts_as_none_and_is_replaced(start, tmp_path):
    kept, _index = start()
    kept.replace('helper', NOTES)
    for damage in ('[{"id": 1', '{}', '[1]', '[{"id": 1, "questions": 3}]', '[{"questions": []}]'):
        (tmp_path / 'notes' / 'helper.json').write_text(damage)
        kept, index = start()
        assert index.count('helper') == 0
    kept.replace('helper', NOTES)
    assert start()[1].count('helper') == 2


def test_without_room_on_the_disk_they_last_till_the_end(start, tmp_path):
    (tmp_path / 'notes').write_text('no folder')
    kept, index = start()
    kept.replace('helper', NOTES)
    assert index.count('helper') == 2 and kept.experts() == ['helper']
