"""The places in the KV cache: which are free, and what a new prompt can begin with."""

from __future__ import annotations

from collections.abc import Iterable

from moe_experts.engines.prefix_cache import Owner, PrefixCache, common_length
from moe_experts.engines.runtime import NoRoomError, Runtime, State

Holder = tuple[int, list[int]]  # a slot in use and the tokens in its cells


class Slots:
    """Hands out the slots of a runtime.

    Args:
        running: slots that may be in use at once; the runtime has slots_needed() of them.
        kept_bytes: of finished sequences that are kept; 0 = nothing is kept and nothing reused.
    """

    def __init__(self, runtime: Runtime, running: int, kept_bytes: int) -> None:
        self._runtime = runtime
        self._free = list(range(slots_needed(running)))
        self._kept = PrefixCache(kept_bytes)
        self._reuse = kept_bytes > 0

    def known(self, owner: Owner, prompt: list[int], holders: Iterable[Holder]) -> int:
        """How many tokens of a prompt need not be computed: kept ones, or those in use by the same owner."""
        return self._source(owner, prompt, holders)[2]

    def _source(self, owner: Owner, prompt: list[int], holders: Iterable[Holder]) -> tuple[int, State | None, int]:
        """The slot (-1 = none), or else the state, that begins like a prompt, and for how many tokens."""
        if not self._reuse:
            return -1, None, 0
        wanted = prompt[:-1]  # the last token is decoded anew: it gives the logits
        state, length = self._kept.find(owner, wanted)
        source = -1
        for slot, tokens in holders:
            # shared cells cost nothing, so a neighbour with as much is the better source
            if 0 < (common := common_length(tokens, wanted)) >= length:
                source, length = slot, common
        return source, state, length

    def claim(self, owner: Owner, prompt: list[int], holders: Iterable[Holder]) -> tuple[int, int, int]:
        """A slot that begins with what is known of a prompt; returns it, that length, and how much of it is shared.

        Raises NoRoomError.
        """
        source, state, length = self._source(owner, prompt, holders)
        slot = self.take()
        if source >= 0:
            self._runtime.copy(source, slot, length)
        elif state is not None:
            self._restore(slot, state, length)
        return slot, length, length if source >= 0 else 0

    def resume(self, state: State) -> int:
        """A slot with a state in it; raises NoRoomError."""
        slot = self.take()
        self._restore(slot, state, None)
        return slot

    def _restore(self, slot: int, state: State, length: int | None) -> None:
        try:
            self._runtime.restore(slot, state)
        except NoRoomError:
            self.free(slot)
            raise
        if length is not None:
            self._runtime.cut(slot, length)

    def take(self) -> int:
        """An empty slot."""
        return self._free.pop()

    def keep(self, owner: Owner, tokens: list[int], slot: int) -> None:
        """Save what a slot holds for later prompts, and empty it."""
        if self._reuse and not self._kept.covers(owner, tokens):
            self._kept.keep(owner, tokens, self._runtime.save(slot))
        self.free(slot)

    def free(self, slot: int) -> None:
        """Empty a slot."""
        self._runtime.cut(slot, 0)
        self._free.append(slot)

    def forget(self, adapter: str | None) -> int:
        """Forget what an adapter, or (None) any, computed; returns how many sequences that were."""
        return self._kept.forget(adapter)


def slots_needed(running: int) -> int:
    """Slots that a runtime must have for so many sequences at once, and one that only reads."""
    return running + 1
