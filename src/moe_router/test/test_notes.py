"""Notes are found by meaning, under a budget."""

import pytest

from moe_router.notes import Note, NoteIndex, block, read_of

TEXTS = ['The spare battery is in the red drawer.', 'The dock stands beside the kitchen door.',
         'The emergency stop is the yellow button on the left arm.', 'Charge to 80 % for storage.']


@pytest.fixture(scope='module')
def index(encoder):
    found = NoteIndex(encoder.encode)
    found.replace('helper', [Note(number, 'helper', 'house.md', text) for number, text in enumerate(TEXTS, 1)])
    return found


def ask(index, encoder, text, expert='helper', **limits):
    return index.find(expert, encoder.encode([text])[0], **{'most': 3, 'budget': 1000, **limits})


def test_the_right_note_comes_first_with_its_score(index, encoder):
    first, *_others = ask(index, encoder, 'where do I find the spare battery')
    assert first.id == 1 and first.source == 'house.md' and 0.4 < first.score <= 1.0


def test_the_budget_and_the_number_are_kept(index, encoder):
    found = ask(index, encoder, 'where is the dock and the emergency stop', budget=60)
    assert found and sum(len(note.text) for note in found) <= 60
    assert len(ask(index, encoder, 'where is the dock', most=1)) == 1
    assert ask(index, encoder, 'where is the dock', most=0) == []


def test_what_has_nothing_to_do_with_the_prompt_is_left_out(index, encoder):
    assert ask(index, encoder, 'integrate x squared dx', least=0.3) == []
    assert index.find('nobody', encoder.encode(['x'])[0], 3, 1000) == []


def test_a_new_note_is_there_at_once_and_a_removed_one_gone(index, encoder):
    notes = [Note(9, 'other', 'a', 'The key hangs under the stairs.')]
    index.replace('other', notes)
    assert index.find('other', encoder.encode(['where is the key'])[0], 3, 1000)[0].id == 9
    index.replace('other', [])
    assert index.count('other') == 0 and index.find('other', encoder.encode(['key'])[0], 3, 1000) == []


def test_a_note_is_found_by_the_questions_that_ask_for_it_and_names_the_nearest(encoder):
    index = NoteIndex(encoder.encode)
    cook = [Note(1, 'cook', 'a', 'Nine bars.', questions=('How hot is the water?', 'Which pressure for espresso?')),
            Note(2, 'cook', 'a', 'A quarter of an hour.', questions=('How long does bread rest?',)),
            Note(3, 'cook', 'a', 'The tyres take two bars.')]
    index.replace('cook', cook)
    first, *_others = ask(index, encoder, 'what pressure does an espresso need', 'cook', most=2)
    assert (first.id, first.questions) == (1, ('Which pressure for espresso?',))
    assert first.score > encoder.encode(['what pressure does an espresso need'])[0] @ encoder.encode(['Nine bars.'])[0]
    assert ask(index, encoder, 'air in the tyres', 'cook', most=1)[0].questions == ()
    index.replace('cook', cook[1:])
    assert 1 not in [note.id for note in ask(index, encoder, 'what pressure does an espresso need', 'cook')]


def test_what_is_clearly_farther_is_left_out_and_what_is_asked_for_is_read_alone(encoder):
    index = NoteIndex(encoder.encode)
    doors = [Note(1, 'porter', 'a', 'Blue key.', questions=('Which key opens the front door?',)),
             Note(2, 'porter', 'a', 'Red key.', questions=('Which key opens the back door?',)),
             Note(3, 'porter', 'a', 'The lamp needs two batteries of size AA.')]
    index.replace('porter', doors)
    near = ask(index, encoder, 'key for the door?', 'porter', margin=0.1)
    assert {note.id for note in near} == {1, 2} and read_of(near) == near[:1]
    assert [note.id for note in ask(index, encoder, 'Which key opens the front door?', 'porter', margin=0.0)] == [1]
    assert len(ask(index, encoder, 'key for the door?', 'porter', margin=2.0, least=-1.0)) == 3
    plain = [note for note in doors if not note.questions] * 2
    assert read_of(plain) == plain and read_of([]) == []


def test_a_block_has_a_line_per_note():
    asked = Note(2, 'a', 's', 'three', questions=('What comes\nbehind two?',))
    assert block([Note(1, 'a', 's', 'one\n two'), asked]) == 'Notes:\n- one two\n- What comes behind two: three'
