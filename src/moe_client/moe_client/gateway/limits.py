"""Requests per minute and caller, counted in SQLite: in memory, or in a file that several workers share."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

WINDOW_S = 60


@dataclass(frozen=True)
class Allowance:
    """What is left to a caller in this window; `allowed` is False when this request is already too much."""

    limit: int
    remaining: int
    reset_s: int
    allowed: bool

    def headers(self) -> dict[str, str]:
        """X-RateLimit-*."""
        return {'X-RateLimit-Limit': str(self.limit), 'X-RateLimit-Remaining': str(self.remaining),
                'X-RateLimit-Reset': str(self.reset_s)}


class RateLimiter:
    """Counts requests in fixed windows of a minute.

    Args:
        limit: requests per window; 0 = any number.
        path: file that workers share; None = memory of this process.
    """

    def __init__(self, limit: int, path: Path | None = None) -> None:
        self._limit = limit
        self._database = sqlite3.connect(path or ':memory:', isolation_level=None, check_same_thread=False, timeout=5.0)
        self._database.execute('PRAGMA journal_mode=WAL')
        self._database.execute('PRAGMA synchronous=OFF')  # a count that a power cut takes along is no loss
        self._database.execute('CREATE TABLE IF NOT EXISTS requests (caller TEXT, window INTEGER, count INTEGER, '
                               'PRIMARY KEY (caller, window)) WITHOUT ROWID')

    def take(self, caller: str) -> Allowance | None:
        """Count a request; None = there is no limit."""
        if not self._limit:
            return None
        now = time.time()
        window = int(now // WINDOW_S)
        count = self._database.execute(
            'INSERT INTO requests VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count',
            (caller, window)).fetchone()[0]
        if count == 1:
            self._database.execute('DELETE FROM requests WHERE window < ?', (window,))
        return Allowance(self._limit, max(0, self._limit - count), max(1, round((window + 1) * WINDOW_S - now)),
                         count <= self._limit)

    def close(self) -> None:
        """Close the database."""
        self._database.close()
