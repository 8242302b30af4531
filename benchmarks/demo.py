"""What the demo costs: set-up by step, warm start, first token, tokens/s, memory, and words to motion.

    ./moe exec python benchmarks/demo.py

Words to motion is measured from the prompt "look left 30 degrees" given to the router to the first goal position that
reaches the servo bus, as the simulated servos' journal stamps it; one process sends and reads, one clock.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measurement import Figure, figure, report

from moe_client import Client, suite
from moe_client.types import Chunk, Generation

ROOT = Path(__file__).parents[1]
GOAL_POSITION = 116  # register of the X series
QUESTIONS = ('How do I read a JSON file in Python?', 'How can I see how much disk space is free?',
             'How do I list all active ROS 2 topics?', 'Which module turns script arguments into options?',
             'Suppose my ssh drops, how does the job survive?', 'My colleague wants more output from his node.',
             'What is the capital of France?')
SEEDS = itertools.count()
LIMIT_MEMORY_GB = 1.5
LIMIT_MOTION_MS = 200.0


def setup_times() -> dict[str, float]:
    """Seconds of every set-up step when it was last done."""
    path = suite.home() / 'logs' / 'setup_times.json'
    times: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    return times


def second_start(repeats: int) -> list[float]:
    """Seconds from `./moe` to its prompt when nothing is to be set up."""
    found = []
    for _ in range(repeats):
        begin = time.monotonic()
        subprocess.run([str(ROOT / 'moe'), '--version'], check=True, stdout=subprocess.DEVNULL)
        found.append(time.monotonic() - begin)
    return found


def ask(client: Client, prompt: str) -> tuple[float, Generation]:
    """Seconds to the first text of the stream, and the answer; a seed of its own keeps the answer cache out."""
    begin, first = time.monotonic(), 0.0
    answer: Generation | None = None
    for item in client.inference.generate_stream(prompt, seed=next(SEEDS)):
        if isinstance(item, Chunk) and item.text and not first:
            first = time.monotonic() - begin
        if isinstance(item, Generation):
            answer = item
    assert answer is not None  # the stream ends with a Generation or raises
    return first, answer


def journal_goals(path: Path, offset: int) -> list[float]:
    """Wall-clock seconds of the goal positions written to the bus after a place in the journal."""
    with path.open() as file:
        file.seek(offset)
        lines = [json.loads(line) for line in file if line.endswith('\n')]
    return [float(line['time']) for line in lines if line.get('address') == GOAL_POSITION]


def words_to_motion(client: Client, repeats: int, degrees: Sequence[int], cached: bool = False) -> list[float]:
    """Milliseconds from the prompt to the first goal position on the bus; `cached` leaves the answer cache on."""
    journal = suite.home() / 'run' / 'servos.journal.jsonl'
    client.robot.execute('{"action":"center"}')
    found = []
    for index in range(repeats):
        time.sleep(0.3)  # the writes of the motion before are over
        offset, begin = journal.stat().st_size, time.time()
        client.inference.generate(f'look {("left", "right")[index % 2]} {degrees[index % len(degrees)]} degrees',
                                  seed=None if cached else next(SEEDS))
        goals = journal_goals(journal, offset)
        if not goals:
            raise SystemExit(f'No goal position in {journal} after the motion.')
        found.append(1000 * (goals[0] - begin))
    return found


def resident_mb() -> dict[str, float]:
    """Resident memory of every process of the suite with its children, shared pages counted once [MB]."""
    return {row.name: row.resident_bytes / 1e6 for row in suite.processes()}


def main() -> None:
    """Start a suite of its own, measure, stop, write."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('--repeats', type=int, default=30)
    options = parser.parse_args()
    if suite.supervisor_pid():
        raise SystemExit(f'A suite of {suite.home()} runs; stop it with `moe down`.')
    os.environ.setdefault('ROS_DOMAIN_ID', '87')
    figures: list[Figure] = [Figure(f'set-up: {name}', seconds, 's') for name, seconds in setup_times().items()]
    figures.append(Figure('set-up: all', sum(setup_times().values()), 's'))
    figures.append(figure('second start to the prompt', second_start(5), 's', most=10))
    detail: dict[str, Any] = {}
    begin = time.monotonic()
    with suite.running(simulate=True), Client() as client:
        suite.wait_until_ready(client, joints=True)
        figures.append(Figure('warm start: up until the router routes', time.monotonic() - begin, 's'))
        for prompt in QUESTIONS:
            ask(client, prompt)  # loads the expert
        found = [ask(client, prompt) for _ in range(options.repeats) for prompt in QUESTIONS]
        # an answer without a rate came at once: a note said word for word
        figures += [
            figure('time to first token, four experts in turn: said from a note',
                   [1000 * first for first, answer in found if not answer.tokens_per_second], 'ms'),
            figure('  written by the model',
                   [1000 * first for first, answer in found if answer.tokens_per_second], 'ms'),
            figure('tokens/s of one stream',
                   [answer.tokens_per_second for _first, answer in found if answer.tokens_per_second], '1/s', least=10)]
        figures += [
            figure('"look left 30 degrees" to the first goal on the bus',
                   words_to_motion(client, options.repeats, (30,)), 'ms', most=LIMIT_MOTION_MS),
            figure('  other degrees every time',
                   words_to_motion(client, options.repeats, range(20, 20 + options.repeats)), 'ms'),
            figure('  asked before, answered from memory',
                   words_to_motion(client, options.repeats, (30,), cached=True), 'ms')]
        detail['memory_mb'] = resident_mb()
        figures += [Figure(f'memory: {name}', value, 'MB') for name, value in detail['memory_mb'].items()]
        total = sum(detail['memory_mb'].values()) / 1000
        figures.append(Figure('memory: all processes', total, 'GB', f'<= {LIMIT_MEMORY_GB:g}',
                              total <= LIMIT_MEMORY_GB))
    report('demo', figures, detail)


if __name__ == '__main__':
    main()
