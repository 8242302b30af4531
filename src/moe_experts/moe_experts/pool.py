"""Which experts are loaded: adapters on their bases and whole models, least recently used out first."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from moe_experts.engines.engine import EngineError, EngineSettings
from moe_experts.weights import Digests, Weights, size_of
from moe_experts.worker.client import Worker
from moe_experts.worker.starter import Starter
from moe_experts.worker.watch import Limits

FOREVER = math.inf
NO_MEMORY = 3002  # code of a worker that found too little


@dataclass(eq=False)
class Loaded:
    """An expert that is loaded or being loaded; adapter '' = the bare base.

    `bytes` are those of the adapter. `expires` is time.monotonic() [s] after which it is unloaded once idle; `pinned`
    is never evicted.
    """

    expert: str
    version: int
    weights: Weights
    adapter: str
    scale: float
    bytes: int
    used: float
    ready: Future[Worker] = field(default_factory=Future)
    running: int = 0
    pinned: bool = False
    expires: float = math.inf

    @property
    def base(self) -> Path:
        """The model that it stands on."""
        return self.weights.base

    @property
    def worker(self) -> Worker:
        """The process that serves it; waits while it is loaded, raises EngineError (1001) where that fails."""
        return self.ready.result()


class Pool:
    """Loads experts on demand; what is busy, pinned or being loaded is never evicted.

    The lock guards the books only and is never held while a worker is asked, so nobody waits for another's load.

    Args:
        cache_size: experts at once; the bare base of others costs nothing and does not count.
        settings: of every worker's engine.
        tell: receives one line about every worker restart.
        memory_budget_bytes: of bases and adapters together; 0 = no limit.
        limits: of every worker.
        changed: called whenever something was loaded or unloaded.
    """

    def __init__(self, cache_size: int, settings: EngineSettings, tell: Callable[[str], None],
                 memory_budget_bytes: int = 0, limits: Limits = Limits(),  # noqa: B008  # frozen
                 changed: Callable[[], None] = lambda: None) -> None:
        self._cache_size, self._settings, self._tell = cache_size, settings, tell
        self._budget, self._limits, self._changed = memory_budget_bytes, limits, changed
        self._lock = threading.Lock()
        self._digests = Digests()
        self._starter = Starter(settings.threads)
        self._workers: dict[Path, Future[Worker]] = {}
        self._loaded: dict[tuple[str, int], Loaded] = {}
        self._serial = 0
        self.evictions = 0

    def get(self, expert: str, version: int, weights: Weights) -> Loaded:
        """The loaded expert, counted as running; loads it (and evicts) where needed. Raises EngineError (1001)."""
        victims: list[Loaded] = []
        with self._lock:
            found = self._loaded.get((expert, version))
            fresh = found is None or (found.ready.done() and found.worker.failed)
            if found is None or fresh:
                self._loaded.pop((expert, version), None)
                self._serial += 1
                # the serial keeps a late unload of the same version from hitting this one
                key = f'{expert}@{version}.{self._serial}' if weights.adapter else ''
                size = size_of(weights.adapter) if weights.adapter else 0
                found = Loaded(expert, version, weights, key, weights.scale, size, time.monotonic())
                victims = self._victims(found)
                self._loaded[(expert, version)] = found
            found.used, found.expires = time.monotonic(), math.inf
            found.running += 1
        if fresh:
            self._load(found, victims)
            self._changed()
        found.ready.result()
        return found

    def _load(self, wanted: Loaded, victims: list[Loaded]) -> None:
        """Fulfil wanted.ready; what fails leaves no trace."""
        try:
            self._free(victims)
            if victims:
                self.close_idle_workers()
            try:
                worker = self._open(wanted)
            except EngineError as error:
                if error.code != NO_MEMORY:
                    raise
                self._evict_idle(wanted)  # the machine is fuller than the books say
                worker = self._open(wanted)
        except BaseException as error:
            with self._lock:
                self._loaded.pop((wanted.expert, wanted.version), None)
            if isinstance(error, EngineError) and error.code == NO_MEMORY:
                error = EngineError(f'{error} {wanted.expert} needs {self._cost(wanted) / 1e6:.0f} MB; '
                                    f'{psutil.virtual_memory().available / 1e6:.0f} MB of memory are free.', 1001)
            wanted.ready.set_exception(error)
        else:
            wanted.ready.set_result(worker)

    def _open(self, wanted: Loaded) -> Worker:
        weights = wanted.weights
        if weights.adapter:
            self._digests.check(weights.adapter, weights.adapter_sha256)
        worker = self._worker(weights)
        if weights.adapter:
            worker.load_adapter(wanted.adapter, weights.adapter, wanted.scale)
        return worker

    def _worker(self, weights: Weights) -> Worker:
        with self._lock:
            future = self._workers.get(weights.base)
            fresh = future is None or (future.done() and (future.exception() or future.result().failed))
            if future is None or fresh:
                future = self._workers[weights.base] = Future()
        if fresh:
            try:
                self._digests.check(weights.base, weights.base_sha256)
                future.set_result(Worker(weights.base, self._settings, self._tell, self._limits, self._starter))
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def _victims(self, wanted: Loaded) -> list[Loaded]:
        """Take idle experts out of the books, least recently used first, until one more fits.

        Raises EngineError (1001) where even that leaves too little of the budget.
        """
        gone: list[Loaded] = []
        while self._too_many(wanted) or self._too_large(wanted):
            idle = [one for one in self._loaded.values()
                    if one.ready.done() and not one.running and not one.pinned and self._counts(one)]
            if not idle:
                break  # all are busy: more than cache_size for a while beats a refusal
            gone.append(min(idle, key=lambda one: one.used))
            del self._loaded[(gone[-1].expert, gone[-1].version)]
            self.evictions += 1
        if self._too_large(wanted):
            for one in gone:  # for nothing
                self._loaded[(one.expert, one.version)] = one
                self.evictions -= 1
            held = ', '.join(one.expert for one in self._loaded.values() if one.running or one.pinned) or 'nobody'
            raise EngineError(
                f'{wanted.expert} needs {self._cost(wanted) / 1e6:.0f} MB; memory_budget_mb is '
                f'{self._budget / 1e6:.0f}, and {self._used() / 1e6:.0f} MB are in use, by {held} (busy or pinned).',
                1001)
        return gone

    def _counts(self, one: Loaded) -> bool:
        """Whether unloading it frees anything: an adapter, or a base that nobody else stands on."""
        return bool(one.adapter) or not any(other.base == one.base for other in self._loaded.values()
                                            if other is not one)

    def _too_many(self, wanted: Loaded) -> bool:
        return self._counts(wanted) and sum(map(self._counts, self._loaded.values())) >= self._cache_size

    def _too_large(self, wanted: Loaded) -> bool:
        return 0 < self._budget < self._used() + self._cost(wanted)

    def _used(self) -> int:
        """Bytes of the bases and adapters in the books."""
        bases = {one.base: size_of(one.base) for one in self._loaded.values()}
        return sum(bases.values()) + sum(one.bytes for one in self._loaded.values())

    def _cost(self, wanted: Loaded) -> int:
        """Bytes that loading it adds."""
        known = any(one.base == wanted.base for one in self._loaded.values() if one is not wanted)
        return wanted.bytes + (0 if known else size_of(wanted.base))

    def _evict_idle(self, wanted: Loaded) -> None:
        """Unload all that is idle."""
        self._remove(lambda one: one is not wanted and not one.running and not one.pinned)
        self.close_idle_workers()

    def _free(self, gone: list[Loaded]) -> int:
        """Unload what is out of the books; returns the bytes."""
        for one in gone:
            with suppress(EngineError):  # its worker is gone, and the adapter with it
                if one.adapter:
                    one.worker.unload_adapter(one.adapter)
        if gone:
            self._changed()
        return sum(one.bytes for one in gone)

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
        return sum(one.worker.call('clear_cache', adapter=one.adapter) for one in self.loaded(expert)
                   if one.ready.done())

    def loaded(self, expert: str = '') -> list[Loaded]:
        """What is loaded or being loaded now, of one expert or of all ('')."""
        with self._lock:
            return [one for one in self._loaded.values() if expert in ('', one.expert)]

    def workers(self) -> list[Worker]:
        """The worker processes that are up."""
        with self._lock:
            futures = list(self._workers.values())
        return [future.result() for future in futures if future.done() and not future.exception()]

    def close(self) -> None:
        """End every worker."""
        for worker in self.workers():
            worker.close()
        self._starter.close()
