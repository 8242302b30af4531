"""Client: the Python SDK and the moe command.

`from moe_client import Client` is the SDK; rclpy is imported with it and not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moe_client.ros.client import Client

__all__ = ['Client']


def __getattr__(name: str) -> Any:
    if name == 'Client':
        from moe_client.ros.client import Client
        return Client
    raise AttributeError(name)
