"""What the gateway is told by its node's parameters."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

READY_TIMEOUT_S = 2.0  # a node that is away is told soon, and one that starts again is often back by then
DISCOVERY_S = 10.0  # discovery takes well under a second, but several times that where a whole suite starts


@dataclass(frozen=True)
class Settings:
    """Settings of one gateway.

    Attributes:
        home: MOE_HOME.
        rate_limit: requests per minute and key (or address, where no key is given); 0 = no limit.
        body_limit: most bytes of a request, uploads excepted.
        upload_limit: most bytes of an uploaded dataset.
        prompt_limit: most characters of all messages of a request.
        receive_timeout_s: within which the head, and again the body, of a request has to arrive [s].
        generate_timeout_s: of a generation whose caller names none [s].
    """

    home: Path
    host: str = '127.0.0.1'
    port: int = 8000
    workers: int = 1
    metrics_port: int = 9090
    rate_limit: int = 1200
    body_limit: int = 4_000_000
    upload_limit: int = 200_000_000
    prompt_limit: int = 200_000
    receive_timeout_s: float = 20.0
    generate_timeout_s: float = 120.0

    @property
    def needs_key(self) -> bool:
        """Whoever reaches the gateway from another machine has to show a key."""
        if self.host == 'localhost':
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return True
