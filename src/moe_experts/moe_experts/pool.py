"""Which experts are loaded: adapters on their bases, least recently used out first."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from moe_experts.engines.engine import EngineError, EngineSettings, Request, Result
from moe_experts.worker.client import Listener, Worker

FOREVER = math.inf


@dataclass(eq=False)
class Loaded:
    """An expert that is loaded or being loaded; adapter '' = the bare base.

    `expires` is time.monotonic() [s] after which it is unloaded once idle; `pinned` is never evicted.
    """

    expert: str
    version: int
    base: Path
    adapter: str
    scale: float
    bytes: int
    used: float
    ready: Future[Worker] = field(default_factory=Future)
    running: int = 0
    pinned: bool = False
    expires: float = math.inf

    @property
    def worker(self) -> Worker:
        """The process that serves it; waits while it is loaded, raises EngineError (1001) where that fails."""
        return self.ready.result()


class Pool:
    """Loads experts on demand and keeps at most `cache_size` adapters; what is busy is never evicted.

    The lock guards the books only and is never held while a worker is asked, so nobody waits for another's load.

    Args:
        cache_size: adapters at once.
        settings: of every worker's engine.
        tell: receives one line about every worker restart.
    """

    def __init__(self, cache_size: int, settings: EngineSettings, tell: Callable[[str], None]) -> None:
        self._cache_size, self._settings, self._tell = cache_size, settings, tell
        self._lock = threading.Lock()
        self._workers: dict[Path, Future[Worker]] = {}
        self._loaded: dict[tuple[str, int], Loaded] = {}
        self._serial = 0
        self.evictions = 0

    def get(self, expert: str, version: int, base: Path, adapter: Path | None, scale: float) -> Loaded:
        """The loaded expert, counted as running; loads it (and evicts) where needed. Raises EngineError (1001)."""
        victims: list[Loaded] = []
        with self._lock:
            found = self._loaded.get((expert, version))
            fresh = found is None or (found.ready.done() and found.worker.failed)
            if found is None or fresh:
                size = self._size(adapter)
                victims = self._victims() if adapter else []
                self._serial += 1
                # the serial keeps a late unload of the same version from hitting this one
                key = f'{expert}@{version}.{self._serial}' if adapter else ''
                found = self._loaded[(expert, version)] = Loaded(
                    expert, version, base, key, scale, size, time.monotonic())
            found.used, found.expires = time.monotonic(), math.inf
            found.running += 1
        if fresh:
            self._load(found, adapter, victims)
        found.ready.result()
        return found

    @staticmethod
    def _size(adapter: Path | None) -> int:
        try:
            return adapter.stat().st_size if adapter else 0
        except OSError as error:
            raise EngineError(f'The adapter {adapter} cannot be read: {error.strerror}.', 1001) from None

    def _load(self, wanted: Loaded, adapter: Path | None, victims: list[Loaded]) -> None:
        """Fulfil wanted.ready; what fails leaves no trace."""
        try:
            self._free(victims)
            worker = self._worker(wanted.base)
            if adapter:
                worker.load_adapter(wanted.adapter, adapter, wanted.scale)
        except BaseException as error:
            with self._lock:
                self._loaded.pop((wanted.expert, wanted.version), None)
            wanted.ready.set_exception(error)
        else:
            wanted.ready.set_result(worker)

    def _worker(self, base: Path) -> Worker:
        with self._lock:
            future = self._workers.get(base)
            fresh = future is None or (future.done() and (future.exception() or future.result().failed))
            if future is None or fresh:
                future = self._workers[base] = Future()
        if fresh:
            try:
                future.set_result(Worker(base, self._settings, self._tell))
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def _victims(self) -> list[Loaded]:
        """Take idle adapters out of the books, least recently used first, until one more fits."""
        gone: list[Loaded] = []
        while sum(bool(one.adapter) for one in self._loaded.values()) >= self._cache_size:
            idle = [one for one in self._loaded.values() if one.adapter and not one.running and not one.pinned]
            if not idle:
                break  # all are busy: more than cache_size for a while beats a refusal
            gone.append(min(idle, key=lambda one: one.used))
            del self._loaded[(gone[-1].expert, gone[-1].version)]
            self.evictions += 1
        return gone

    def _free(self, gone: list[Loaded]) -> int:
        """Unload what is out of the books; returns the bytes."""
        for one in gone:
            with suppress(EngineError):  # its worker is gone, and the adapter with it
                if one.adapter:
                    one.worker.unload_adapter(one.adapter)
        return sum(one.bytes for one in gone)

    def submit(self, loaded: Loaded, request: Request, listener: Listener) -> None:
        """Ask a loaded expert; `loaded` came from get() and is given back with the result."""
        def relay(item: object) -> None:
            if isinstance(item, Result):
                self.give_back(loaded)
            listener(item)  # type: ignore[arg-type]
        try:
            loaded.worker.submit(request, relay)
        except EngineError:
            self.give_back(loaded)
            raise

    def give_back(self, loaded: Loaded) -> None:
        """Undo a get()."""
        with self._lock:
            loaded.running -= 1

    def keep(self, loaded: Loaded, seconds: float) -> None:
        """Unload it so long after now, once idle; FOREVER = never evict it."""
        loaded.pinned = loaded.pinned or seconds == FOREVER
        loaded.expires = time.monotonic() + seconds
        if seconds == 0.0:
            self.expire()

    def scale(self, scales: dict[str, float]) -> None:
        """Apply loaded experts' adapters with other scales until they are unloaded; all or, with an error, none.

        Raises EngineError (1001, 3004).
        """
        adapters = [one for one in self.loaded() if one.adapter]
        for expert, scale in scales.items():
            if not math.isfinite(scale):
                raise EngineError(f'The scale of {expert} is {scale}; it must be a finite number.')
            if expert not in {one.expert for one in adapters}:
                raise EngineError(f'Expert {expert} has no adapter loaded; load it first.', 1001)
        for one in adapters:
            if one.expert in scales:
                one.worker.scale_adapter(one.adapter, scales[one.expert])
                one.scale = scales[one.expert]

    def unload(self, expert: str, *, keep_version: int = 0, force: bool = False) -> int:
        """Unload an expert's versions but `keep_version`; returns the bytes freed.

        What is busy goes when it is idle or, by force, now: its requests end with an error.
        """
        def matches(one: Loaded) -> bool:
            return one.expert == expert and one.version != keep_version
        with self._lock:
            for one in filter(matches, self._loaded.values()):
                one.expires = 0.0
        return self._remove(lambda one: matches(one) and (force or not one.running))

    def expire(self) -> int:
        """Unload what is idle and past its time; returns the bytes freed."""
        now = time.monotonic()
        return self._remove(lambda one: not one.running and one.expires <= now)

    def _remove(self, gone: Callable[[Loaded], bool]) -> int:
        with self._lock:
            found = [one for one in self._loaded.values() if one.ready.done() and gone(one)]
            for one in found:
                del self._loaded[(one.expert, one.version)]
        return self._free(found)

    def close_idle_workers(self) -> int:
        """End the workers that serve no loaded expert; returns the bytes that they held."""
        with self._lock:
            used = {one.base for one in self._loaded.values()}
            idle = [base for base, future in self._workers.items() if base not in used and future.done()]
            futures = [self._workers.pop(base) for base in idle]
        size = 0
        for worker in (future.result() for future in futures if not future.exception()):
            size += worker.resident_bytes()
            worker.close()
        return size

    def clear_cache(self, expert: str) -> int:
        """Forget the prefixes of an expert, or of all (''); returns how many."""
        if not expert:
            return sum(worker.call('clear_cache') for worker in self.workers())
        return sum(one.worker.call('clear_cache', adapter=one.adapter) for one in self.loaded()
                   if one.expert == expert and one.ready.done())

    def loaded(self) -> list[Loaded]:
        """What is loaded or being loaded now."""
        with self._lock:
            return list(self._loaded.values())

    def workers(self) -> list[Worker]:
        """The worker processes that are up."""
        with self._lock:
            futures = list(self._workers.values())
        return [future.result() for future in futures if future.done() and not future.exception()]

    def close(self) -> None:
        """End every worker."""
        for worker in self.workers():
            worker.close()
