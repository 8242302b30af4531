"""The router: CLINC150 beside semantic-router, and the node's latency, throughput, memory and overhead.

    ./moe exec python benchmarks/router.py [--peer PYTHON]

PYTHON is an interpreter that has `semantic-router` (`python -m venv X; X/bin/pip install semantic-router`); without it
the peer is left out by name. Accuracy, calibration and strangers are measured on CLINC150's validation part, which no
fit has seen, through the whole cascade as it serves. The overhead is measured without notes, which would change what
the expert reads or leave it nothing to write.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')  # as in the worker that fits
os.environ.setdefault('ROS_DOMAIN_ID', '86')

import numpy as np
import psutil
import rclpy
from ament_index_python.packages import get_package_prefix
from measurement import Figure, figure, report
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.task import Future

from moe_interfaces.action import GenerateResponse
from moe_interfaces.srv import RoutePrompt
from moe_router import measures
from moe_router.classifier import NONE, Head, Scores
from moe_router.encoder import Encoder
from moe_router.fitting import fit
from moe_router.prepare_encoder import models_folder
from moe_router.worker import fit_in_worker

ROOT = Path(__file__).parents[1]
CLINC = ROOT.parent / 'shared' / 'data' / 'clinc150' / 'train_val.json'
SEEDS = (0, 1, 2)
QUESTIONS = ('How do I read a JSON file in Python?', 'How can I see how much disk space is free?',
             'How do I list all active ROS 2 topics?', 'look left 30 degrees', 'What is the capital of France?')
CLIENTS = 64


class Clinc:
    """The data with its vectors."""

    def __init__(self, encoder: Encoder) -> None:
        content = json.loads(CLINC.read_text())
        self.rows: dict[str, list[dict[str, str]]] = content
        self.vectors = {part: encoder.encode([row['text'] for row in rows]) for part, rows in content.items()}
        self.intents = np.array([row['intent'] for row in content['train']])
        self.domains = np.array([row['domain'] for row in content['train']])
        names = sorted({row['intent'] for part in content.values() for row in part})
        self.named = dict(zip(names, encoder.encode([name.replace('_', ' ') for name in names]), strict=True))

    def few(self, seed: int, covered: bool) -> np.ndarray[Any, Any]:
        """Rows of 20 examples per domain; `covered`: each of its 15 intents occurs."""
        random, found = np.random.default_rng(seed), []
        for domain in sorted(set(self.domains)):
            pool = np.flatnonzero(self.domains == domain)
            first = np.array([random.choice(np.flatnonzero(self.intents == intent))
                              for intent in sorted(set(self.intents[pool]))]) if covered else np.empty(0, int)
            found.append(np.concatenate([first, random.choice(np.setdiff1d(pool, first), 20 - len(first), False)]))
        return np.concatenate(found).astype(int)

    def fit(self, rows: Sequence[int], with_oos: bool = False) -> Head:
        """A head of some training rows."""
        samples = [self.rows['train'][row] for row in rows]
        vectors = self.vectors['train'][rows]
        if with_oos:
            samples = samples + self.rows['oos_train']
            vectors = np.concatenate([vectors, self.vectors['oos_train']])
        return fit([row['text'] for row in samples], vectors,
                   [NONE if row['domain'] == 'none' else row['domain'] for row in samples],
                   [row['intent'] for row in samples], 'clinc',
                   np.array([self.named[row['intent']] for row in samples]))


def judged(clinc: Clinc, head: Head) -> dict[str, float]:
    """Figures of a head on the validation part, through the cascade."""
    inside = [index for index, name in enumerate(head.experts) if name != NONE]

    def scored(part: str) -> list[tuple[Scores, Scores]]:
        found = []
        for row, vector in zip(clinc.rows[part], clinc.vectors[part], strict=True):
            grams = head.gram_logits(row['text'])
            full = head.score(vector, grams)
            found.append((head.score_cheaply(grams) or full, full))
        return found

    known, strangers = scored('val'), scored('oos_val')
    best = [max(inside, key=lambda index: served.probabilities[index]) for served, _full in known]
    right = np.array([head.experts[index] == row['domain']
                      for index, row in zip(best, clinc.rows['val'], strict=True)])
    confidence = np.array([served.probabilities[index] for index, (served, _full) in zip(best, known, strict=True)])

    def familiarity(pairs: list[tuple[Scores, Scores]], served: bool) -> np.ndarray[Any, Any]:
        # what the n-grams decide alone is never turned away
        return np.array([1e9 if served and one.cheap else full.familiarity for one, full in pairs])
    return {
        'accuracy': float(right.mean()), 'ece': measures.calibration_error(confidence, right),
        'strangers': measures.recall_of_strangers(familiarity(known, True), familiarity(strangers, True)),
        'strangers, encoder alone': measures.recall_of_strangers(familiarity(known, False),
                                                                 familiarity(strangers, False)),
        'cheap': float(np.mean([served.cheap for served, _full in known]))}


def peer(python: str, clinc: Clinc, rows: Sequence[int], intents: bool) -> dict[str, float]:
    """semantic-router on the same vectors; `intents`: a route per intent instead of one per domain."""
    owner = {row['intent']: row['domain'] for row in clinc.rows['train']}
    names = (clinc.intents if intents else clinc.domains)[rows]
    with tempfile.TemporaryDirectory() as folder:
        task, answers = Path(folder) / 'task.npz', Path(folder) / 'answers.json'
        np.savez(task, index=clinc.vectors['train'][rows], index_names=names,
                 asked=np.concatenate([clinc.vectors['val'], clinc.vectors['oos_val']]))
        subprocess.run([python, str(Path(__file__).with_name('semantic_router_peer.py')), str(task), str(answers)],
                       check=True)
        content = json.loads(answers.read_text())
    found = [(owner.get(name, name), score) for name, score in content['answers']]
    count = len(clinc.rows['val'])
    right = [name == row['domain'] for (name, _score), row in zip(found, clinc.rows['val'], strict=False)]
    scores = np.array([score for _name, score in found])
    return {'accuracy': float(np.mean(right)), 'ece': measures.calibration_error(
                np.clip(scores[:count], 0, 1), np.array(right)),
            'strangers': measures.recall_of_strangers(scores[:count], scores[count:]),
            'query_ms': 1000 * content['median_s']}


def clinc_figures(python: str) -> tuple[list[Figure], dict[str, Any]]:
    """Accuracy, calibration and strangers, ours and the peer's."""
    clinc = Clinc(Encoder(models_folder()))
    everything = np.arange(len(clinc.domains))
    detail: dict[str, Any] = {'all': judged(clinc, clinc.fit(everything)),
                              'all, with oos samples': judged(clinc, clinc.fit(everything, True))}
    for covered in (True, False):
        kind = '20 per domain, every intent' if covered else '20 per domain, at random'
        runs = [judged(clinc, clinc.fit(clinc.few(seed, covered))) for seed in SEEDS]
        detail[kind] = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
    if python:
        for intents in (False, True):
            kind = 'intents' if intents else 'domains'
            detail[f'semantic-router by {kind}, all'] = peer(python, clinc, everything, intents)
            runs = [peer(python, clinc, clinc.few(seed, True), intents) for seed in SEEDS]
            detail[f'semantic-router by {kind}, 20 per domain, every intent'] = {
                key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
    else:
        print('semantic-router is left out: no --peer interpreter that has it.')

    def row(name: str, kind: str, key: str, limit: float, most: bool = False) -> Figure:
        value = detail[kind][key]
        return Figure(name, value, '', f'{"<=" if most else ">="} {limit:g}',
                      value <= limit if most else value >= limit)
    figures = [
        row('domain accuracy, 100 examples per intent', 'all', 'accuracy', 0.983),
        row('domain accuracy, 20 per domain, every intent once', '20 per domain, every intent', 'accuracy', 0.9),
        row('domain accuracy, 20 per domain at random', '20 per domain, at random', 'accuracy', 0.9),
        row('strangers noticed at 5 % false rejects, no oos samples', 'all', 'strangers', 0.9),
        row('strangers noticed at 5 % false rejects, oos samples', 'all, with oos samples', 'strangers', 0.9),
        row('expected calibration error', 'all', 'ece', 0.03, most=True)]
    for kind, values in detail.items():
        if kind.startswith('semantic'):
            figures += [Figure(f'{kind}: {key}', value, 'ms' if key == 'query_ms' else '')
                        for key, value in values.items()]
    return figures, detail


def fit_seconds() -> float:
    """Seconds to retrain on 20 domains x 100 examples, process and embedding included."""
    rows = json.loads(CLINC.read_text())['train']
    by_intent: dict[str, list[str]] = {}
    for row in rows:
        by_intent.setdefault(row['intent'], []).append(row['text'])
    samples = [(f'expert_{number}', '', text) for number, intent in enumerate(sorted(by_intent)[:20])
               for text in by_intent[intent][:100]]
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        fit_in_worker(samples, 'digest', Path(folder) / 'fit', Path(folder) / 'none', 'general', 0.05,
                      lambda _phase, _share: None, lambda: False)
        return time.monotonic() - begin


@contextlib.contextmanager
def nodes(home: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Registry, expert node and router alone, under /moe."""
    (home / 'models').symlink_to(models_folder())
    environment = dict(os.environ, MOE_HOME=str(home))
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, package, more in (
                ('registry', 'moe_experts', ['-p', f'catalogue:={ROOT / "data" / "experts.yaml"}']),
                ('expert', 'moe_experts', []), ('router', 'moe_router', ['-p', 'act:=false', '-p', 'notes_most:=0'])):
            program = Path(get_package_prefix(package)) / 'lib' / package / f'{name}_node'
            started[name] = subprocess.Popen([str(program), '--ros-args', '-r', '__ns:=/moe', *more], env=environment,
                                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        yield started
    finally:
        for process in reversed(started.values()):
            process.terminate()
        for process in started.values():
            process.wait(30)


class Caller:
    """A node that asks."""

    def __init__(self) -> None:
        rclpy.init()
        self.node = rclpy.create_node('benchmark', namespace='moe')
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)

    def close(self) -> None:
        """End the node."""
        self.node.destroy_node()
        rclpy.shutdown()

    def wait(self, future: Any) -> Any:
        """Spin until it is done."""
        self.executor.spin_until_future_complete(future, 60.0)
        return future.result()

    def until_ready(self) -> None:
        """Wait until the router routes motions, the last domain that it learns."""
        client = self.node.create_client(RoutePrompt, 'route_prompt')
        give_up = time.monotonic() + 180
        while time.monotonic() < give_up:
            if client.wait_for_service(1.0) and self.wait(client.call_async(
                    RoutePrompt.Request(prompt='look left 30 degrees'))).decision.choice == 'motion':
                return
            time.sleep(0.5)
        raise SystemExit('The router did not learn within three minutes.')

    def round_trips(self, prompts: Sequence[str]) -> list[float]:
        """Milliseconds of each call, one after the other."""
        client, found = self.node.create_client(RoutePrompt, 'route_prompt'), []
        client.wait_for_service(10.0)
        for prompt in prompts:
            begin = time.perf_counter()
            self.wait(client.call_async(RoutePrompt.Request(prompt=prompt)))
            found.append(1000 * (time.perf_counter() - begin))
        return found

    def together(self, prompts: Sequence[str]) -> tuple[float, int]:
        """Routes per second of 64 clients that each ask again at once, and how many answers were lost."""
        clients = [self.node.create_client(RoutePrompt, 'route_prompt', qos_profile=QoSProfile(depth=100))
                   for _ in range(CLIENTS)]
        for client in clients:
            client.wait_for_service(10.0)
        waiting, answered, done = list(prompts), 0, threading.Event()

        def on_answer(client: Any, future: Any) -> None:
            nonlocal answered
            answered += not future.result().error_code
            if waiting:
                client.call_async(RoutePrompt.Request(prompt=waiting.pop())).add_done_callback(
                    lambda one: on_answer(client, one))
            elif answered >= len(prompts):
                done.set()
        begin = time.perf_counter()
        for client in clients:
            client.call_async(RoutePrompt.Request(prompt=waiting.pop())).add_done_callback(
                lambda one, client=client: on_answer(client, one))
        while not done.is_set() and time.perf_counter() - begin < 120:
            self.executor.spin_once(timeout_sec=0.5)
        return answered / (time.perf_counter() - begin), len(prompts) - answered

    @contextlib.contextmanager
    def client(self, action: str) -> Iterator[ActionClient]:
        """A client that both sides have discovered; gone afterwards, since it hears the feedback of others' goals."""
        found = ActionClient(self.node, GenerateResponse, action, feedback_sub_qos_profile=QoSProfile(depth=1000))
        try:
            found.wait_for_server(30.0)
            self.executor.spin_until_future_complete(Future(), 0.5)
            yield found
        finally:
            found.destroy()

    def stream(self, client: ActionClient, prompt: str, expert: str) -> tuple[float, float]:
        """Milliseconds to the first text, and tokens per second after it."""
        first, last, begin = 0.0, 0.0, time.perf_counter()

        def on_feedback(message: Any) -> None:
            nonlocal first, last
            if message.feedback.partial_response.text:
                last = time.perf_counter()
                first = first or last
        goal = GenerateResponse.Goal(prompt=prompt, expert=expert, max_tokens=64)
        goal.sampling_config.ignore_eos = True
        goal.sampling_config.temp = 0.7  # drawn anew: an answer kept from before would be timed instead
        handle = self.wait(client.send_goal_async(goal, feedback_callback=on_feedback))
        result = self.wait(handle.get_result_async()).result
        if last <= first:
            raise SystemExit(f'{expert or "The router"} did not stream an answer to "{prompt}": {result.error_msg}.')
        return 1000 * (first - begin), (result.usage.completion_tokens - 1) / (last - first)


def node_figures(repeats: int) -> tuple[list[Figure], dict[str, Any]]:
    """Latency, throughput, memory and overhead of the running node."""
    rows = json.loads(CLINC.read_text())['val']
    own = [json.loads(line)['prompt'] for expert in ('python', 'linux', 'robotics')
           for line in (ROOT / 'data' / expert / 'heldout.jsonl').read_text().splitlines()]
    # prompts of the robot's domains and of none of them; no text twice
    prompts = [prompt for prompt in [*own, *(row['text'] for row in rows)] if len(prompt.split()) <= 24]
    with tempfile.TemporaryDirectory() as folder, nodes(Path(folder)) as started:
        caller = Caller()
        try:
            caller.until_ready()
            caller.round_trips(prompts[:50])
            times = caller.round_trips(prompts[:repeats])
            rate, lost = caller.together((prompts * 3)[:5 * repeats])
            resident = psutil.Process(started['router'].pid).memory_info().rss / 1e6
            pairs = []
            for number in range(max(10, repeats // 20)):
                prompt = QUESTIONS[number % 3]
                expert = ('python', 'linux', 'robotics')[number % 3]
                sides = [('direct', 'experts/generate_response', expert), ('routed', 'generate_response', '')]
                found = {}
                for side, action, name in sides if number % 2 else reversed(sides):
                    with caller.client(action) as client:
                        found[side] = caller.stream(client, prompt, name)
                pairs.append(found)
            pairs = pairs[3:]  # the first of each loads the expert
            overhead = [pair['routed'][0] - pair['direct'][0] for pair in pairs]
            slower = [100 * (1 - pair['routed'][1] / pair['direct'][1]) for pair in pairs]
        finally:
            caller.close()
    p99 = float(np.percentile(times, 99))
    return [
        figure('route round trip, one client', times, 'ms', most=2.5),
        Figure('route round trip, one client, p99', p99, 'ms', '<= 10', p99 <= 10),
        Figure(f'routes/s, {CLIENTS} clients', rate, '1/s', '>= 300', rate >= 300),
        Figure(f'routes lost, {CLIENTS} clients', lost, '', '<= 0', lost == 0),
        Figure('memory of the router process', resident, 'MB', '<= 350', resident <= 350),
        figure('first token: routed minus direct', overhead, 'ms', most=5),
        figure('tokens/s lost by routing', slower, '%', most=2)], {'load': os.getloadavg()}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('--peer', default='', help='interpreter with semantic-router')
    parser.add_argument('--repeats', type=int, default=600)
    parser.add_argument('--only', choices=('clinc', 'node', ''), default='')
    options = parser.parse_args()
    if not CLINC.is_file():
        raise SystemExit(f'{CLINC} is not there.')
    figures: list[Figure] = []
    detail: dict[str, Any] = {}
    if options.only != 'node':
        found, detail['clinc'] = clinc_figures(options.peer)
        figures += found
        seconds = fit_seconds()
        figures.append(Figure('retraining, 20 domains x 100 examples', seconds, 's', '<= 10', seconds <= 10))
    if options.only != 'clinc':
        found, detail['node'] = node_figures(options.repeats)
        figures += found
    report('router' if not options.only else f'router_{options.only}', figures, detail)


if __name__ == '__main__':
    sys.exit(main())
