"""Who has a place in the batch and who waits for one: by urgency, and with cells for all that they may need."""

from __future__ import annotations

from collections.abc import Callable

from moe_experts.engines.adapters import Adapters
from moe_experts.engines.engine import EngineSettings
from moe_experts.engines.prefix_cache import Owner, common_length
from moe_experts.engines.runtime import NoRoomError, Runtime
from moe_experts.engines.sequence import Branch, Sequence
from moe_experts.engines.slots import Holder, Slots

WORTH_WAITING_TOKENS = 32  # of a prompt that a neighbour is decoding right now: a step's patience saves them


class Places:
    """The running and the waiting sequences of an engine.

    Attributes:
        running: those that have slots.
        waiting: those that have none, in the order in which they came.
    """

    def __init__(self, runtime: Runtime, adapters: Adapters, slots: Slots, settings: EngineSettings) -> None:
        self._runtime, self._adapters, self._slots, self._settings = runtime, adapters, slots, settings
        self.running: list[Sequence] = []
        self.waiting: list[Sequence] = []

    def all(self) -> list[Sequence]:
        """Running and waiting ones; a copy."""
        return [*self.running, *self.waiting]

    def reserved(self) -> int:
        """Cells that the running ones may need."""
        return sum(one.room for one in self.running)

    def holders(self, owner: Owner) -> list[Holder]:
        """Slots that an owner uses, and what is in them."""
        return [(branch.slot, branch.decoded) for branch in self._branches(owner)]

    def known(self, branch: Branch) -> int:
        """How many tokens of a waiting branch's prompt need not be computed."""
        owner = self._adapters.owner(branch.adapter, branch.scale)
        return self._slots.known(owner, branch.prompt, self.holders(owner))

    def admit(self, now: float, begin: Callable[[Sequence], None]) -> None:
        """Give places to the most urgent; the least urgent that run make room for them.

        Args:
            begin: called with each that has a place for the first time.
        """
        order = sorted(self.waiting, key=lambda one: (
            -one.urgency(now), one.request.deadline or float('inf'), one.queued))
        for sequence in order:
            urgency = sequence.urgency(now)
            while not (enough := self._has_slots(sequence)) or not self._has_cells(sequence):
                lower = [one for one in self.running if one.standing < urgency
                         and one.request.priority < sequence.request.priority]
                if not lower:
                    return
                self._preempt(min(lower, key=_least_urgent), now)
            if enough and not self._soon_shared(sequence):
                began = sequence.branches[0].state is None
                if self._place(sequence, urgency) and began:
                    begin(sequence)

    def make_way(self, now: float) -> bool:
        """Take the place of the least urgent; False where it is the only one."""
        if len(self.running) > 1:
            self._preempt(min(self.running, key=_least_urgent), now)
            return True
        return False

    def leave(self, sequence: Sequence) -> None:
        """Let a sequence go; what it computed is kept for later prompts, where nothing has changed since."""
        if not sequence.admitted:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        for branch in sequence.branches:
            self.empty(branch.owner, branch.decoded, branch.slot)

    def empty(self, owner: Owner, tokens: list[int], slot: int) -> None:
        """Give a slot back, its cells kept where they would be computed alike."""
        if self._adapters.computes_as(owner):
            self._slots.keep(owner, tokens, slot)
        else:
            self._slots.free(slot)

    def _has_slots(self, sequence: Sequence) -> bool:
        return sum(len(one.branches) for one in self.running) + len(sequence.branches) <= self._settings.slots

    def _has_cells(self, sequence: Sequence) -> bool:
        # what a prompt shares needs no cells of its own
        shared = sum(max((common_length(tokens, branch.prompt) for _slot, tokens in self.holders(
            self._adapters.owner(branch.adapter, branch.scale))), default=0)
            for branch in sequence.branches if branch.state is None) if self._settings.use_kv_cache else 0
        return self.reserved() + sequence.room - shared <= self._runtime.context_tokens

    def _soon_shared(self, sequence: Sequence) -> bool:
        """Whether a neighbour is just decoding what this prompt begins with."""
        if sequence.branches[0].state is not None or not self._settings.use_kv_cache:
            return False
        for branch in sequence.branches:
            known = self.known(branch)
            for other in self._branches(self._adapters.owner(branch.adapter, branch.scale)):
                if len(other.decoded) < len(other.prompt) and common_length(
                        other.prompt, branch.prompt) - max(known, len(other.decoded)) >= WORTH_WAITING_TOKENS:
                    return True
        return False

    def _branches(self, owner: Owner) -> list[Branch]:
        return [branch for one in self.running for branch in one.branches if branch.owner == owner]

    def _place(self, sequence: Sequence, urgency: float) -> bool:
        """Give every branch its slot; where the cache has no room for that, the sequence goes on waiting."""
        try:
            for branch in sequence.branches:
                owner = self._adapters.owner(branch.adapter, branch.scale)
                if branch.state is None:
                    branch.slot, branch.cached, branch.shared = self._slots.claim(
                        owner, branch.prompt, self.holders(owner))
                else:
                    branch.slot = self._slots.resume(branch.state)
                branch.owner = owner
        except NoRoomError:
            for branch in sequence.branches:
                if branch.slot >= 0:
                    self._slots.free(branch.slot)
                    branch.slot, branch.owner = -1, ('', 0, 0.0)
                    branch.cached, branch.shared = (0, 0) if branch.state is None else (branch.cached, 0)
            return False
        for branch in sequence.branches:
            branch.state = None
        self.waiting.remove(sequence)
        self.running.append(sequence)
        sequence.admitted, sequence.standing = True, urgency
        return True

    def _preempt(self, sequence: Sequence, now: float) -> None:
        """Take a sequence out of the batch with all that it has computed; it goes on when its turn comes again."""
        self.running.remove(sequence)
        self.waiting.append(sequence)
        sequence.admitted, sequence.queued = False, now
        for branch in sequence.branches:
            branch.state = self._runtime.save(branch.slot)
            self._slots.free(branch.slot)
            branch.slot, branch.shared, branch.owner = -1, 0, ('', 0, 0.0)  # restored cells will be its own


def _least_urgent(sequence: Sequence) -> tuple[float, float]:
    return sequence.standing, -sequence.arrived
