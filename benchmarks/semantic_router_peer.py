"""What aurelio-labs' semantic-router says of the same prompts, in an environment that has it.

    PYTHON semantic_router_peer.py TASK.npz ANSWERS.json

TASK.npz holds `index` (n, 384), `index_names`, `asked` (m, 384): vectors of our encoder, so that both routers see the
same. The names of the routes, the best one's score and the seconds of a query without encoding are written.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from semantic_router import IndexedRouter, Route, __version__
from semantic_router.encoders import DenseEncoder


class Known(DenseEncoder):
    """Gives the vectors that were computed before; a text is the number of its row."""

    vectors: Any

    def __call__(self, docs: list[str]) -> list[list[float]]:
        """Vectors of rows."""
        return [self.vectors[int(row)] for row in docs]

    async def acall(self, docs: list[str]) -> list[list[float]]:
        """The same, awaited."""
        return self(docs)


def main() -> None:
    """Answer a task."""
    task = np.load(sys.argv[1], allow_pickle=False)
    names = [str(name) for name in task['index_names']]
    vectors = np.concatenate([task['index'], task['asked']])
    routes = [Route(name=name, utterances=[str(row) for row, owner in enumerate(names) if owner == name])
              for name in sorted(set(names))]
    router = IndexedRouter(Known(name='known', vectors=vectors), routes)
    answers, times = [], []
    for row in range(len(names), len(vectors)):
        begin = time.perf_counter()
        choice = router(str(row), threshold=-1.0)
        times.append(time.perf_counter() - begin)
        answers.append((choice.name, float(choice.confidence or 0.0)))
    with open(sys.argv[2], 'w', encoding='utf-8') as file:
        json.dump({'version': __version__, 'answers': answers, 'median_s': float(np.median(times))}, file)


if __name__ == '__main__':
    main()
