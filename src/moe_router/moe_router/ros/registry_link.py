"""The registry as the router sees it: followed by its events, remembered while it is away."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node

from moe_interfaces.msg import Metric, Outcome, RegistryEvent, RouteRecord, RouterVersion, RouteSample
from moe_interfaces.srv import (
    AddRouteSamples,
    CorrectRoute,
    GetAbTest,
    GetRouterVersion,
    GetVersion,
    ListExperts,
    ListNotes,
    ListRoutes,
    ListRouteSamples,
    RecordOutcomes,
    RecordRoutes,
    RegisterRouterVersion,
)
from moe_router.kept_notes import KeptNotes
from moe_router.notes import Note
from moe_router.ros.action_client import SERVICE_QOS
from moe_router.ros.calls import EVENTS_QOS, ask
from moe_router.sessions import Trial
from moe_router.table import Row, Table

POLL_S = 5.0
PAGE = 10_000
_SOON_S = 2.0  # enough for a registry that is there


class RegistryLink:
    """Asks registry/*; every method but the callbacks may wait, so none is called by the executor's threads.

    Args:
        path: file of the last known table.
        refreshed: called in the link's thread after each look at the registry.
        notes: where an expert's notes go when they changed.
    """

    def __init__(self, node: Node, path: Path, stop: threading.Event, refreshed: Callable[[], None],
                 notes: KeptNotes) -> None:
        self._path, self._stop, self._refreshed, self._notes = path, stop, refreshed, notes
        self.table = Table.load(path)
        self.away = True
        self._changed = threading.Event()
        self._changed.set()
        self._lock = threading.Lock()
        self._noted: set[str] | None = None  # experts whose notes changed; None = look at all
        group = ReentrantCallbackGroup()
        self._clients = {
            interface: node.create_client(interface, f'registry/{name}', qos_profile=SERVICE_QOS, callback_group=group)
            for interface, name in (
                (ListExperts, 'list_experts'), (ListRouteSamples, 'list_route_samples'),
                (AddRouteSamples, 'add_route_samples'), (RegisterRouterVersion, 'register_router_version'),
                (GetRouterVersion, 'get_router_version'), (RecordRoutes, 'record_routes'),
                (RecordOutcomes, 'record_outcomes'), (CorrectRoute, 'correct_route'), (ListRoutes, 'list_routes'),
                (ListNotes, 'list_notes'), (GetAbTest, 'get_ab_test'), (GetVersion, 'get_version'))}
        node.create_subscription(RegistryEvent, 'registry/events', self._on_event, EVENTS_QOS,
                                 callback_group=MutuallyExclusiveCallbackGroup())
        self._thread = threading.Thread(target=self._follow, name='registry')

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; `stop` must be set."""
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join()

    def call(self, request: Any, interface: Any, timeout_s: float = 10.0) -> Any:
        """The response; None where nobody answers or the registry says that it cannot."""
        response = ask(self._clients[interface], request, self._stop, timeout_s)
        return None if response is None or response.error_code else response

    def there(self, interface: Any) -> bool:
        """Whether this service is served now."""
        return bool(self._clients[interface].service_is_ready())

    def _on_event(self, event: RegistryEvent) -> None:
        if event.kind == RegistryEvent.EXPERT_UPDATED and event.reason.startswith('notes'):
            with self._lock:
                if self._noted is not None:
                    self._noted.add(event.expert)
        self._changed.set()

    def _follow(self) -> None:
        asked = 0.0
        while not self._stop.is_set():
            self._changed.wait(POLL_S)
            self._changed.clear()
            if self._stop.wait(max(0.0, asked + 0.1 - time.monotonic())):  # many events are one look
                return
            asked = time.monotonic()
            self.away = not self._refresh()
            self._refreshed()

    def _refresh(self) -> bool:
        """Look at experts, trials and notes; whether the registry answered."""
        experts = self.experts()
        if experts is None:
            self._look_at_all_notes()  # an event of what changed meanwhile may not reach this node
            return False
        if not self.table.experts and not self._read_notes():
            return True  # the first start: nobody is answered before there is something to read
        table = Table(experts, self._trials(experts))
        if table != self.table:
            self.table = table
            table.save(self._path)
        self._read_notes()
        return True

    def _serves(self, interface: Any) -> bool:
        """Whether the registry, which answers, was seen to serve this, too; if not, it is looked at again soon."""
        served = self.there(interface)
        if not served:
            self._changed.set()
        return served

    def _trials(self, experts: dict[str, Row]) -> dict[str, Trial]:
        """Running trials of those experts that have a candidate; those known before where nobody can say."""
        trials = {}
        for control in sorted({row.base_expert for row in experts.values() if row.base_expert}):
            if not self._serves(GetAbTest):
                return self.table.trials
            found = self.call(GetAbTest.Request(control=control), GetAbTest)
            if found is not None and found.test.status == 'running':
                trials[control] = Trial(found.test.id, control, found.test.treatment, found.test.share)
        return trials

    def _read_notes(self) -> bool:
        """Get the notes that changed; whether the registry gave them."""
        if not self._serves(ListNotes):
            return False
        with self._lock:
            changed, self._noted = self._noted, set()
        for expert in [''] if changed is None else sorted(changed):
            by_expert: dict[str, list[Note]] = {name: [] for name in ([expert] if expert else self._notes.experts())}
            last = 0
            while True:
                page = self.call(ListNotes.Request(expert=expert, after_id=last, limit=PAGE), ListNotes)
                if page is None:
                    self._look_at_all_notes()
                    return False
                for note in page.notes:
                    by_expert.setdefault(note.expert, []).append(
                        Note(note.id, note.expert, note.source, note.text, questions=tuple(note.questions)))
                    last = max(last, note.id)
                if len(page.notes) < PAGE:
                    break
            for name, notes in by_expert.items():
                self._notes.replace(name, notes)
        return True

    def _look_at_all_notes(self) -> None:
        with self._lock:
            self._noted = None

    def experts(self) -> dict[str, Row] | None:
        """All experts now; None where nobody answers."""
        found = self.call(ListExperts.Request(limit=1000), ListExperts)
        return None if found is None else {
            row.name: Row(row.status, row.champion_version, row.routable, row.category, row.base_expert,
                          self._base(row.name, row.champion_version)) for row in found.experts}

    def _base(self, expert: str, version: int) -> str:
        """Digest of the base that a version stands on; a whole model is its own. '' = nobody can say now."""
        known = self.table.experts.get(expert)
        if known is not None and known.base and known.version == version:
            return known.base
        if not version or not self._serves(GetVersion):
            return ''
        found = self.call(GetVersion.Request(expert=expert, number=version), GetVersion, _SOON_S)
        return '' if found is None else str(found.version.base_sha256 or found.version.sha256)

    def samples_digest(self) -> str:
        """What changes with the set of samples; '' = there are none, or nobody answers."""
        page = self.call(ListRouteSamples.Request(limit=1), ListRouteSamples)
        return page.digest if page is not None and page.total else ''

    def samples(self) -> list[tuple[str, str, str]] | None:
        """All samples as (expert, intent, text); None where the registry goes away meanwhile."""
        found: list[tuple[str, str, str]] = []
        while True:
            page = self.call(ListRouteSamples.Request(offset=len(found), limit=PAGE), ListRouteSamples)
            if page is None:
                return None
            found += [(sample.expert, sample.intent, sample.text) for sample in page.samples]
            if not page.samples or len(found) >= page.total:
                return found

    def add_samples(self, samples: Sequence[tuple[str, str, str]], source: str) -> bool:
        """Give the registry samples; those of experts that it does not know are left out."""
        known = [RouteSample(expert=expert, intent=intent, text=text, source=source)
                 for expert, intent, text in samples if not expert or expert in self.table.experts]
        return not known or self.call(AddRouteSamples.Request(samples=known), AddRouteSamples) is not None

    def register(self, path: Path, samples: int, threshold: float, metrics: dict[str, float]) -> RouterVersion | None:
        """Record a fit, which becomes the active one; None where the registry cannot."""
        if not self.there(RegisterRouterVersion):
            return None
        version = RouterVersion(
            artifact_path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest(), samples=samples,
            threshold=threshold, active=True,
            metrics=[Metric(name=name, value=value) for name, value in metrics.items()])
        response = self.call(RegisterRouterVersion.Request(version=version), RegisterRouterVersion)
        return None if response is None else response.version

    def active_version(self) -> RouterVersion | None:
        """The fit that the registry wants served; None = it names none."""
        if not self.there(GetRouterVersion):
            return None
        response = self.call(GetRouterVersion.Request(), GetRouterVersion, _SOON_S)
        return None if response is None or not response.version.number else response.version

    def record_routes(self, records: Sequence[RouteRecord]) -> bool:
        """Hand on decisions; False = not taken."""
        return self.there(RecordRoutes) and self.call(
            RecordRoutes.Request(records=list(records)), RecordRoutes, _SOON_S) is not None

    def record_outcomes(self, outcomes: Sequence[Outcome]) -> bool:
        """Hand on outcomes; False = not taken."""
        return self.there(RecordOutcomes) and self.call(
            RecordOutcomes.Request(outcomes=list(outcomes)), RecordOutcomes, _SOON_S) is not None

    def corrected(self) -> list[RouteRecord]:
        """The newest decisions that a person corrected or confirmed."""
        if not self.there(ListRoutes):
            return []
        response = self.call(ListRoutes.Request(corrected_only=True, limit=1000), ListRoutes, _SOON_S)
        return [] if response is None else list(response.records)

    def correct(self, request: CorrectRoute.Request) -> Any:
        """The registry's answer to a correction with its error; None where nobody answers."""
        return ask(self._clients[CorrectRoute], request, self._stop, _SOON_S)
