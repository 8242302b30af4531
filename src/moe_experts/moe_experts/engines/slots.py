"""The places in the KV cache: which are free, which are kept, and what a new prompt can begin with."""

from __future__ import annotations

from collections.abc import Iterable

from moe_experts.engines.prefix_cache import Owner, PrefixCache, common_length
from moe_experts.engines.runtime import Runtime

KEPT_SEQUENCES = 16
Holder = tuple[int, list[int]]  # a slot in use and the tokens in its cells


class Slots:
    """Hands out the slots of a runtime.

    Args:
        running: slots that may be in use at once; the runtime has KEPT_SEQUENCES + 1 more, so that there is always a
            free one to copy a prefix into.
        kept_tokens: cells that finished sequences may keep; 0 = nothing is kept and nothing reused.
    """

    def __init__(self, runtime: Runtime, running: int, kept_tokens: int) -> None:
        self._runtime = runtime
        self._free = list(range(slots_needed(running)))
        self._kept = PrefixCache(KEPT_SEQUENCES, min(kept_tokens, runtime.context_tokens))
        self._reuse = kept_tokens > 0

    def source(self, owner: Owner, prompt: list[int], holders: Iterable[Holder]) -> tuple[int, int]:
        """The slot that begins like a prompt, kept or in use by the same owner, and for how many tokens."""
        if not self._reuse:
            return -1, 0
        wanted = prompt[:-1]  # the last token is decoded anew: it gives the logits
        best = self._kept.find(owner, wanted)
        for slot, tokens in holders:
            if (common := common_length(tokens, wanted)) > best[1]:
                best = slot, common
        return best

    def claim(self, owner: Owner, prompt: list[int], holders: Iterable[Holder], most_kept: int) -> tuple[int, int]:
        """A slot that begins with what is known of a prompt, and how much that is; at most so many cells stay kept."""
        source, cached = self.source(owner, prompt, holders)
        slot = self._free.pop()
        if cached:
            self._runtime.copy(source, slot, cached)
        self.shrink(most_kept)
        return slot, cached

    def take(self) -> int:
        """An empty slot."""
        return self._free.pop()

    def keep(self, owner: Owner, tokens: list[int], slot: int) -> None:
        """Keep what a slot holds for later prompts."""
        self._release(self._kept.keep(owner, tokens, slot) if self._reuse else [slot])

    def free(self, slot: int) -> None:
        """Empty a slot."""
        self._release([slot])

    def shrink(self, most_kept: int) -> int:
        """Forget the least recently used until at most so many cells are kept; returns how many sequences went."""
        return self._release(self._kept.shrink(most_kept))

    def forget(self, adapter: str | None) -> int:
        """Forget what an adapter, or (None) any, computed; returns how many sequences that were."""
        return self._release(self._kept.forget(adapter))

    def _release(self, slots: list[int]) -> int:
        for slot in slots:
            self._runtime.cut(slot, 0)
            self._free.append(slot)
        return len(slots)


def slots_needed(running: int) -> int:
    """Slots that a runtime must have for so many sequences at once."""
    return running + KEPT_SEQUENCES + 1
