"""Experts are trained on notes in the very form in which the router writes them."""

from __future__ import annotations

import pytest

from moe_router import notes as asked
from moe_training import notes as trained
from moe_training.dataset import Example


@pytest.mark.parametrize('question', ['', 'how?', 'Where is\n the key: ', 'show every topic'])
@pytest.mark.parametrize('text', ['Run `ros2 topic list`.', 'one\n two  three'])
def test_a_note_is_written_alike(question, text):
    note = asked.Note(1, 'expert', 'source', text, questions=(question,) if question else ())
    assert trained.line(question, text) == asked.line(note)


def test_a_prompt_is_put_together_alike():
    examples = [Example((('user', f'question {index}'),), f'answer {index}') for index in range(4)]
    noted, = trained.NotedExamples(examples, 1, seed=1).asked([Example((('user', 'question 2?'),), '')])
    note = asked.Note(1, 'expert', 'source', 'answer 2', questions=('question 2',))
    assert noted.prompt == f'{asked.block([note])}\n\nquestion 2?'
