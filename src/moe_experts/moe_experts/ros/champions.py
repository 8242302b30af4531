"""Which version of an expert is served: asked of the registry, remembered until it says otherwise."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sized
from typing import Any

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from moe_experts.engines.engine import EngineError
from moe_experts.ros.action_client import SERVICE_QOS
from moe_interfaces.msg import Expert, ExpertVersion, RegistryEvent
from moe_interfaces.srv import GetVersion

EVENTS_QOS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE,
                        durability=DurabilityPolicy.TRANSIENT_LOCAL)
TIMEOUT_S = 5.0
ANSWER_S = 1.0  # then it is asked anew: the answer of a server that has just discovered the asker may be lost
RETRY_S = 0.2
Version = tuple[ExpertVersion, Expert]


class Champions:
    """Follows the registry.

    Args:
        node: that subscribes and asks.
        loaded: which versions of an expert are.
        load: called with the new champion of an expert before it is served; raises EngineError where it cannot be.
        drop: called with it when it is served and the others may go.

    The last two are called in a thread of their own.
    """

    def __init__(self, node: Node, loaded: Callable[[str], Sized], load: Callable[[Version], None],
                 drop: Callable[[Version], None]) -> None:
        self._loaded, self._load, self._drop = loaded, load, drop
        self._logger = node.get_logger()
        self._lock = threading.Lock()
        self._known: dict[str, Version] = {}
        self._changes = 0
        self._events: queue.SimpleQueue[RegistryEvent | None] = queue.SimpleQueue()
        self._get_version = node.create_client(GetVersion, 'registry/get_version', qos_profile=SERVICE_QOS,
                                               callback_group=ReentrantCallbackGroup())
        node.create_subscription(RegistryEvent, 'registry/events', self._on_event, EVENTS_QOS,
                                 callback_group=MutuallyExclusiveCallbackGroup())
        self._thread = threading.Thread(target=self._follow, daemon=True, name='champions')
        self._thread.start()

    def _on_event(self, event: RegistryEvent) -> None:
        """A changed expert is looked up again; a moved champion once the new one is loaded."""
        if not event.expert:
            return
        loaded = bool(self._loaded(event.expert))
        with self._lock:
            self._changes += 1
            moved = event.alias == 'champion' and (loaded or event.expert in self._known)
            if not moved:
                self._known.pop(event.expert, None)
        if moved:
            self._events.put(event)

    def _follow(self) -> None:
        """Replace one champion after the other; until then the old one answers."""
        while (event := self._events.get()) is not None:
            with self._lock:
                changes = self._changes
            try:
                version = self._ask(event.expert, 0)
                self._load(version)
            except EngineError as error:
                self._logger.error(f'{event.expert} stays at the version before: {error}')
                continue
            with self._lock:
                if changes == self._changes:
                    self._known[event.expert] = version
                else:  # what was asked may be old by now
                    self._known.pop(event.expert, None)
            self._drop(version)

    def close(self) -> None:
        """Stop following."""
        self._events.put(None)
        self._thread.join(TIMEOUT_S)

    def find(self, name: str, number: int = 0) -> Version:
        """The version to serve (0 = champion) and its expert; raises EngineError (1000, 1001, 5000)."""
        with self._lock:
            known, changes = self._known.get(name), self._changes
        if known is not None and number in (0, known[0].number):
            return known
        found = self._ask(name, number)
        if not number:
            with self._lock:
                if changes == self._changes:  # otherwise the answer may be older than the change
                    self._known[name] = found
        return found

    def _ask(self, name: str, number: int) -> Version:
        """Ask the registry, which may have just been started, until it knows its database."""
        give_up = time.monotonic() + TIMEOUT_S
        while True:
            try:
                return self._ask_once(name, number)
            except EngineError as error:
                if error.code != 5000 or time.monotonic() > give_up or not rclpy.ok():
                    raise
            time.sleep(RETRY_S)

    def _ask_once(self, name: str, number: int) -> Version:
        if not self._get_version.wait_for_service(TIMEOUT_S):
            raise EngineError('The registry does not answer; look at `moe status`.', 5000)
        done = threading.Event()
        future = self._get_version.call_async(GetVersion.Request(expert=name, number=number))
        future.add_done_callback(lambda _future: done.set())
        give_up = time.monotonic() + ANSWER_S
        while not done.wait(0.1):
            if time.monotonic() > give_up or not rclpy.ok():
                self._get_version.remove_pending_request(future)
                raise EngineError(f'The registry did not answer within {TIMEOUT_S:.0f} s.', 5000)
        return self._checked(future.result())

    @staticmethod
    def _checked(response: Any) -> Version:
        if response.error_code:
            raise EngineError(response.error_msg, response.error_code)
        return response.version, response.expert
