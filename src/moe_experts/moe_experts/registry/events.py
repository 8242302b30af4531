"""The log of every transition, read; triggers write it."""

from __future__ import annotations

from sqlalchemy import func, select

from moe_experts.registry.entities import Event
from moe_experts.registry.tables import EventRow
from moe_experts.registry.transactions import Transactions, check_page

CHANNEL = 'moe_events'  # of NOTIFY, with the sequence as payload


class Events:
    """Reads the log."""

    def __init__(self, transactions: Transactions) -> None:
        self._read = transactions.read

    def after(self, sequence: int = 0, expert: str = '', limit: int = 1000) -> tuple[list[Event], int]:
        """Transitions after a sequence number, oldest first, and the newest number there is."""
        check_page(0, limit)
        query = select(EventRow).where(EventRow.sequence > sequence).order_by(EventRow.sequence).limit(limit)
        if expert:
            query = query.where(EventRow.expert == expert)
        with self._read() as session:
            last = session.scalar(select(func.max(EventRow.sequence))) or 0
            return [Event.of(row) for row in session.scalars(query)], last
