"""How the nodes of this package run: until Ctrl-C or SIGTERM, with exit code 0."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node


def spin(make: Callable[[], Node], threads: int) -> None:
    """Make a node and spin it until shutdown; its close() runs in every case.

    Raises SystemExit with the sentence when make() raises ValueError: a setting is wrong.
    """
    rclpy.init()
    node: Node | None = None
    executor = MultiThreadedExecutor(num_threads=threads)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        try:
            node = make()
            executor.add_node(node)
            while rclpy.ok():
                try:
                    executor.spin_once(timeout_sec=0.5)
                except Exception:
                    if rclpy.ok():  # a signal between ok() and the wait ends the context under the executor's hands
                        raise
        except ValueError as error:
            if node is None:
                raise SystemExit(str(error)) from error
            raise
        finally:
            if node is not None:
                node.close()  # type: ignore[attr-defined]
                node.destroy_node()
            rclpy.try_shutdown()
