"""Which finished sequences stay in the KV cache, and which of them a new prompt can begin with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Owner = tuple[str, int, float]  # adapter, its revision, the scale of the request


@dataclass
class _Kept:
    owner: Owner
    tokens: list[int]
    slot: int


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
    """Finished sequences by slot, least recently used out first. Cells depend on what computed them, so an
    owner (adapter and its revision) only finds its own.

    Args:
        most_entries: sequences kept.
        most_tokens: cells kept, those that two sequences share counted twice.
    """

    def __init__(self, most_entries: int, most_tokens: int) -> None:
        self._most_entries, self._most_tokens = most_entries, most_tokens
        self._kept: list[_Kept] = []  # least recently used first

    @property
    def tokens(self) -> int:
        """Cells kept."""
        return sum(len(one.tokens) for one in self._kept)

    def find(self, owner: Owner, tokens: list[int]) -> tuple[int, int]:
        """Slot with the longest common prefix, and its length; (-1, 0) where nothing is common."""
        best, length = None, 0
        for one in reversed(self._kept):
            if one.owner == owner and (common := common_length(one.tokens, tokens)) > length:
                best, length = one, common
        if best is None:
            return -1, 0
        self._kept.remove(best)
        self._kept.append(best)
        return best.slot, length

    def keep(self, owner: Owner, tokens: list[int], slot: int) -> list[int]:
        """Keep a finished sequence; returns the slots that are free now, its own where it adds nothing."""
        if not tokens or len(tokens) > self._most_tokens:
            return [slot]
        for one in self._kept:
            if one.owner == owner and one.tokens[:len(tokens)] == tokens:
                return [slot]
        freed = self._drop(one for one in self._kept
                           if one.owner == owner and tokens[:len(one.tokens)] == one.tokens)
        self._kept.append(_Kept(owner, list(tokens), slot))
        while len(self._kept) > self._most_entries:
            freed.append(self._kept.pop(0).slot)
        return freed + self.shrink(self._most_tokens)

    def shrink(self, most_tokens: int) -> list[int]:
        """Drop the least recently used until at most so many cells are kept; returns the slots freed."""
        freed = []
        while self._kept and self.tokens > most_tokens:
            freed.append(self._kept.pop(0).slot)
        return freed

    def forget(self, adapter: str | None) -> list[int]:
        """Drop what an adapter, or (None) any, computed; returns the slots freed."""
        return self._drop(one for one in self._kept if adapter is None or one.owner[0] == adapter)

    def _drop(self, gone: Iterable[_Kept]) -> list[int]:
        dropped = list(gone)
        for one in dropped:
            self._kept.remove(one)
        return [one.slot for one in dropped]
