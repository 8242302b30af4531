"""How fast and how good a served expert is: latency and tokens/s at several streams, memory, held-out score."""

from __future__ import annotations

import json
import math
import queue
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from moe_experts.engines.engine import EngineError, Piece, Request, Result, Sampling
from moe_experts.worker.client import Worker

SLOW, FAST = 10.0, 100.0  # [tokens/s] of one stream: below a person's reading speed; felt as immediate
FILLER = 'The robot looks at the door and says what it sees there. '
ANSWER_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Load:
    """So many callers at once: tokens/s of all together, first token and whole answer [s] at percentiles."""

    streams: int
    tokens_per_s: float
    first_token_s: tuple[float, float, float]
    answer_s: tuple[float, float, float]


PERCENTILES = (50, 95, 99)


def percentiles(values: list[float]) -> tuple[float, float, float]:
    """The 50th, 95th and 99th, by nearest rank."""
    ordered = sorted(values)
    found = [ordered[min(len(ordered) - 1, math.ceil(len(ordered) * share / 100) - 1)] for share in PERCENTILES]
    return found[0], found[1], found[2]


def answers(worker: Worker, requests: list[Request]) -> tuple[list[Result], list[float], float]:
    """Ask all at once; returns results, first tokens [s] and how long all took [s]. Raises EngineError."""
    arrivals: queue.SimpleQueue[Piece | Result] = queue.SimpleQueue()
    begin = time.monotonic()
    first: dict[str, float] = {}
    results: dict[str, Result] = {}
    for request in requests:
        worker.submit(request, arrivals.put)
    while len(results) < len(requests):
        item = arrivals.get(timeout=ANSWER_TIMEOUT_S)
        first.setdefault(item.id, time.monotonic() - begin)
        if isinstance(item, Result):
            if item.error_code:
                raise EngineError(item.error_msg, item.error_code)
            results[item.id] = item
    return [results[one.id] for one in requests], [first[one.id] for one in requests], time.monotonic() - begin


def measure_load(worker: Worker, like: Request, streams: int, prompt_tokens: int, repeats: int) -> Load:
    """Ask for `streams` different answers of like.max_tokens at once, `repeats` times. Raises EngineError."""
    text = FILLER
    while len(worker.call('tokenize', text=text)) < prompt_tokens:
        text += FILLER
    tokens, took, first, whole = 0, 0.0, [], []
    for repeat in range(repeats):
        requests = [replace(like, id=uuid.uuid4().hex, messages=(('user', f'{repeat}.{index} {text}'),),
                            sampling=Sampling(temp=0.0, ignore_eos=True), json_schema='', regex='', grammar='')
                    for index in range(streams)]
        results, firsts, seconds = answers(worker, requests)
        tokens, took = tokens + sum(len(one.tokens) for one in results), took + seconds
        first += firsts
        whole += [one.total_s for one in results]
    return Load(streams, tokens / took, percentiles(first), percentiles(whole))


def held_out_score(worker: Worker, like: Request, path: Path, progress: Callable[[float], None]) -> tuple[float, int]:
    """Share of a JSONL file's prompts that are answered exactly right (JSON by value), and how many there are.

    Raises EngineError (2001) for a file that holds no rows of "prompt" and "completion".
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
        pairs = [(str(row['prompt']), str(row['completion'])) for row in rows]
    except OSError as error:
        raise EngineError(f'{path} cannot be read: {error.strerror}.', 2001) from None
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f'{path} must hold JSON objects with "prompt" and "completion": {error}.', 2001) from None
    if not pairs:
        raise EngineError(f'{path} holds no rows.', 2001)
    right = 0
    for begin in range(0, len(pairs), 8):
        part = pairs[begin:begin + 8]
        system = tuple(message for message in like.messages if message[0] == 'system')
        results, _first, _took = answers(worker, [
            replace(like, id=uuid.uuid4().hex, messages=(*system, ('user', prompt)), sampling=Sampling(temp=0.0))
            for prompt, _completion in part])
        right += sum(map(same, (one.text for one in results), (completion for _prompt, completion in part)))
        progress(min(1.0, (begin + 8) / len(pairs)))
    return right / len(pairs), len(pairs)


def same(given: str, right: str) -> bool:
    """Whether two answers say the same: equal JSON values, or equal texts but for space around them."""
    try:
        return bool(json.loads(given) == json.loads(right))
    except ValueError:
        return given.strip() == right.strip()


def verdict(tokens_per_s: float) -> str:
    """One stream's speed [tokens/s] in words."""
    if tokens_per_s < SLOW:
        return (f'{tokens_per_s:.1f} tokens/s: slower than people read (below {SLOW:.0f}). Use a smaller or more '
                'quantised base, or more threads.')
    if tokens_per_s < FAST:
        return f'{tokens_per_s:.1f} tokens/s: good for conversation ({SLOW:.0f} to {FAST:.0f}).'
    return f'{tokens_per_s:.1f} tokens/s: fast (above {FAST:.0f}).'
