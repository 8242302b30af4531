"""Notes in front of prompts: drawn for training, the nearest one in evaluation."""

import json

import pytest

from moe_training.dataset import Example
from moe_training.errors import DatasetError
from moe_training.notes import NONE_FITS, NotedExamples, facts_of, line, write_facts

ANSWERS = {f'answer {index}': [f'{verb} the {thing}' for verb in ('open', 'how do I open', 'please unlock')]
           for index, thing in enumerate(('garage', 'kitchen window', 'red drawer', 'tool box', 'fridge', 'gate',
                                          'battery hatch', 'cable duct', 'cupboard', 'safe'))}
EXAMPLES = [Example((('user', question),), answer) for answer, questions in ANSWERS.items() for question in questions]


@pytest.fixture(scope='module')
def noted():
    return NotedExamples(EXAMPLES, 3, seed=1)


def parts(example):
    """The notes in front of a prompt as lines, and the prompt."""
    before, _, prompt = example.prompt.rpartition('\n\n')
    return before.splitlines()[1:], prompt


def test_facts_are_the_answers_with_their_questions():
    talk = Example((('user', 'a'), ('assistant', 'b'), ('user', 'c')), 'd')
    facts = facts_of([*EXAMPLES, talk, Example((), 'a text')])
    assert {fact.text: list(fact.questions) for fact in facts} == ANSWERS


def test_in_evaluation_the_nearest_note_is_read_alone(noted):
    found, = noted.asked([Example((('system', 's'), ('user', 'the garage, open it')), 'answer 0')])
    lines, prompt = parts(found)
    assert (found.messages[0], found.completion, prompt) == (('system', 's'), 'answer 0', 'the garage, open it')
    assert lines == ['- open the garage: answer 0']


def test_a_prompt_is_not_its_own_note(noted):
    lines, prompt = parts(noted.asked([EXAMPLES[0]])[0])
    assert prompt == 'open the garage' and not any(row.startswith('- open the garage:') for row in lines)


def test_draws_teach_to_read_to_doubt_and_to_do_without(noted):
    drawn = noted.drawn(EXAMPLES * 20)
    bare = [row for row in drawn if not row.prompt.startswith('Notes:')]
    doubting = [row for row in drawn if row.completion == NONE_FITS]
    reading = [row for row in drawn if row not in bare and row not in doubting]
    right = {question: answer for answer, questions in ANSWERS.items() for question in questions}
    told_else = [row for row in reading if right[parts(row)[1]] != row.completion]
    for rows, share in ((bare, 0.4), (doubting, 0.15), (told_else, 0.15 * 9 / 10)):
        assert abs(len(rows) / len(drawn) - share) < 0.03
    assert all(row.completion == right[row.prompt] for row in bare)
    assert all(any(row.completion == text.split(': ')[-1].removeprefix('- ') for text in parts(row)[0])
               for row in reading)
    assert not any(right[parts(row)[1]] in text for row in doubting for text in parts(row)[0])
    counts = [len(parts(row)[0]) for row in reading + doubting]
    assert all(abs(counts.count(number) / len(counts) - 1 / 3) < 0.05 for number in (1, 2, 3))
    honest = [row for row in reading if row not in told_else and len(parts(row)[0]) == 3]
    first = sum(row.completion in parts(row)[0][0] for row in honest) / len(honest)
    assert 0.65 < first < 0.85


def test_the_same_seed_draws_the_same(noted):
    assert noted.drawn(EXAMPLES) == NotedExamples(EXAMPLES, 3, seed=1).drawn(EXAMPLES)
    assert noted.drawn(EXAMPLES) != NotedExamples(EXAMPLES, 3, seed=2).drawn(EXAMPLES)


def test_what_asks_no_single_question_stays_as_it_is(noted):
    text = Example((), 'a text')
    assert noted.asked([text]) == [text] and noted.drawn([text]) == [text] * 4


def test_too_few_answers_are_refused():
    with pytest.raises(DatasetError, match='need more than 3 different answers'):
        NotedExamples(EXAMPLES[:9], 3, seed=1)


def test_facts_are_kept_for_the_registry(tmp_path):
    write_facts(facts_of(EXAMPLES), tmp_path / 'notes.jsonl')
    rows = [json.loads(row) for row in (tmp_path / 'notes.jsonl').read_text().splitlines()]
    assert {row['text']: row['questions'] for row in rows} == ANSWERS


def test_a_note_has_one_line():
    assert line('What is\n it? ', 'one\n two') == '- What is it: one two'
    assert line('', 'one') == '- one'
