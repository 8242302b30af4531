"""The outbox: writes that must not be lost while the database is away, kept on disk and sent once, in order."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moe_experts.registry.errors import DatabaseUnavailable, RegistryError

LIMIT_BYTES = 64_000_000


class Outbox:
    """A file of lines, one write each, synced before the caller is told.

    What is sent must be idempotent: a crash between a write and its removal sends it again.

    Args:
        path: of the file; what an earlier process left there is sent as well.
        limit_bytes: more is refused.
    """

    def __init__(self, path: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        """Bytes that wait."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def write(self, kind: str, content: Any, send: Callable[[], Any]) -> Any:
        """Send at once, or keep it: behind what waits already, or because the database is away.

        Args:
            content: what JSON can hold; drain() hands it to the sender of this kind.

        Returns what send() returns, or None for what is kept. Raises DatabaseUnavailable when the outbox is full.
        """
        if not len(self):
            try:
                return send()
            except DatabaseUnavailable as error:
                self._keep(kind, content, error)
                return None
        self._keep(kind, content, None)
        return None

    def _keep(self, kind: str, content: Any, cause: DatabaseUnavailable | None) -> None:
        line = json.dumps([kind, content]).encode() + b'\n'
        with self._lock:
            if len(self) + len(line) > self._limit_bytes:
                raise DatabaseUnavailable(f'The database is away and its outbox {self._path} is full '
                                          f'({self._limit_bytes / 1e6:g} MB).') from cause
            with self._path.open('ab') as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())

    def drain(self, senders: dict[str, Callable[[Any], Any]], tell: Callable[[str], None]) -> int:
        """Send what waits, in order; returns how much went. Raises DatabaseUnavailable and keeps the rest.

        What the registry refuses, and the torn last line of a crash, is told and dropped: it would never go.
        """
        sent = 0
        while lines := self._lines():
            done = 0
            try:
                for line in lines:
                    try:
                        kind, content = json.loads(line)
                        senders[kind](content)
                    except DatabaseUnavailable:
                        raise
                    except (RegistryError, ValueError, KeyError, TypeError) as error:
                        tell(f'A write from the outbox is dropped: {error}')
                    done += len(line)
                    sent += 1
            finally:
                self._forget(done)
        return sent

    def _lines(self) -> list[bytes]:
        with self._lock:
            try:
                return self._path.read_bytes().splitlines(keepends=True)
            except FileNotFoundError:
                return []

    def _forget(self, count: int) -> None:
        """Remove the first bytes; the file is replaced whole."""
        if not count:
            return
        with self._lock:
            rest = self._path.read_bytes()[count:]
            if not rest:
                self._path.unlink()
                return
            temporary = self._path.with_name(self._path.name + '.part')
            with temporary.open('wb') as file:
                file.write(rest)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
