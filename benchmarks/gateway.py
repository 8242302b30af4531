"""What the gateway costs: first token over HTTP against ROS, many streams, /health, and a peer.

    ./moe exec python benchmarks/gateway.py [--only first streams health peer]

The peer is llama-cpp-python's own server with the same GGUF, threads and prompts, in the same run, in turns with ours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from measurement import Figure, figure, report
from peers import server

from moe_client import Client, suite
from moe_client.types import Chunk

QUESTION = 'What is the capital of France?'
PROMPTS = ('Tell me about the sea.', 'Describe a robot arm.', 'What is a map?', 'Why is the sky blue?',
           'How do birds fly?', 'What is rain?', 'Describe a bridge.', 'Tell me about trains.')
STREAMS, HEALTH_S, HEALTH_RATE, CHATS, CHAT_TOKENS = 64, 30.0, 1000, 8, 48
MOST_MORE_MS, LEAST_TIMES = 5.0, 2.0


def first_token(stream: Iterator[object]) -> float:
    """Milliseconds to the first text."""
    begin, first = time.perf_counter(), 0.0
    for item in stream:
        if isinstance(item, Chunk) and item.text and not first:
            first = 1000 * (time.perf_counter() - begin)
    return first


def bare_first_token(connection: http.client.HTTPConnection, wanted: dict[str, Any]) -> float:
    """As first_token(), by the least that speaks HTTP: what is left is the gateway's own."""
    body = json.dumps({'prompt': QUESTION, **wanted})
    begin, first = time.perf_counter(), 0.0
    connection.request('POST', '/v1/inference/generate/stream', body, {'Content-Type': 'application/json'})
    for line in connection.getresponse():
        if line.startswith(b'data: ') and not first and json.loads(line[6:]).get('partial_response', {}).get('text'):
            first = 1000 * (time.perf_counter() - begin)
    return first


def compare_first_tokens(ros: Client, sdk: Client, connection: http.client.HTTPConnection, repeats: int
                         ) -> list[Figure]:
    """In turns, each time in another order: the machine's moods meet all. A seed of its own keeps answer caches out."""
    ways: dict[str, Callable[..., float]] = {
        'ros': lambda wanted: first_token(ros.inference.generate_stream(QUESTION, **wanted)),
        'sdk': lambda wanted: first_token(sdk.inference.generate_stream(QUESTION, **wanted)),
        'bare': lambda wanted: bare_first_token(connection, wanted)}
    orders = list(itertools.permutations(ways))
    over: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(repeats):
        for seed, name in enumerate(orders[index % len(orders)], 1 + index * len(ways)):
            over[name].append(ways[name](
                {'expert': 'general', 'max_tokens': 8, 'temperature': 0.7, 'seed': seed}))

    def more(name: str) -> list[float]:
        return [one - ros_ms for one, ros_ms in zip(over[name], over['ros'])]

    return [figure('first token over ROS', over['ros'], 'ms'), figure('first token over HTTP', over['bare'], 'ms'),
            figure('first token over HTTP by the SDK (httpx)', over['sdk'], 'ms'),
            figure('HTTP more than ROS, paired', more('bare'), 'ms', most=MOST_MORE_MS),
            figure('HTTP by the SDK more than ROS, paired', more('sdk'), 'ms', most=MOST_MORE_MS)]


async def chat(client: httpx.AsyncClient, prompt: str, model: str, tokens: int, seed: int) -> int:
    """One streamed chat; returns its tokens by usage (a chunk may hold several), -1 = the stream broke."""
    body = {'model': model, 'stream': True, 'max_tokens': tokens, 'temperature': 0.7, 'seed': seed,
            'stream_options': {'include_usage': True}, 'messages': [{'role': 'user', 'content': prompt}]}
    chunks, used, reason = 0, 0, None
    async with client.stream('POST', '/v1/chat/completions', json=body) as response:
        async for line in response.aiter_lines():
            if not line.startswith('data: {'):
                continue
            event = json.loads(line[6:])
            if 'error' in event:
                print(f'A stream broke: {event["error"]}', flush=True)
                return -1
            for choice in event['choices']:
                chunks += bool(choice['delta'].get('content'))
                reason = choice['finish_reason'] or reason
            used = (event.get('usage') or {}).get('completion_tokens', used)
    return used or chunks if reason else -1


async def chats(url: str, model: str, number: int, tokens: int, seed: int = 1) -> tuple[float, list[int]]:
    """So many chats at once; seconds, and the tokens of each. A seed of its own keeps answer caches out."""
    async with httpx.AsyncClient(base_url=url, timeout=300.0, limits=httpx.Limits(max_connections=number)) as client:
        begin = time.perf_counter()
        counts = await asyncio.gather(*(chat(client, PROMPTS[index % len(PROMPTS)], model, tokens, seed)
                                        for index in range(number)))
        return time.perf_counter() - begin, list(counts)


async def ask_health(host: str, port: int) -> tuple[float, list[float], int]:
    """HEALTH_RATE requests a second for HEALTH_S on eight connections; rate reached, latencies [ms], failures."""
    latencies: list[float] = []
    failures = 0
    each = HEALTH_RATE / CHATS
    begin = time.perf_counter()

    async def connection() -> None:
        nonlocal failures
        reader, writer = await asyncio.open_connection(host, port)
        for index in range(int(each * HEALTH_S)):
            if (ahead := begin + index / each - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            sent = time.perf_counter()
            writer.write(b'GET /health HTTP/1.1\r\nHost: x\r\n\r\n')
            head = await reader.readuntil(b'\r\n\r\n')
            length = int(head.lower().partition(b'content-length: ')[2].partition(b'\r')[0])
            await reader.readexactly(length)
            latencies.append(1000 * (time.perf_counter() - sent))
            failures += not head.startswith(b'HTTP/1.1 200')
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CHATS)))
    return len(latencies) / (time.perf_counter() - begin), latencies, failures


def against_peer(url: str, path: Path, repeats: int) -> list[Figure]:
    """Eight chats at once, ours and the peer's in turns."""
    rates: dict[str, list[float]] = {'ours': [], 'peer': []}
    with server(path) as other:
        if not other:
            return []
        for index in range(repeats + 1):
            for name, base, model in (('ours', url, 'general'), ('peer', other, 'peer')):
                try:
                    seconds, counts = asyncio.run(chats(base, model, CHATS, CHAT_TOKENS, 100 + index))
                except httpx.TransportError as error:
                    if name == 'ours':
                        raise
                    print(f'llama-cpp-python\'s server ended while it answered ({error}); its kernels for AMX crash on '
                          'virtual machines that show AMX and do not let it be used.')
                    return []
                if index:  # the first round loads
                    rates[name].append(sum(counts) / seconds)
    times = statistics.median(rates['ours']) / statistics.median(rates['peer'])
    return [figure('8 chats at once, gateway', rates['ours'], 'tok/s'),
            figure('8 chats at once, llama_cpp.server', rates['peer'], 'tok/s'),
            Figure('8 chats at once, times the peer', times, 'x', f'>= {LEAST_TIMES:g}', times >= LEAST_TIMES)]


def main() -> None:
    """Use the running suite, or start one of its own; measure; write."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('--only', nargs='+', choices=['first', 'streams', 'health', 'peer'])
    parser.add_argument('--repeats', type=int, default=40)
    options = parser.parse_args()
    for variable in ('MOE_API_PORT', 'MOE_METRICS_PORT'):
        os.environ.setdefault(variable, '0')
    figures: list[Figure] = []
    with suite.running(simulate=True), Client() as ros:
        suite.wait_until_ready(ros, timeout_s=300.0)
        url = gateway_url()
        path = suite.home() / 'models' / 'smollm2-135m-instruct-q8_0.gguf'

        def streams() -> list[Figure]:
            _seconds, counts = asyncio.run(chats(url, 'general', STREAMS, 16))
            broken = sum(count < 1 for count in counts)
            return [Figure(f'{STREAMS} streams at once, broken', broken, '', '<= 0', broken == 0)]

        def health() -> list[Figure]:
            host, port = url.removeprefix('http://').split(':')
            rate, latencies, failures = asyncio.run(ask_health(host, int(port)))
            return [Figure(f'/health for {HEALTH_S:g} s', rate, '1/s', f'>= {HEALTH_RATE}', rate >= 0.99 * HEALTH_RATE),
                    figure('/health', latencies, 'ms'), Figure('/health, failures', failures, '', '<= 0', not failures)]

        def first() -> list[Figure]:
            host = url.removeprefix('http://')
            with Client(base_url=url) as sdk, contextlib.closing(http.client.HTTPConnection(host)) as connection:
                return compare_first_tokens(ros, sdk, connection, options.repeats)

        parts: dict[str, Callable[[], list[Figure]]] = {
            'first': first, 'streams': streams, 'health': health,
            'peer': lambda: against_peer(url, path, max(2, options.repeats // 10))}
        for name, measure in parts.items():
            if name in (options.only or parts):
                figures += measure()
    report('gateway', figures)


def gateway_url() -> str:
    """Where the suite's gateway answers, as soon as it does."""
    where = suite.home() / 'run' / 'gateway.json'
    give_up = time.monotonic() + 60.0
    while time.monotonic() < give_up:
        try:
            url: str = json.loads(where.read_text())['url']
            httpx.get(f'{url}/health')
            return url
        except (OSError, ValueError, httpx.TransportError):
            time.sleep(0.1)
    raise SystemExit('The gateway does not answer; `moe logs gateway` says why.')


if __name__ == '__main__':
    main()
