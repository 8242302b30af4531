"""How every node of this package runs: until Ctrl-C or SIGTERM, with exit code 0."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from typing import Protocol

import rclpy
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions


class ClosableNode(Protocol):
    """A node that owns threads or processes."""

    def close(self) -> None:
        """Release everything the node owns."""


def spin(make: Callable[[], Node], threads: int = 4) -> None:
    """Make a node and spin it until shutdown; its close() runs in every case.

    rclpy's own signal handlers would end communication at once. Without them the node goes on answering while it
    closes, so whoever waits for it is told the end.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node: Node | None = None
    executor = MultiThreadedExecutor(num_threads=threads)
    with contextlib.suppress(ExternalShutdownException):
        try:
            node = make()
            executor.add_node(node)
            while not stop.is_set() and rclpy.ok():
                executor.spin_once(timeout_sec=0.2)
        finally:
            if node is not None:
                closing = threading.Thread(target=node.close)  # type: ignore[attr-defined]
                closing.start()
                while closing.is_alive() and rclpy.ok():
                    executor.spin_once(timeout_sec=0.02)
                closing.join()
                node.destroy_node()
            rclpy.try_shutdown()
