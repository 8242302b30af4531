"""retrain_router, and the fit that follows changed samples by itself."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from moe_interfaces.action import RetrainRouter
from moe_interfaces.msg import ErrorCode, RouterVersion
from moe_router.classifier import Head
from moe_router.ros.action_client import SERVICE_QOS
from moe_router.ros.registry_link import RegistryLink
from moe_router.router import Router
from moe_router.table import Table
from moe_router.worker import FitError, Fitted, fit_in_worker

SETTLE_S = 1.0
KEPT = 10  # fits on disk; the registry's active one is always among them


@dataclass(frozen=True)
class Material:
    """What a fit is made of: (expert, intent, text) of experts that there are, a candidate's in its base's name."""

    samples: list[tuple[str, str, str]]

    @functools.cached_property
    def digest(self) -> str:
        """Stays while the samples do, in whatever order."""
        return hashlib.sha256(json.dumps(sorted(self.samples)).encode()).hexdigest()


class Retraining:
    """Fits one at a time, activates what passes the gate, follows the registry's active version.

    Args:
        router: whose head is replaced.
        folder: keeps head.npz, what is served, and fits/.
    """

    def __init__(self, node: Node, router: Router, registry: RegistryLink, folder: Path,
                 stop: threading.Event) -> None:
        self._node, self._router, self._registry, self._folder, self._stop = node, router, registry, folder, stop
        self._lock = threading.Lock()
        self._refused = ''  # digest of material that is not fitted again until it changes
        self._looked = ''  # the mark of the material looked at last
        self._added: object = None  # rules whose samples the registry has
        self._seen: str | None = None  # digest of the file of the registry's active version
        self.number = 0
        # the first start, or a damaged file: fitted anew when the registry answers
        with contextlib.suppress(OSError, ValueError, KeyError):
            router.head = Head.load(self._head)
            self.number = int((folder / 'version').read_text())
            self._refused = (folder / 'refused').read_text()
        if self._refused:
            node.get_logger().warning('Samples whose fit was refused are not fitted again before they change; '
                                      '`moe retrain-router --force` serves them all the same.')
        self._look = threading.Event()
        self._thread = threading.Thread(target=self._follow, name='fit')
        self._server = ActionServer(
            node, RetrainRouter, node.resolve_service_name('retrain_router'),  # Jazzy remaps no topics of an action
            self._execute, callback_group=ReentrantCallbackGroup(),
            cancel_callback=lambda _goal: CancelResponse.ACCEPT,
            goal_service_qos_profile=SERVICE_QOS, result_service_qos_profile=SERVICE_QOS)

    @property
    def _head(self) -> Path:
        return self._folder / 'head.npz'

    def _margin(self) -> float:
        return float(self._node.get_parameter('gate_margin').value)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; `stop` must be set."""
        self._look.set()
        if self._thread.is_alive():
            self._thread.join()

    def refresh(self) -> None:
        """Look at the registry soon; returns at once."""
        self._look.set()

    def _follow(self) -> None:
        while self._look.wait() and not self._stop.is_set():
            self._look.clear()
            self._refresh()

    def _refresh(self) -> None:
        """Follow the registry: its active version, then samples that changed. May take as long as a fit."""
        self._add_route_samples()
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._follow_active()
            material = self._news()
            if material is None:
                return
            try:
                fitted = self._fit(material, lambda _phase, _share: None, self._stop.is_set)
            except FitError as error:
                self._refused = material.digest
                self._node.get_logger().warning(f'The router could not be fitted: {error}')
                return
            if fitted.refusal:
                self._refuse(material.digest)
                self._node.get_logger().warning(fitted.refusal)
            else:
                self._activate(fitted)
        finally:
            self._lock.release()

    def _refuse(self, digest: str) -> None:
        """Fit material of this digest no more unless somebody asks for it, also after a restart."""
        self._refused = digest
        with contextlib.suppress(OSError):
            (self._folder / 'refused').write_text(digest)

    def _mark(self) -> str:
        """What changes with the material, and may change without it; '' = there are no samples, or nobody answers."""
        digest, table = self._registry.samples_digest(), self._registry.table
        return f'{digest} {sorted((name, table.role(name)) for name in table.experts)}' if digest else ''

    def _news(self) -> Material | None:
        """Material that was neither fitted nor refused, once it stays; None where there is none.

        A head fitted on half of what is being written sends people astray.
        """
        mark = self._mark()
        if not mark or mark == self._looked:
            return None
        before = ''
        while mark != before:
            if self._stop.wait(SETTLE_S):
                return None
            before, mark = mark, self._mark()
        material = self._material() if mark else None
        if material is None:
            return None
        self._looked = mark
        head = self._router.head
        return None if material.digest in (self._refused, head.digest if head is not None else '') else material

    def _material(self) -> Material | None:
        """The samples that a fit may learn from now; None where the registry goes away meanwhile."""
        found, experts = self._registry.samples(), self._registry.experts()
        if found is None or experts is None:
            return None
        known = {*experts, self._node.get_parameter('fallback_expert').value, ''}
        # what a candidate was trained on teaches where its base is meant
        role = Table(experts).role
        intents = {(role(expert), text): intent for expert, intent, text in found if expert in known}
        return Material([(expert, intent, text) for (expert, text), intent in intents.items()])

    def _add_route_samples(self) -> None:
        rules = self._router.rules
        if rules.samples and self._added is not rules and self._registry.add_samples(rules.samples, 'routes'):
            self._added = rules

    def _follow_active(self) -> None:
        """Serve the fit that the registry names, where it is another one than before and its file is whole."""
        version = self._registry.active_version()
        if version is None or version.number == self.number:
            return
        try:
            head = Head.load(Path(version.artifact_path))
        except (OSError, ValueError, KeyError) as error:
            if self._seen != version.sha256:
                self._node.get_logger().error(f'Router version {version.number} cannot be served: {error}')
            self._seen = version.sha256
            return
        if self.number:
            # the fit belongs to other samples than the registry has now, and a person wants it all the same
            material = self._material()
            if material is None:
                return
            self._refuse(material.digest)
        head.save(self._head)
        self._serve(head, version.number)
        self._node.get_logger().info(f'Router version {version.number} serves.')

    def _fit(self, material: Material, say: Callable[[str, float], None], cancelled: Callable[[], bool]) -> Fitted:
        """Fit on the material; raises FitError."""
        begin = time.monotonic()
        folder = self._folder / 'fits' / f'{time.time_ns()}'
        try:
            fitted = fit_in_worker(material.samples, material.digest, folder, self._head,
                                   self._node.get_parameter('fallback_expert').value, self._margin(), say, cancelled)
        except FitError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._node.get_logger().info(
            f'Fitted on {len(material.samples)} samples of {len(fitted.head.experts)} classes in '
            f'{time.monotonic() - begin:.1f} s: {fitted.report["accuracy"]:.1%} right on held-out ones.')
        return fitted

    def _activate(self, fitted: Fitted) -> RouterVersion:
        """Serve a fit and tell the registry of it."""
        metrics = fitted.metrics()
        version = self._registry.register(fitted.path, int(fitted.report['samples']),
                                          self._node.get_parameter('confidence_threshold').value, metrics)
        fitted.head.save(self._head)
        self._refuse('')
        self._serve(fitted.head, version.number if version is not None else 0)
        self._forget_old(fitted.path.parent)
        return version if version is not None else RouterVersion(
            artifact_path=str(fitted.path), samples=int(fitted.report['samples']), active=True)

    def _serve(self, head: Head, number: int) -> None:
        self._router.head, self.number = head, number
        (self._folder / 'version').write_text(str(number))

    def _forget_old(self, keep: Path) -> None:
        """Leave the newest fits on disk."""
        folders = sorted((self._folder / 'fits').iterdir(), key=lambda path: path.name)
        for folder in folders[:-KEPT]:
            if folder != keep:
                shutil.rmtree(folder, ignore_errors=True)

    def _execute(self, handle: Any) -> Any:
        result = RetrainRouter.Result()

        def say(phase: str, share: float) -> None:
            handle.publish_feedback(RetrainRouter.Feedback(phase=phase, progress=share))

        def cancelled() -> bool:
            return bool(handle.is_cancel_requested or self._stop.is_set())

        while not self._lock.acquire(timeout=0.2):
            if cancelled():
                handle.canceled()
                result.error_code, result.error_msg = ErrorCode.CANCELLED, 'Cancelled while another fit was running.'
                return result
        try:
            self._add_route_samples()
            say('samples', 0.0)
            material = self._material()
            if material is None:
                result.error_code = ErrorCode.DATABASE_UNAVAILABLE
                result.error_msg = 'The registry does not give the samples; look at `moe status`.'
            else:
                fitted = self._fit(material, say, cancelled)
                result.report = json.dumps({**fitted.report, 'refusal': fitted.refusal,
                                            'confusion_png': str(fitted.path.with_name('confusion.png'))})
                result.activated = not fitted.refusal or handle.request.force
                if result.activated:
                    result.version = self._activate(fitted)
        except FitError as error:
            result.error_code = ErrorCode.CANCELLED if cancelled() else ErrorCode.TRAINING_FAILED
            result.error_msg = str(error)
        finally:
            self._lock.release()
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.error_code:
            handle.abort()
        else:
            handle.succeed()
        return result
