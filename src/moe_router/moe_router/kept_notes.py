"""Notes as the registry gave them last, kept in files: a router that starts, or whose registry is away, has them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from moe_router.kept_vectors import Stopped
from moe_router.notes import Note, NoteIndex
from moe_router.whole_file import replacing


class KeptNotes:
    """Sets an index's notes and remembers them; not for several threads at once.

    Args:
        index: receives what the files hold; a damaged one counts as none.
        folder: holds EXPERT.json.
        known: whether the vectors of these keys are; where they are not, the registry gives the notes again, and
            nobody waits for them at a start.
    """

    def __init__(self, index: NoteIndex, folder: Path, known: Callable[[Sequence[str]], bool]) -> None:
        self._index, self._folder = index, folder
        self._kept: dict[str, list[Note]] = {}
        for path in sorted(folder.glob('*.json')):
            with contextlib.suppress(OSError, ValueError, TypeError):
                rows = json.loads(path.read_text(encoding='utf-8'))
                notes = [Note(**{**row, 'questions': tuple(row['questions'])}) for row in rows]
                if known([key for note in notes for key in note.keys]):
                    index.replace(path.stem, notes)
                    self._kept[path.stem] = notes

    def experts(self) -> list[str]:
        """Those that have notes."""
        return list(self._kept)

    def replace(self, expert: str, notes: Sequence[Note]) -> None:
        """Set all notes of an expert; where the disk is full they last till the end."""
        if list(notes) == self._kept.get(expert, []):
            return
        try:
            self._index.replace(expert, notes)
        except Stopped:
            return
        path = self._folder / f'{expert}.json'
        with contextlib.suppress(OSError):
            if notes:
                self._kept[expert] = list(notes)
                with replacing(path) as file:
                    file.write(json.dumps([asdict(note) for note in notes]).encode())
            else:
                self._kept.pop(expert, None)
                path.unlink(missing_ok=True)
