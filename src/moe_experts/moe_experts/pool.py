"""Which experts are loaded: adapters on their bases, least recently used out first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from moe_experts.engines.engine import EngineError, Request, Result
from moe_experts.worker.client import Listener, Worker


@dataclass
class Loaded:
    """A loaded expert; adapter '' = the bare base."""

    expert: str
    version: int
    worker: Worker
    adapter: str
    bytes: int
    used: float = field(default_factory=time.monotonic)
    running: int = 0


class Pool:
    """Loads experts on demand and keeps at most `cache_size` adapters; what is busy is never evicted.

    Args:
        cache_size: adapters at once.
        threads: of every worker.
        tell: receives one line about every worker restart.
    """

    def __init__(self, cache_size: int, threads: int, tell: Callable[[str], None]) -> None:
        self._cache_size, self._threads, self._tell = cache_size, threads, tell
        self._lock = threading.Lock()
        self._workers: dict[Path, Worker] = {}
        self._loaded: dict[tuple[str, int], Loaded] = {}
        self.evictions = 0

    def get(self, expert: str, version: int, base: Path, adapter: Path | None, scale: float) -> Loaded:
        """The loaded expert; loads it (and evicts) where needed. Raises EngineError (1001)."""
        with self._lock:
            found = self._loaded.get((expert, version))
            if found is None:
                worker = self._workers.get(base)
                if worker is None:
                    worker = self._workers[base] = Worker(base, self._threads, self._tell)
                key = f'{expert}@{version}' if adapter else ''
                if adapter:
                    self._make_room()
                    worker.load_adapter(key, adapter, scale)
                found = Loaded(expert, version, worker, key, adapter.stat().st_size if adapter else 0)
                self._loaded[(expert, version)] = found
            found.used = time.monotonic()
            found.running += 1
            return found

    def _make_room(self) -> None:
        """Evict idle adapters, least recently used first, until one more fits."""
        while sum(bool(one.adapter) for one in self._loaded.values()) >= self._cache_size:
            idle = [one for one in self._loaded.values() if one.adapter and not one.running]
            if not idle:
                return  # all are busy: more than cache_size for a while beats a refusal
            self._remove(min(idle, key=lambda one: one.used))
            self.evictions += 1

    def _remove(self, loaded: Loaded) -> None:
        del self._loaded[(loaded.expert, loaded.version)]
        if loaded.adapter:
            loaded.worker.unload_adapter(loaded.adapter)

    def submit(self, loaded: Loaded, request: Request, listener: Listener) -> None:
        """Ask a loaded expert; `loaded` came from get() and is given back with the result."""
        def relay(item: object) -> None:
            if isinstance(item, Result):
                loaded.running -= 1
            listener(item)  # type: ignore[arg-type]
        loaded.worker.submit(request, relay)

    def give_back(self, loaded: Loaded) -> None:
        """Undo a get() that was not followed by submit()."""
        loaded.running -= 1

    def unload(self, expert: str, *, keep_version: int = 0) -> int:
        """Unload an expert's idle versions (but `keep_version`); returns the bytes freed."""
        with self._lock:
            gone = [one for one in self._loaded.values()
                    if one.expert == expert and one.version != keep_version and not one.running]
            for one in gone:
                self._remove(one)
            return sum(one.bytes for one in gone)

    def loaded(self) -> list[Loaded]:
        """What is loaded now."""
        with self._lock:
            return list(self._loaded.values())

    def workers(self) -> list[Worker]:
        """The worker processes."""
        return list(self._workers.values())

    def close(self) -> None:
        """End every worker."""
        for worker in self._workers.values():
            worker.close()


__all__ = ['EngineError', 'Loaded', 'Pool']
