"""Which version of an expert is served: asked of the registry, remembered until it says otherwise."""

from __future__ import annotations

import threading
from typing import Any

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from moe_experts.engines.engine import EngineError
from moe_experts.pool import Pool
from moe_interfaces.msg import Expert, ExpertVersion, RegistryEvent
from moe_interfaces.srv import GetVersion

EVENTS_QOS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE,
                        durability=DurabilityPolicy.TRANSIENT_LOCAL)
SERVICE_QOS = QoSProfile(depth=100)  # rcl's default of 10 loses calls that arrive together
TIMEOUT_S = 5.0


class Champions:
    """Follows the registry.

    Args:
        node: that subscribes and asks.
        pool: whose outdated versions are unloaded.
    """

    def __init__(self, node: Node, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._known: dict[str, tuple[ExpertVersion, Expert]] = {}
        self._changes = 0
        self._get_version = node.create_client(GetVersion, 'registry/get_version', qos_profile=SERVICE_QOS,
                                               callback_group=ReentrantCallbackGroup())
        node.create_subscription(RegistryEvent, 'registry/events', self._on_event, EVENTS_QOS,
                                 callback_group=MutuallyExclusiveCallbackGroup())

    def _on_event(self, event: RegistryEvent) -> None:
        """A moved champion or changed expert is looked up again; running answers finish on what they began with."""
        if not event.expert:
            return
        with self._lock:
            self._changes += 1
            self._known.pop(event.expert, None)
        if event.alias == 'champion':
            self._pool.unload(event.expert, keep_version=event.version)

    def find(self, name: str, number: int = 0) -> tuple[ExpertVersion, Expert]:
        """The version to serve (0 = champion) and its expert; raises EngineError (1000, 1001, 5000)."""
        with self._lock:
            known, changes = self._known.get(name), self._changes
        if known is not None and number in (0, known[0].number):
            return known
        if not self._get_version.wait_for_service(TIMEOUT_S):
            raise EngineError('The registry does not answer; look at `moe status`.', 5000)
        response = self._ask(GetVersion.Request(expert=name, number=number))
        if response.error_code:
            raise EngineError(response.error_msg, response.error_code)
        found = (response.version, response.expert)
        if not number:
            with self._lock:
                if changes == self._changes:  # otherwise the answer may be older than the change
                    self._known[name] = found
        return found

    def _ask(self, request: GetVersion.Request) -> Any:
        done = threading.Event()
        future = self._get_version.call_async(request)
        future.add_done_callback(lambda _future: done.set())
        for _ in range(int(TIMEOUT_S / 0.1)):
            if done.wait(0.1):
                return future.result()
            if not rclpy.ok():
                break
        raise EngineError(f'The registry did not answer within {TIMEOUT_S:.0f} s.', 5000)
