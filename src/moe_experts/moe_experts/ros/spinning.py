"""How every node runs: until Ctrl-C or SIGTERM, with exit code 0. The same file in every package."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

LAST_WORDS_S = 0.3  # for the responses that close() brought about
# The pool's threads need the interpreter to do what was handed to them; until they have, rclpy wakes up and builds its
# wait set anew, again and again: a node with one 50 Hz topic took a fifth of a core, at times a whole one.
YIELD_S = 0.0005


def spin(make: Callable[[], Node], threads: int) -> None:
    """Make a node and spin it until shutdown; its close() runs in every case.

    rclpy's own signal handlers would end communication at once. Without them the node goes on answering while it
    closes, so whoever waits for it is told the end.

    Raises SystemExit with the sentence when make() raises ValueError: a setting is wrong.
    """
    came: list[int] = []  # an event would not do: its lock may be held by whom the handler interrupts
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: came.append(number))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node: Node | None = None
    executor = MultiThreadedExecutor(num_threads=threads)
    with contextlib.suppress(ExternalShutdownException):
        try:
            node = make()
            executor.add_node(node)
            while not came and rclpy.ok():
                executor.spin_once(timeout_sec=0.2)
                time.sleep(YIELD_S)
        except ValueError as error:
            if node is None:
                raise SystemExit(str(error)) from error
            raise
        finally:
            if node is not None:
                closing = threading.Thread(target=node.close)  # type: ignore[attr-defined]
                closing.start()
                _spin_while(executor, closing.is_alive)
                last = time.monotonic() + LAST_WORDS_S
                _spin_while(executor, lambda: time.monotonic() < last)
                closing.join()
                node.destroy_node()
            rclpy.try_shutdown()


def _spin_while(executor: MultiThreadedExecutor, condition: Callable[[], bool]) -> None:
    while condition() and rclpy.ok():
        executor.spin_once(timeout_sec=0.02)
