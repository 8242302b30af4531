"""Notes: texts that an expert may read before it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sqlalchemy import ARRAY, Boolean, Text, and_, case, delete, func, literal, literal_column, or_, select
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Session

from moe_experts.registry.entities import Note
from moe_experts.registry.errors import RegistryError
from moe_experts.registry.tables import ExpertRow, NoteRow
from moe_experts.registry.transactions import Transactions, check_page, find

_ROWS = 2000  # per INSERT; Postgres takes 65,535 parameters
_INSERTED = literal_column('(xmax = 0)', Boolean)  # false for a row that was there
_ALSO_ASKED = literal_column(
    'ARRAY(SELECT q FROM unnest(notes.questions) AS q WHERE q <> ALL (excluded.questions))', ARRAY(Text))


class Notes:
    """Operations on notes."""

    def __init__(self, transactions: Transactions) -> None:
        self._begin = transactions.begin
        self._read = transactions.read

    def add(self, notes: Sequence[Note], replace: bool, actor: str) -> tuple[int, int]:
        """Add notes; a text that the expert has already is not added again, but takes the questions given with it.

        Questions that came with it from another source stay as well.

        Args:
            replace: forget the experts' earlier notes of the same sources, texts that come again excepted.

        Returns how many were added and removed. Raises ExpertNotFound, RegistryError.
        """
        if any(not text.strip() or '\0' in text for note in notes for text in (note.text, *note.questions)):
            raise RegistryError('A note or one of its questions is empty or contains a NUL character.')
        added = removed = 0
        with self._begin(actor) as session:
            ids = {name: find(session, 0, name).id for name in sorted({note.expert for note in notes})}
            once = {(note.expert, note.text): note for note in notes}
            rows = [{'expert_id': ids[note.expert], 'source': note.source, 'text': note.text,
                     'questions': list(note.questions), 'digest': hashlib.sha256(note.text.encode()).hexdigest()}
                    for note in once.values()]
            if replace:
                for expert_id in ids.values():
                    own = [row for row in rows if row['expert_id'] == expert_id]
                    removed += len(session.scalars(delete(NoteRow).where(
                        NoteRow.expert_id == expert_id, NoteRow.source.in_({row['source'] for row in own}),
                        NoteRow.digest.not_in([row['digest'] for row in own])).returning(NoteRow.id)).all())
            for start in range(0, len(rows), _ROWS):
                statement = insert(NoteRow).values(rows[start:start + _ROWS])
                added += sum(session.scalars(_merging(statement).returning(_INSERTED)).all())
        return added, removed

    def page(self, expert: str = '', after_id: int = 0, limit: int = 1000) -> tuple[list[Note], int]:
        """Notes by id after one of them, and how many the expert (or all) has."""
        check_page(0, limit, 10000)
        conditions = [NoteRow.expert_id == select(ExpertRow.id).where(
            ExpertRow.name == expert, ExpertRow.deleted_at.is_(None)).scalar_subquery()] if expert else []
        with self._read() as session:
            total = session.scalar(select(func.count(NoteRow.id)).where(*conditions)) or 0
            page = session.execute(select(NoteRow, ExpertRow.name).join(ExpertRow).where(
                NoteRow.id > after_id, *conditions).order_by(NoteRow.id).limit(limit))
            return [Note(name, row.source, row.text, row.id, row.digest, row.created_at,
                         tuple(row.questions)) for row, name in page], total

    def remove(self, expert: str, ids: Sequence[int], sources: Sequence[str], actor: str) -> int:
        """Remove notes by id and by source; returns how many. Raises ExpertNotFound."""
        with self._begin(actor) as session:
            row = find(session, 0, expert)
            return len(session.scalars(delete(NoteRow).where(NoteRow.expert_id == row.id, or_(
                NoteRow.id.in_(ids), NoteRow.source.in_(sources))).returning(NoteRow.id)).all())


def hand_on(session: Session, giver: int, taker: int) -> None:
    """Let one expert (id) read the notes of another as well, within a transaction."""
    columns = (NoteRow.source, NoteRow.text, NoteRow.questions, NoteRow.digest)
    session.execute(_merging(insert(NoteRow).from_select(
        ['expert_id', *(column.key for column in columns)],
        select(literal(taker), *columns).where(NoteRow.expert_id == giver))))


def _merging(statement: Insert) -> Insert:
    """A text that the expert has already takes the questions that come with it, if any.

    Those of another source stay: a training knows its own dataset's wordings alone.
    """
    given = statement.excluded
    questions = case((NoteRow.source == given.source, given.questions),
                     else_=given.questions.op('||')(_ALSO_ASKED))
    return statement.on_conflict_do_update(
        index_elements=['expert_id', 'digest'], set_={'questions': questions},
        where=and_(questions != NoteRow.questions, given.questions != []))
