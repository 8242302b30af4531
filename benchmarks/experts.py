"""How fast experts are served, against bare llama.cpp and llama-cpp-python's server on the same file.

    ./moe exec pip install -r requirements/benchmarks.txt     # the peer's own needs
    ./moe exec python benchmarks/experts.py [--soak 5000] [--only NAME ...]

Ours is measured through the ROS action, from another process, with the defaults of the expert node.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measurement import Figure, figure, report
from peers import bare_decode, server, server_calls
from serving import ROOT, Call, Serving

from moe_experts.engines.engine import EngineSettings
from moe_experts.pool import Pool
from moe_experts.weights import Weights
from moe_experts.worker.starter import RESERVE_DELAY_S
from moe_interfaces.msg import SamplingConfig
from moe_training.paths import served_base

ADAPTERS = {name: ROOT / 'data' / 'adapters' / f'{name}.gguf' for name in ('python', 'linux', 'robotics', 'motion')}
NEW_TOKENS = 64
SETTLED_S = 0.5  # the bare loop's threads spin for some time after its last step, on the cores that the next one needs
SYSTEM = ('You are the voice of a small robot with a camera, an inertial unit and a pan and tilt head. ' * 10)[:850]
QUESTIONS = [f'Question {index}: what should you do when you see object number {index * 7} on the table?'
             for index in range(32)]
SCHEMA = json.dumps({'type': 'array', 'items': {'type': 'integer', 'minimum': 0, 'maximum': 99999},
                     'minItems': 100, 'maxItems': 200})
Measure = Callable[[Serving, int], list[Figure]]


def goal(prompt: str, expert: str = 'general', tokens: int = NEW_TOKENS, **options: Any) -> dict[str, Any]:
    """A goal whose answer has exactly so many tokens and is not in the answer cache."""
    options.setdefault('sampling_config', SamplingConfig(temp=0.0, ignore_eos=True, seed=random.getrandbits(31)))
    return {'prompt': prompt, 'expert': expert, 'max_tokens': tokens, **options}


def speed(calls: list[Call]) -> float:
    """Tokens/s of all together, from the first goal sent to the last result."""
    tokens = sum(len(call.result.response.tokens) for call in calls)
    failed = [call.result.error_msg for call in calls if call.result.error_code]
    if failed:
        raise SystemExit(f'{len(failed)} goals failed: {failed[0]}')
    return tokens / (max(call.ended for call in calls) - min(call.sent for call in calls))


def single_stream(serving: Serving, repeats: int) -> list[Figure]:
    """One caller against a bare decode loop, turn by turn."""
    ours, bare, late = [], [], []
    serving.ask([goal(QUESTIONS[0])])
    for index in range(repeats):
        prompt = f'{index} {QUESTIONS[index % 32]}'
        bare.append(bare_decode(served_base(), prompt, 2 * NEW_TOKENS))
        time.sleep(SETTLED_S)
        (call,) = serving.ask([goal(prompt, tokens=2 * NEW_TOKENS)])
        ours.append(call.result.timings.tokens_per_second)
        late.append(1000 * (call.first_s - call.result.timings.first_token_s))
    share = float(np.median(np.array(ours) / np.array(bare)))
    return [figure('one stream through the action', ours, 'tok/s'), figure('  bare llama.cpp loop', bare, 'tok/s'),
            Figure('  share of it', share, '', '>= 0.95', share >= 0.95),
            figure('first token, action above engine', late, 'ms', most=5.0)]


def many_callers(serving: Serving, repeats: int) -> list[Figure]:
    """8 and 32 callers with one system prompt against the server, turn by turn."""
    found = []
    with server(served_base()) as address:
        for count, more in ((8, 2.0), (32, 2.5)):
            ours, theirs, first, first_theirs = [], [], [], []
            for repeat in range(max(2, repeats // (1 if count == 8 else 3))):
                prompts = [f'{repeat} {text}' for text in QUESTIONS[:count]]
                calls = serving.ask([goal(prompt, system_prompt=SYSTEM) for prompt in prompts])
                ours.append(speed(calls))
                first += [1000 * call.first_s for call in calls]
                if address:
                    rate, seconds = server_calls(address, SYSTEM, prompts, NEW_TOKENS)
                    theirs.append(rate)
                    first_theirs += [1000 * value for value in seconds]
            found += [figure(f'{count} callers, together', ours, 'tok/s'),
                      Figure(f'{count} callers, first token p95', float(np.percentile(first, 95)), 'ms')]
            if theirs:
                times = float(np.median(np.array(ours) / np.array(theirs)))
                share = float(np.percentile(first, 95) / np.percentile(first_theirs, 95))
                found += [figure('  llama-cpp-python server', theirs, 'tok/s'),
                          Figure('  times the server', times, 'x', f'>= {more:g}', times >= more),
                          Figure('  server, first token p95', float(np.percentile(first_theirs, 95)), 'ms'),
                          Figure('  share of its first token', share, '', '<= 0.25', share <= 0.25)]
    return found


def adapters(serving: Serving, repeats: int) -> list[Figure]:
    """8 callers on 4 adapters against 8 on one, and what a switch costs the first token."""
    names = list(ADAPTERS)
    ratios, one_rate, four_rate = [], [], []
    for repeat in range(repeats):
        prompts = [f'{repeat} {text}' for text in QUESTIONS[:8]]
        one = speed(serving.ask([goal(prompt, 'python') for prompt in prompts]))
        four = speed(serving.ask([goal(prompt, names[index % 4]) for index, prompt in enumerate(prompts)]))
        one_rate.append(one)
        four_rate.append(four)
        ratios.append(four / one)
    same, switched, number = [], [], itertools.count()
    for _ in range(8 * repeats):
        for expert, into in (('python', None), ('python', same), ('linux', switched)):
            (call,) = serving.ask([goal(f'{next(number):04d} what now?', expert, 2)])
            if into is not None:
                into.append(1000 * call.result.timings.first_token_s)
    later = float(np.median(switched) - np.median(same))
    return [figure('8 callers on one adapter', one_rate, 'tok/s'), figure('8 callers on four', four_rate, 'tok/s'),
            figure('  share', ratios, '', least=0.6), Figure('adapter switch, first token later', later, 'ms', '<= 6',
                                                             later <= 6.0)]


def schema(serving: Serving, repeats: int) -> list[Figure]:
    """A JSON schema on against off."""
    ratios = []
    for index in range(repeats):
        sampled = {'temp': 0.0, 'seed': index}
        (bound,) = serving.ask([goal(f'{index} numbers', tokens=2 * NEW_TOKENS, sampling_config=SamplingConfig(
            json_schema=SCHEMA, **sampled))])
        (free,) = serving.ask([goal(f'{index} numbers', tokens=2 * NEW_TOKENS, sampling_config=SamplingConfig(
            ignore_eos=True, **sampled))])
        ratios.append(bound.result.timings.tokens_per_second / free.result.timings.tokens_per_second)
    return [figure('JSON schema on against off', ratios, '', least=0.95)]


def loading(_serving: Serving, repeats: int) -> list[Figure]:
    """An expert loaded with and without its base, files warm, as the node's pool does it."""
    adapter, base = [], []
    pool = Pool(4, EngineSettings(threads=os.cpu_count() or 1), print)
    try:
        files = Weights(served_base(), adapter=ADAPTERS['python'])
        for index in range(repeats + 1):
            time.sleep(RESERVE_DELAY_S + 2.0)  # the worker in reserve is made when nobody is in a hurry
            begin = time.monotonic()
            pool.give_back(pool.get('general', 1, Weights(served_base())))
            middle = time.monotonic()
            pool.give_back(pool.get('python', 1, files))
            end = time.monotonic()
            pool.unload('python')
            pool.unload('general')
            pool.close_idle_workers()
            if index:  # the first warms the files
                base.append(1000 * (middle - begin))
                adapter.append(1000 * (end - middle))
    finally:
        pool.close()
    return [figure('expert loaded, base mapped', adapter, 'ms', most=20.0),
            figure('expert loaded, base not mapped', base, 'ms', most=250.0)]


def cancelling(serving: Serving, repeats: int) -> list[Figure]:
    """From the cancel request to the result, in the middle of an answer and of a long prompt."""
    decode, prefill = [], []
    for index in range(2 * repeats):
        call, done = serving.begin(**goal(f'{index} tell me a story', tokens=1000))
        while not call.first:
            time.sleep(0.001)
        time.sleep(random.uniform(0.05, 0.2))
        decode.append(_cancel(call, done))
        call, done = serving.begin(**goal(f'{index} ' + 'word ' * 1990, tokens=4))
        while call.handle is None:
            time.sleep(0.001)
        time.sleep(random.uniform(0.1, 0.4))
        prefill.append(_cancel(call, done))
    return [figure('cancel while decoding', decode, 'ms', most=15.0),
            figure('cancel within a prompt of 2,000 tokens', prefill, 'ms', most=150.0)]


def _cancel(call: Call, done: Any) -> float:
    begin = time.monotonic()
    call.handle.cancel_goal_async()
    ended = done.result(60)
    if ended.result.finish_reason != 'cancelled':
        raise SystemExit(f'A cancelled goal ended with {ended.result.finish_reason}.')
    return 1000 * (ended.ended - begin)


def soak(serving: Serving, count: int) -> list[Figure]:
    """Mixed requests, a fifth cancelled, on experts that evict each other: memory, and answers given to the wrong."""
    source, names = random.Random(1), ['python', 'linux', 'robotics']
    prompts = {name: [json.loads(line)['prompt'] for line in
                      (ROOT / 'data' / name / 'heldout.jsonl').read_text().splitlines()[:12]] for name in names}
    right: dict[tuple[str, str], set[str]] = {}
    for name in names:
        for size in (1, 4, 12):  # a batch of another size may round differently; each answer of the expert is right
            for begin in range(0, 12, size):
                part = prompts[name][begin:begin + size]
                for prompt, call in zip(part, serving.ask([goal(prompt, name, 8) for prompt in part]), strict=True):
                    right.setdefault((name, prompt), set()).add(call.result.response.text)
    wrong, done, memory, lost = 0, 0, [], 0
    while done < count:
        asked = [(name := source.choice(names), source.choice(prompts[name])) for _ in range(16)]
        begun = [(pair, serving.begin(**goal(pair[1], pair[0], 8))) for pair in asked]
        for index, (_pair, (call, _done)) in enumerate(begun):
            if index % 5 == 0:
                while call.handle is None:
                    time.sleep(0.001)
                call.handle.cancel_goal_async()
        for pair, (_call, future) in begun:
            result = future.result(600).result
            lost += result.error_code not in (0, 3003)
            if result.finish_reason in ('stop', 'length'):
                wrong += result.response.text not in right[pair]
        done += len(asked)
        if serving.status is not None and done % 320 == 0:
            memory.append(serving.status.memory_bytes / 1e6)
    warm = memory[max(1, len(memory) // 4):] or memory or [0.0]
    growth = 100 * (max(warm) - warm[0]) / warm[0] if warm[0] else 0.0
    evictions = serving.status.evictions if serving.status is not None else 0
    return [Figure(f'{done} mixed requests: wrong answers', wrong, '', '<= 0', wrong == 0),
            Figure('  failed', lost, '', '<= 0', lost == 0), Figure('  evictions', evictions, ''),
            Figure('  memory growth after warm-up', growth, '%', '<= 3', growth <= 3.0)]


MEASURES: dict[str, Measure] = {
    'single': single_stream, 'callers': many_callers, 'adapters': adapters, 'schema': schema, 'loading': loading,
    'cancel': cancelling}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description='Serving experts, against its peers.')
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--soak', type=int, default=5000, help='mixed requests; 0 = none')
    parser.add_argument('--only', nargs='*', choices=[*MEASURES, 'soak'], default=[*MEASURES, 'soak'])
    arguments = parser.parse_args()
    folder, figures = Path(tempfile.mkdtemp(prefix='moe-benchmark-')), []
    try:
        with Serving(folder / 'a', served_base(), ADAPTERS, **{'experts.cache_size': 5}) as serving:
            for name, measure in MEASURES.items():
                if name in arguments.only:
                    print(f'{name} ...', flush=True)
                    figures += measure(serving, arguments.repeats)
        if arguments.soak and 'soak' in arguments.only:
            print('soak ...', flush=True)
            with Serving(folder / 'b', served_base(), ADAPTERS, **{'experts.cache_size': 2}) as serving:
                figures += soak(serving, arguments.soak)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report('experts', figures)


if __name__ == '__main__':
    main()
