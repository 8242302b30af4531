"""Services asked from threads that may wait."""

from __future__ import annotations

import threading
import time
from typing import Any

from rclpy.client import Client
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

EVENTS_QOS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE,
                        durability=DurabilityPolicy.TRANSIENT_LOCAL)


def ask(client: Client, request: Any, stop: threading.Event, timeout_s: float = 10.0) -> Any:
    """Call a service; None when nobody answers in time, or the node closes."""
    give_up = time.monotonic() + timeout_s
    while not client.service_is_ready():
        if stop.wait(0.05) or time.monotonic() > give_up:
            return None
    done = threading.Event()
    future = client.call_async(request)
    future.add_done_callback(lambda _future: done.set())
    while not done.wait(0.1):
        if stop.is_set() or time.monotonic() > give_up:
            client.remove_pending_request(future)
            return None
    return future.result()
