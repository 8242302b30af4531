"""The newest message of a topic, taken when it is asked for: nothing wakes up for those in between."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile


class _NeverReady(CallbackGroup):  # type: ignore[misc]
    """Keeps its subscription out of the executor's wait set."""

    def can_execute(self, _entity: Any) -> bool:
        """Say that it is not the executor's turn."""
        return False

    def beginning_execution(self, _entity: Any) -> bool:
        """Refuse to be executed."""
        return False

    def ending_execution(self, _entity: Any) -> None:
        """Nothing was begun."""


class LatestMessage:
    """A subscription that is read instead of calling back.

    An executor that is woken 50 times a second by a topic builds its wait set as often, which costs a twentieth of a
    core; who needs the newest message now and then takes it from the middleware's queue of one instead.

    Args:
        node: that subscribes.
        interface, topic: what to.
    """

    def __init__(self, node: Node, interface: type, topic: str) -> None:
        self._lock = threading.Lock()
        self._subscription = node.create_subscription(interface, topic, lambda _message: None, QoSProfile(depth=1),
                                                      callback_group=_NeverReady())

    def take(self) -> Any:
        """Return the newest message that came since the last call, None without one."""
        subscription = self._subscription
        with self._lock, subscription.handle:
            found = subscription.handle.take_message(subscription.msg_type, subscription.raw)
        return None if found is None else found[0]
