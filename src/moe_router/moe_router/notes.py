"""Notes of the experts: found by the router's encoder, read by the expert in its prompt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Note:
    """A text that an expert may read; fields as in moe_interfaces/Note."""

    id: int
    expert: str
    source: str
    text: str
    score: float = 0.0


class NoteIndex:
    """The notes of all experts in memory, a matrix each; safe to use from several threads.

    Args:
        encode: unit vectors (n, 384) of texts.
    """

    def __init__(self, encode: Callable[[Sequence[str]], NDArray[np.float32]]) -> None:
        self._encode, self._lock = encode, threading.Lock()
        self._notes: dict[str, tuple[tuple[Note, ...], NDArray[np.float32]]] = {}

    def count(self, expert: str) -> int:
        """How many notes an expert has."""
        return len(self._notes[expert][0]) if expert in self._notes else 0

    def replace(self, expert: str, notes: Sequence[Note]) -> None:
        """Set all notes of an expert; only texts that were not there are embedded."""
        before = self._notes.get(expert, ((), np.empty((0, 384), np.float32)))
        known = {note.text: row for note, row in zip(*before, strict=True)}
        missing = [note.text for note in notes if note.text not in known]
        if missing:
            known.update(zip(missing, self._encode(missing), strict=True))
        matrix = np.array([known[note.text] for note in notes], np.float32).reshape(-1, 384)
        with self._lock:
            self._notes[expert] = (tuple(notes), matrix)

    def find(self, expert: str, vector: NDArray[np.float32], most: int, budget: int,
             least: float = 0.2) -> list[Note]:
        """The best notes for a prompt's unit vector, best first.

        Args:
            budget: bytes of UTF-8 that they may take together; one that does not fit any more is passed over.
            least: cosine below which a note has nothing to do with the prompt.
        """
        with self._lock:
            notes, matrix = self._notes.get(expert, ((), np.empty((0, 384), np.float32)))
        if not notes or most <= 0:
            return []
        scores = matrix @ vector
        found: list[Note] = []
        for row in np.argsort(-scores, kind='stable')[:4 * most]:
            note, size = notes[row], len(notes[row].text.encode('utf-8', 'replace'))
            if scores[row] < least or len(found) == most:
                break
            if size <= budget:
                budget -= size
                found.append(Note(note.id, note.expert, note.source, note.text, float(scores[row])))
        return found


def block(notes: Sequence[Note]) -> str:
    """Notes as they stand in the prompt, one a line."""
    return 'Notes:\n' + '\n'.join(f'- {" ".join(note.text.split())}' for note in notes)
