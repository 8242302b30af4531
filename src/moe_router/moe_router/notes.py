"""Notes of the experts: found by the router's encoder, read by the expert in its prompt."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

NEAREST = 3  # keys of a note that count
LEAST = 0.3


@dataclass(frozen=True)
class Note:
    """A text that an expert may read; fields as in moe_interfaces/Note."""

    id: int
    expert: str
    source: str
    text: str
    score: float = 0.0
    questions: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """What it is found by: its text and the questions that ask for it."""
        return (self.text, *self.questions)


@dataclass(frozen=True)
class _Notes:
    """An expert's notes, the vectors of all their keys, and for each note the rows of its keys (padded behind them)."""

    notes: tuple[Note, ...] = ()
    matrix: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 384), np.float32))
    rows: NDArray[np.intp] = field(default_factory=lambda: np.empty((0, 1), np.intp))


class NoteIndex:
    """The notes of all experts in memory, a matrix each; safe to use from several threads.

    Args:
        encode: unit vectors (n, 384) of texts.
    """

    def __init__(self, encode: Callable[[Sequence[str]], NDArray[np.float32]]) -> None:
        self._encode, self._lock = encode, threading.Lock()
        self._notes: dict[str, _Notes] = {}

    def count(self, expert: str) -> int:
        """How many notes an expert has."""
        return len(self._notes[expert].notes) if expert in self._notes else 0

    def replace(self, expert: str, notes: Sequence[Note]) -> None:
        """Set all notes of an expert; only keys that were not there are embedded."""
        before = self._notes.get(expert, _Notes())
        known = dict(zip((key for note in before.notes for key in note.keys), before.matrix, strict=True))
        keys = [key for note in notes for key in note.keys]
        missing = [key for key in dict.fromkeys(keys) if key not in known]
        if missing:
            known.update(zip(missing, self._encode(missing), strict=True))
        matrix = np.array([known[key] for key in keys], np.float32).reshape(-1, 384)
        rows = np.full((len(notes), max((len(note.keys) for note in notes), default=1)), len(keys))
        first = 0
        for row, note in zip(rows, notes, strict=True):
            row[:len(note.keys)] = range(first, first + len(note.keys))
            first += len(note.keys)
        with self._lock:
            self._notes[expert] = _Notes(tuple(notes), matrix, rows)

    def find(self, expert: str, vector: NDArray[np.float32], most: int, budget: int, margin: float = 2.0,
             least: float = LEAST) -> list[Note]:
        """The best notes for a prompt's unit vector, best first, each with that of its questions which is nearest.

        A note's score is the mean of two cosines: of its nearest key, and of its NEAREST nearest ones together.

        Args:
            budget: bytes of UTF-8 that they may take together; one that does not fit any more is passed over.
            margin: notes that are so much farther than the best one are left out. Where several remain, it is
                doubtful which is meant.
            least: score below which a note has nothing to do with the prompt.
        """
        with self._lock:
            held = self._notes.get(expert, _Notes())
        if not held.notes or most <= 0:
            return []
        cosines = np.append(held.matrix @ vector, np.nan)[held.rows]  # (notes, keys), without a key not a number
        near = -np.sort(-cosines, axis=1)[:, :NEAREST]
        scores = (near[:, 0] + np.nanmean(near, axis=1)) / 2
        order = np.argsort(-scores, kind='stable')
        least = max(least, float(scores[order[0]]) - margin)
        found: list[Note] = []
        for place in order[:4 * most]:
            if scores[place] < least or len(found) == most:
                break
            note = held.notes[place]
            nearest = int(np.nanargmax(cosines[place, 1:])) if note.questions else 0
            one = replace(note, score=float(scores[place]), questions=note.questions[nearest:nearest + 1])
            size = len(line(one).encode('utf-8', 'replace'))
            if size <= budget:
                budget -= size
                found.append(one)
        return found


def line(note: Note) -> str:
    """A note as it stands in a prompt, behind its question where it has one; experts are trained on this form."""
    text = ' '.join(note.text.split())
    question = ' '.join(note.questions[0].split()).rstrip('?.!: ') if note.questions else ''
    return f'- {question}: {text}' if question else f'- {text}'


def read_of(found: Sequence[Note]) -> Sequence[Note]:
    """Those of the notes found that the expert reads: the best alone, where questions ask for it, otherwise all.

    Of several notes a 135M expert takes the right one less often (70 % of held-out prompts) than the encoder puts it
    first (90 %).
    """
    return found[:1] if found and found[0].questions else found


def word_for_word(note: Note) -> str:
    """A grammar (llguidance's Lark) that leaves an expert nothing to say but the note's text."""
    return f'start: {json.dumps(" ".join(note.text.split()), ensure_ascii=False)}'


def block(notes: Sequence[Note]) -> str:
    """Notes as they stand in the prompt, one a line."""
    return '\n'.join(['Notes:', *map(line, notes)])
