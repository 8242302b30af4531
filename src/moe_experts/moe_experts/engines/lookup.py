"""What an answer will probably go on with: what followed the same words before, in its prompt or in itself.

Prompt lookup decoding (Yang et al. 2023, "LLMA", arXiv 2304.04487; Saxena 2023): an answer that reads from notes
repeats them, and decoding several tokens of one sequence in a step costs little more than decoding one. The tokens
stand as far as what is drawn agrees, so an answer is what it would have been without. What is guessed depends on the
prompt and the answer alone, never on earlier requests: one that is alone is computed alike each time.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from moe_experts.engines.guesses import NO_GUESS, Guess

MOST_TOKENS = 8  # guessed in a step
# What a step costs beside its tokens, and what it costs more where it has not as many tokens as the one before
# (llama.cpp makes its graph anew): in tokens. Measured on two cores, SmolLM2-135M Q8_0, 1 to 9 tokens: 12 ms, 2.5 ms
# there and 2.5 ms back, and 4 ms for each token; with an adapter 14 ms and 5.5 ms.
STEP_COST_TOKENS = 3.0
CHANGE_COST_TOKENS = 1.3
_STANDING = (0.4, 0.65, 0.75)  # share of the tokens that stand where 1, 2, 3 tokens before agreed, to begin with
_MEMORY = 0.75  # weight of what was known of that share before each token
_CERTAIN = 0.97  # no share is taken for higher
_RECOVERY = 0.01  # by which a share that is too low for a guess grows each time, until one is tried again


class Lookup:
    """Guesses for one sequence."""

    def __init__(self) -> None:
        self._standing = list(_STANDING)

    def guess(self, said: list[int], company: int, most: int) -> Guess:
        """At most so many tokens that may follow `said`, which is the prompt and the answer so far.

        A token is guessed where it stands often enough for what it costs; the more dear steps are shared with
        others (`company`: the tokens that the step decodes anyway), the less it saves.
        """
        before = np.array(said[:-1])
        places = np.flatnonzero(before == said[-1])
        agreed = 0
        while places.size and agreed < len(_STANDING):
            agreed, latest = agreed + 1, int(places[-1])
            places = places[places >= agreed]
            places = places[before[places - agreed] == before[-agreed]]
        if not agreed:
            return NO_GUESS
        standing = min(self._standing[agreed - 1], _CERTAIN)
        saved = 1.0 + STEP_COST_TOKENS / company  # by a token that stands
        count = min(MOST_TOKENS, most, int(math.log(saved) / -math.log(standing)))  # the last stands 1 / saved times
        stand = sum(standing ** place for place in range(1, count + 1))
        if stand * saved < count + CHANGE_COST_TOKENS:
            self._standing[agreed - 1] = standing + _RECOVERY
            return NO_GUESS
        return Guess(said[latest + 1:latest + 1 + count], partial(self._judge, agreed - 1))

    def _judge(self, which: int, guessed: int, stood: int) -> None:
        for hit in [1.0] * stood + [0.0] * (stood < guessed):
            self._standing[which] = _MEMORY * self._standing[which] + (1.0 - _MEMORY) * hit
