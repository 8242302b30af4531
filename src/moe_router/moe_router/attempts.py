"""When a request may be given to a node, or to another one after that failed."""

from __future__ import annotations

from dataclasses import dataclass, field

NEVER = float('inf')


@dataclass
class Attempts:
    """The attempts at one request; times are steady or ROS seconds, but all of one clock.

    Attributes:
        most: nodes that may be asked, each counted as often as it was.
        deadline_s: when nobody waits any more; NEVER = always somebody does.
        wait_s: how long to look for a node that can be asked.
    """

    most: int
    deadline_s: float = NEVER
    wait_s: float = 0.0
    tried: list[str] = field(default_factory=list)

    def expired(self, now_s: float) -> bool:
        """Whether the deadline has passed."""
        return now_s >= self.deadline_s

    def may_wait(self, since_s: float, now_s: float) -> bool:
        """Whether to go on looking for a node, having begun at since_s."""
        return not self.expired(now_s) and now_s - since_s < self.wait_s

    def may_ask(self, now_s: float, streamed: bool, cancelled: bool) -> bool:
        """Whether a node may be asked now: never what somebody has seen a part of, and never too late."""
        return not (streamed or cancelled or self.expired(now_s)) and len(self.tried) < self.most
