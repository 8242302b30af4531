"""Whose turn it is: a runtime applies one adapter per decode, so those that wait for different ones take turns."""

from __future__ import annotations

from collections.abc import Mapping

QUANTUM_STEPS = 4  # of one adapter in a row: a switch costs half as much as a step
Group = tuple[str, float]  # an adapter and the scale of its requests


class Turns:
    """Turns of a few steps, the most urgent first, and a point of urgency more for each step passed over."""

    def __init__(self) -> None:
        self._served: dict[Group, int] = {}
        self._turn = 0
        self._current: tuple[Group, int] = (('', 0.0), 0)  # and for how many steps already

    def next(self, urgency: Mapping[Group, int]) -> Group:
        """The group whose step is next, of those that have something to decode."""
        self._turn += 1
        chosen, steps = self._current
        if chosen not in urgency or steps >= QUANTUM_STEPS or urgency[chosen] < max(urgency.values()):
            chosen, steps = max(urgency, key=lambda group: (
                urgency[group] + self._turn - self._served.get(group, self._turn))), 0
        self._current = chosen, steps + 1
        self._served = {group: self._served.get(group, self._turn) for group in urgency} | {chosen: self._turn}
        return chosen
