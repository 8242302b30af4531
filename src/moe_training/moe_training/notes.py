"""Notes in front of prompts: an expert learns to read them, and to say so where none fits.

Retrieval-augmented fine-tuning (RAFT, arXiv 2403.10131): the answer's own note stands among those of similar
questions. A note is an answer of the dataset with a question that asks for it, written as the router writes it
(moe_router/notes.py). So that the answer is read and not recalled, in some draws the notes say other things than the
dataset does; in some the right note is missing, and in some there are none at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_training.atomic_files import atomic_path
from moe_training.dataset import Example
from moe_training.errors import DatasetError

NONE_FITS = 'None of my notes says that.'
DRAWS = 4  # of notes for each row of a dataset
# Shares of the draws: no notes at all, the right one missing, notes with the answers of other questions.
BARE, MISSING, SWAPPED = 0.4, 0.15, 0.15
WITHOUT_QUESTION = 0.15  # of the notes: only a text, as one from a Markdown file
FIRST = 0.75  # share of right notes in the first place; of the rest as many in the second, and so on


@dataclass(frozen=True)
class Fact:
    """An answer of a dataset and all questions that it answers."""

    text: str
    questions: tuple[str, ...]


def facts_of(examples: Sequence[Example]) -> list[Fact]:
    """The answers to single questions, in the order of the dataset."""
    found: dict[str, dict[str, None]] = {}
    for example in examples:
        if [role for role, _text in example.messages if role != 'system'] == ['user']:
            found.setdefault(example.completion, {})[example.prompt] = None
    return [Fact(text, tuple(questions)) for text, questions in found.items()]


def write_facts(facts: Sequence[Fact], path: Path) -> None:
    """Keep facts for the registry: one JSON object with text and questions a line."""
    with atomic_path(path) as temporary:
        temporary.write_text(''.join(json.dumps({'text': fact.text, 'questions': fact.questions}) + '\n'
                                     for fact in facts))


def line(question: str, text: str) -> str:
    """A note as it stands in a prompt."""
    text, question = ' '.join(text.split()), ' '.join(question.split()).rstrip('?.!: ')
    return f'- {question}: {text}' if question else f'- {text}'


@dataclass(frozen=True)
class _Choice:
    """An example's own fact, the nearest others, and of each the question that is nearest to the example's."""

    own: int
    others: list[int]
    questions: dict[int, str]


class NotedExamples:
    """Puts notes in front of the prompts of a dataset.

    Args:
        examples: the training rows; the notes are their answers.
        most: notes in front of a prompt.
        seed: of all draws.

    Raises DatasetError where the rows have fewer different answers than notes are asked for.
    """

    def __init__(self, examples: Sequence[Example], most: int, seed: int) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.facts, self._most, self._seed = facts_of(examples), most, seed
        if len(self.facts) <= most:
            raise DatasetError(f'{most} notes in front of a prompt need more than {most} different answers to single '
                               f'questions, the dataset has {len(self.facts)}; add rows or train without notes.')
        self._place = {fact.text: place for place, fact in enumerate(self.facts)}
        self._questions = [question for fact in self.facts for question in fact.questions]
        sizes = [len(fact.questions) for fact in self.facts]
        self._starts = np.cumsum([0, *sizes[:-1]])
        self._vectorizer: Any = TfidfVectorizer(analyzer='char_wb', ngram_range=(2, 4), sublinear_tf=True)
        self._matrix = self._vectorizer.fit_transform(self._questions)
        self._columns: dict[str, list[int]] = {}
        for column, question in enumerate(self._questions):
            self._columns.setdefault(question, []).append(column)

    def _ranked(self, prompts: Sequence[str]) -> Iterator[tuple[list[int], list[str]]]:
        """For each prompt the facts by similarity of their nearest question, and that question of each fact.

        A prompt is not near to itself. One row of similarities is in memory at a time.
        """
        ends = [*self._starts[1:], len(self._questions)]
        for prompt, vector in zip(prompts, self._vectorizer.transform(prompts), strict=True):
            row: NDArray[np.float64] = (vector @ self._matrix.T).toarray().ravel()
            row[self._columns.get(prompt, [])] = 0.0
            nearest = [self._questions[start + int(row[start:end].argmax())]
                       for start, end in zip(self._starts, ends, strict=True)]
            scores = np.maximum.reduceat(row, self._starts)
            yield [int(place) for place in np.argsort(-scores, kind='stable')], nearest

    @staticmethod
    def _before(example: Example, lines: list[str]) -> Example:
        role, prompt = example.messages[-1]
        return replace(example, messages=(*example.messages[:-1], (role, '\n'.join(['Notes:', *lines, '', prompt]))))

    def asked(self, examples: Sequence[Example]) -> list[Example]:
        """Examples with the nearest note, which is read alone when an expert is asked; texts stay as they are."""
        out = []
        ranked = self._ranked([example.prompt for example in examples])
        for example, (order, nearest) in zip(examples, ranked, strict=True):
            first = line(nearest[order[0]], self.facts[order[0]].text)
            out.append(self._before(example, [first]) if example.messages else example)
        return out

    def drawn(self, examples: Sequence[Example]) -> list[Example]:
        """DRAWS of every example, each with other notes; conversations of several turns and texts come bare."""
        random = np.random.default_rng(self._seed)
        ranked = self._ranked([example.prompt for example in examples])
        choices = [self._choice(example, *each) for example, each in zip(examples, ranked, strict=True)]
        return [self._draw(example, choice, random) for _ in range(DRAWS)
                for example, choice in zip(examples, choices, strict=True)]

    def _choice(self, example: Example, order: list[int], nearest: list[str]) -> _Choice | None:
        """What an example's notes are drawn from; None where it has no note of its own."""
        own = self._place.get(example.completion) if example.messages else None
        if own is None:
            return None
        others = [place for place in order if place != own][:3 * self._most]
        return _Choice(own, others, {place: nearest[place] for place in (own, *others)})

    def _draw(self, example: Example, choice: _Choice | None, random: np.random.Generator) -> Example:
        kind = random.random()
        if choice is None or kind < BARE:
            return example
        own, others = choice.own, choice.others
        count = int(random.integers(self._most)) + 1  # the router leaves out what is clearly farther than the nearest
        # the nearest others, not always the very nearest
        weights = 0.7 ** np.arange(len(others))
        shown = [int(place) for place in random.choice(others, min(count, len(others)), replace=False,
                                                       p=weights / weights.sum())]
        shown.sort(key=others.index)
        if kind < BARE + MISSING:
            completion = NONE_FITS
        else:
            shown.insert(min(int(random.geometric(FIRST)), count) - 1, own)
            shown, completion = shown[:count], example.completion
        texts = {place: self.facts[place].text for place in shown}
        if swapped := BARE + MISSING <= kind < BARE + MISSING + SWAPPED:
            said = random.choice(len(self.facts), len(shown), replace=False)
            texts = {place: self.facts[int(other)].text for place, other in zip(shown, said, strict=True)}
            completion = texts[own]
        bare = (random.random(len(shown)) < WITHOUT_QUESTION) & (not swapped)
        lines = [line('' if without else choice.questions[place], texts[place])
                 for place, without in zip(shown, bare, strict=True)]
        return replace(self._before(example, lines), completion=completion)
