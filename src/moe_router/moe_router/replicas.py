"""Nodes that serve the same experts: who is there, how busy, who must rest after a failure.

The less busy of two that were drawn at random is asked (power of two choices, Mitzenmacher, IEEE TPDS 12(10), 2001):
reported queues are a second old, and everybody running to the shortest would make it the longest.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Report:
    """What a node said of itself; `failed` are experts that it could not load."""

    running: int
    queued: int
    limit: int
    at_s: float
    failed: frozenset[str] = field(default_factory=frozenset)
    loading: frozenset[str] = field(default_factory=frozenset)


class Replicas:
    """Chooses a node; safe to use from several threads.

    Args:
        names: prefixes of the nodes.
        reachable: whether a node's action server is there now.
        stale_s: a node that was silent for longer is away [s].
        rest_s: how long a node that failed is left alone [s].
        clock: steady seconds.
    """

    def __init__(self, names: Collection[str], reachable: Callable[[str], bool], clock: Callable[[], float],
                 stale_s: float = 5.0, rest_s: float = 5.0, seed: int | None = None) -> None:
        self.names = tuple(names)
        self._reachable, self._clock, self._stale_s, self._rest_s = reachable, clock, stale_s, rest_s
        self._lock = threading.Lock()
        self._reports: dict[str, Report] = {}
        self._resting: dict[str, float] = {}
        self._asked: dict[str, int] = dict.fromkeys(self.names, 0)
        self._random = random.Random(seed)

    def hear(self, name: str, report: Report) -> None:
        """Remember what a node said of itself."""
        with self._lock:
            self._reports[name] = report

    def began(self, name: str) -> None:
        """A request was given to a node; counts until ended()."""
        with self._lock:
            self._asked[name] += 1

    def ended(self, name: str, failed: bool = False) -> None:
        """The node is done with a request; one that failed rests for a while."""
        with self._lock:
            self._asked[name] -= 1
            if failed:
                self._resting[name] = self._clock() + self._rest_s

    def load(self, name: str) -> int:
        """Requests that a node has: reported ones, or those given to it where that is more."""
        report = self._reports.get(name)
        return max(self._asked[name], report.running + report.queued if report else 0)

    def usable(self, expert: str = '') -> list[str]:
        """Nodes that can be asked now, in the order of their names as given."""
        now = self._clock()
        return [name for name in self.names if self._usable(name, expert, now)]

    def _usable(self, name: str, expert: str, now: float) -> bool:
        report = self._reports.get(name)
        if now < self._resting.get(name, 0.0) or not self._reachable(name):
            return False
        # one that never said anything may be a node that died while it started
        return report is not None and now - report.at_s <= self._stale_s \
            and report.queued < max(1, report.limit) and expert not in report.failed

    def overloaded(self) -> bool:
        """Whether every node that is there has a full queue."""
        reports = [self._reports[name] for name in self.names if name in self._reports and self._reachable(name)]
        return bool(reports) and all(report.queued >= max(1, report.limit) for report in reports)

    def loading(self) -> set[str]:
        """Experts that some node loads at the moment."""
        return {expert for report in list(self._reports.values()) for expert in report.loading}

    def choose(self, expert: str, preferred: str = '', without: Collection[str] = ()) -> str | None:
        """The node to ask, or None.

        Args:
            preferred: the session's node; it is kept while it can be asked.
            without: nodes that this request has tried already.
        """
        with self._lock:
            found = [name for name in self.usable(expert) if name not in without]
            if preferred in found:
                return preferred
            if len(found) <= 1:
                return found[0] if found else None
            first, second = self._random.sample(found, 2)
            return first if self.load(first) <= self.load(second) else second

    def state(self) -> Mapping[str, str]:
        """In a word for people: how each node is."""
        now = self._clock()
        reports = self._reports
        return {name: 'resting' if now < self._resting.get(name, 0.0) else 'away' if not self._reachable(name)
                else 'silent' if name not in reports or now - reports[name].at_s > self._stale_s
                else f'{self.load(name)} requests' for name in self.names}
