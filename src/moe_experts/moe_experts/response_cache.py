"""Answers given before: exact matches only, of requests that would be answered the same way again."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from dataclasses import asdict

from moe_experts.engines.engine import Request, Result
from moe_experts.weights import Weights

# what names or hurries a request does not change its answer
_IRRELEVANT = ('id', 'adapter', 'priority', 'deadline')


def key_of(weights: Weights, request: Request) -> str:
    """What an answer depends on: the files, and the request with messages, sampling, seed and constraint.

    The chat template is in the base's file. '' = the answer would be another one the next time.
    """
    if not request.sampling.repeatable or request.mixture:
        return ''
    fields = asdict(request)
    for name in _IRRELEVANT:
        del fields[name]
    files = (weights.base_sha256 or str(weights.base), weights.adapter_sha256 or str(weights.adapter), weights.scale)
    return hashlib.sha256(json.dumps([files, fields], sort_keys=True).encode()).hexdigest()


class ResponseCache:
    """Results by key, the least recently used out first.

    Args:
        most: results kept; 0 = none.

    Attributes:
        hits: answers found since the start.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[str, int, Result]] = OrderedDict()
        self.hits = 0

    def find(self, key: str) -> Result | None:
        """The answer given before."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            self.hits += 1
            return found[2]

    def keep(self, key: str, expert: str, version: int, result: Result) -> None:
        """Remember an answer; one that ended by chance is none."""
        if not key or not self._most or result.finish_reason not in ('stop', 'length'):
            return
        with self._lock:
            self._kept[key] = (expert, version, result)
            self._kept.move_to_end(key)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def forget(self, expert: str = '', keep_version: int = 0) -> int:
        """Forget the answers of an expert ('' = all) but those of a version; returns how many."""
        with self._lock:
            gone = [key for key, (name, version, _result) in self._kept.items()
                    if expert in ('', name) and not (keep_version and version == keep_version)]
            for key in gone:
                del self._kept[key]
            return len(gone)
