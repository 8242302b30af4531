"""What finished sequences had in the KV cache, kept outside of it, and which of them a new prompt can begin with.

Cells that stay in the cache cost every step: attention goes over all of them, masked or not. A saved state costs its
memory and a copy of 0.6 ms for 512 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from moe_experts.engines.runtime import State

Owner = tuple[str, int, float]  # adapter, its revision, the scale of the request
MOST_ENTRIES = 64  # each is compared with every new prompt


@dataclass
class _Kept:
    owner: Owner
    tokens: list[int]
    state: State


def common_length(first: list[int], second: list[int]) -> int:
    """Length of the longest common prefix."""
    low, high = 0, min(len(first), len(second))
    while low < high:  # halving compares slices, which is far faster than token after token
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class PrefixCache:
    """States of finished sequences, least recently used out first. Cells depend on what computed them, so an
    owner only finds its own.

    Args:
        most_bytes: of all states.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: list[_Kept] = []  # least recently used first

    @property
    def bytes(self) -> int:
        """Of all states."""
        return sum(one.state.bytes for one in self._kept)

    def find(self, owner: Owner, tokens: list[int]) -> tuple[State | None, int]:
        """State with the longest common prefix, and its length; (None, 0) where nothing is common."""
        best, length = None, 0
        for one in reversed(self._kept):
            if one.owner == owner and (common := common_length(one.tokens, tokens)) > length:
                best, length = one, common
        if best is None:
            return None, 0
        self._kept.remove(best)
        self._kept.append(best)
        return best.state, length

    def covers(self, owner: Owner, tokens: list[int]) -> bool:
        """Whether a sequence adds nothing to what is kept."""
        return not tokens or any(one.owner == owner and one.tokens[:len(tokens)] == tokens for one in self._kept)

    def keep(self, owner: Owner, tokens: list[int], state: State) -> None:
        """Keep a finished sequence; it takes the place of its own beginnings."""
        if state.bytes > self._most_bytes:
            return
        self._kept = [one for one in self._kept
                      if not (one.owner == owner and tokens[:len(one.tokens)] == one.tokens)]
        self._kept.append(_Kept(owner, list(tokens), state))
        while len(self._kept) > MOST_ENTRIES or self.bytes > self._most_bytes:
            self._kept.pop(0)

    def forget(self, adapter: str | None) -> int:
        """Drop what an adapter, or (None) any, computed; returns how many."""
        before = len(self._kept)
        self._kept = [one for one in self._kept if adapter is not None and one.owner[0] != adapter]
        return before - len(self._kept)
