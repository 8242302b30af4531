"""The SDK: `with Client() as client: print(client.inference.generate('How do I list topics?').text)`."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

from moe_client.experts import AbTests, Experts, Notes
from moe_client.inference import Inference
from moe_client.operating import Keys, Registry
from moe_client.robot import Robot
from moe_client.router import Router
from moe_client.training import Datasets, Training
from moe_client.transport import Transport

DEFAULT_URL = 'http://127.0.0.1:8000'


class Client:
    """Every way into the suite: over ROS, or over HTTP where base_url or api_key is given.

    Args:
        namespace: of the suite on the ROS graph.
        base_url: of a gateway, 'http://127.0.0.1:8000'.
        api_key: for the gateway; alone it implies HTTP to DEFAULT_URL.
        timeout: of one HTTP request [s].
        transport: instead of all those.
    """

    def __init__(self, namespace: str = 'moe', *, base_url: str = '', api_key: str = '', timeout: float = 300.0,
                 transport: Transport | None = None) -> None:
        self.transport = transport or _transport(namespace, base_url, api_key, timeout)
        self.experts = Experts(self.transport)
        self.ab_tests = AbTests(self.transport)
        self.notes = Notes(self.transport)
        self.inference = Inference(self.transport)
        self.router = Router(self.transport)
        self.training = Training(self.transport)
        self.datasets = Datasets(self.transport)
        self.robot = Robot(self.transport)
        self.registry = Registry(self.transport)
        self.keys = Keys(self.transport)

    @property
    def graph(self) -> Any:
        """The place on the ROS graph; only over ROS."""
        return self.transport.graph  # type: ignore[attr-defined]

    def close(self) -> None:
        """Let go of the transport."""
        self.transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None,
                 _trace: TracebackType | None) -> None:
        self.close()


def _transport(namespace: str, base_url: str, api_key: str, timeout: float) -> Transport:
    if base_url or api_key:
        from moe_client.http_transport import HttpTransport
        return HttpTransport(base_url or os.environ.get('MOE_URL') or DEFAULT_URL, api_key, timeout)
    from moe_client.ros.transport import RosTransport
    return RosTransport(namespace)
