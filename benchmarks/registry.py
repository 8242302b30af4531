"""The registry under load: reads over 100,000 experts, outcome writes, promotions, events, the embedded start.

    ./moe exec python benchmarks/registry.py

A server, a registry node and the readers are processes on this machine; every call goes through the ROS service. The
figure of promotions is taken with the tiny model of the tests behind a real expert node.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import rclpy
from ament_index_python.packages import get_package_prefix
from measurement import Figure, figure, report
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile

from moe_interfaces.action import GenerateResponse
from moe_interfaces.msg import Expert, ExpertVersion, Outcome, RegistryEvent, SamplingConfig
from moe_interfaces.srv import (
    CreateExpert,
    GetExpert,
    GetVersion,
    ListExperts,
    Promote,
    RecordOutcomes,
    RegisterVersion,
)

ROOT = Path(__file__).parents[1]
EXPERTS, OUTCOMES = 100_000, 1_000_000
BATCH = 500
FILL = f"""
SET session_replication_role = replica;
INSERT INTO experts (name, status, domain, category, description, fallback, routable, base_expert, system_prompt,
                     output_schema, sampling, max_tokens, max_seq_len, priority, row_version)
SELECT 'bulk' || n, 'creating', 'domain' || n % 500, 'category' || n % 20, 'one of many', false, true, '', '', '',
       '{{}}', 256, 2048, 10, 1 FROM generate_series(1, {EXPERTS}) n;
INSERT INTO expert_tallies SELECT domain, category, status, count(*) FROM experts GROUP BY 1, 2, 3
ON CONFLICT (domain, category, status) DO UPDATE SET n = excluded.n;
INSERT INTO outcomes (request_id, session, expert, version, ab_test_id, success, error_code, finish_reason, latency_s,
                      completion_tokens)
SELECT 'bulk' || n, '', 'bulk' || n % 100, 1, 0, true, 0, 'stop', 0.1, 10 FROM generate_series(1, {OUTCOMES}) n;
"""


class Asker:
    """A node of this process, spun in a thread; calls block."""

    def __init__(self) -> None:
        rclpy.init()
        self.node = rclpy.create_node('benchmark', namespace='moe')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def call(self, interface: Any, name: str, /, **fields: Any) -> Any:
        """Call a service; SystemExit on an error."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(interface, f'registry/{name}')
            if not client.wait_for_service(60.0):
                raise SystemExit(f'No service {name}.')
        response = self.wait(client.call_async(interface.Request(**fields)))
        if response.error_code:
            raise SystemExit(f'{name}: {response.error_msg}')
        return response

    def wait_until_ready(self) -> None:
        """Block until the registry has its database."""
        client = self.node.create_client(ListExperts, 'registry/list_experts')
        client.wait_for_service(60.0)
        while self.wait(client.call_async(ListExperts.Request(limit=1))).error_code:
            time.sleep(0.1)

    @staticmethod
    def wait(future: Any, timeout_s: float = 300.0) -> Any:
        """Block until a future is done."""
        done = threading.Event()
        future.add_done_callback(lambda _future: done.set())
        if not done.wait(timeout_s):
            raise SystemExit('No answer in time.')
        return future.result()


@contextmanager
def running(home: Path, *names: str) -> Iterator[None]:
    """Nodes of moe_experts as processes."""
    environment = {**os.environ, 'MOE_HOME': str(home)}
    processes = []
    with (home / 'nodes.log').open('ab') as log:
        for name in names:
            program = Path(get_package_prefix('moe_experts')) / 'lib' / 'moe_experts' / name
            processes.append(subprocess.Popen([program, '--ros-args', '-r', '__ns:=/moe'], env=environment,
                                              stdout=log, stderr=log))
    try:
        yield
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            process.wait(60.0)


def url(home: Path, user: str = 'moe_user') -> str:
    """URL of the embedded database."""
    host, port, *_any, password = (home / 'postgres.pass').read_text().strip().split(':')
    return f'postgresql://{user}:{password}@{host}:{port}/moe_db'


def execute(home: Path, statement: str, user: str = 'moe_user') -> None:
    """Run a statement beside the registry."""
    connection = psycopg2.connect(url(home, user))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


def milliseconds(repeats: int, act: Any) -> list[float]:
    """Duration of act(index), repeated, after some that do not count."""
    found = []
    for index in range(-20, repeats):
        begin = time.perf_counter()
        act(index)
        if index >= 0:
            found.append(1000 * (time.perf_counter() - begin))
    return found


def reads(asker: Asker, repeats: int) -> list[Figure]:
    """Get and list through the service, beside a call that reads nothing from the database."""
    rows = []
    for name, act in (
            ('get', lambda index: asker.call(GetExpert, 'get_expert', name=f'bulk{(index * 997) % EXPERTS + 1}')),
            ('list, first page of 20', lambda _index: asker.call(ListExperts, 'list_experts', limit=20)),
            ('list, first page of 20 of one domain', lambda index: asker.call(
                ListExperts, 'list_experts', domain=f'domain{index % 500}', limit=20)),
            ('list, first page of 100', lambda _index: asker.call(ListExperts, 'list_experts', limit=100))):
        values = milliseconds(repeats, act)
        rows.append(figure(f'{name}, {EXPERTS:,} experts', values, 'ms', most=3))
        p99 = statistics.quantiles(values, n=100)[98]
        rows.append(Figure(f'{name}: p99', p99, 'ms', '<= 15', p99 <= 15))
    return rows


def writes(asker: Asker, batches: int) -> Figure:
    """Outcomes per second, one batch after the other."""
    made = [[Outcome(request_id=f'w{batch}_{index}', session='s', expert='bulk1', success=True, latency_s=0.1,
                     first_token_s=0.05, completion_tokens=10) for index in range(BATCH)] for batch in range(batches)]
    rates = []
    for outcomes in made:
        begin = time.perf_counter()
        asker.call(RecordOutcomes, 'record_outcomes', outcomes=outcomes)
        rates.append(BATCH / (time.perf_counter() - begin))
    return figure(f'outcomes written, batches of {BATCH}', rates, '1/s', least=2000)


def events(asker: Asker, home: Path, repeats: int) -> list[Figure]:
    """From a commit by another client to the subscriber in this process."""
    arrived: dict[str, float] = {}
    changed = threading.Condition()

    def note(event: RegistryEvent) -> None:
        with changed:
            arrived[event.reason] = time.perf_counter()
            changed.notify()
    asker.node.create_subscription(RegistryEvent, 'registry/events', note, QoSProfile(
        depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    connection = psycopg2.connect(url(home))
    found = []
    with connection.cursor() as cursor:
        for index in range(repeats):
            reason = f'event {index}'
            cursor.execute("SELECT set_config('moe.reason', %s, true)", (reason,))
            cursor.execute("UPDATE experts SET description = %s WHERE name = 'bulk7'", (reason,))
            connection.commit()
            begin = time.perf_counter()
            with changed:
                if not changed.wait_for(lambda key=reason: key in arrived, 10.0):
                    raise SystemExit('An event did not arrive.')
            found.append(1000 * (arrived[reason] - begin))
    connection.close()
    p99 = statistics.quantiles(found, n=100)[98]
    return [figure('event from commit to subscriber', found, 'ms'),
            Figure('event from commit to subscriber: p99', p99, 'ms', '<= 20', p99 <= 20)]


def promotions(asker: Asker, home: Path, times: int) -> list[Figure]:
    """Promote again and again while eight conversations ask; every answer must come from a version that was served."""
    sys.path.insert(0, str(ROOT / 'src' / 'moe_experts' / 'test'))
    from tiny_model import make_models
    models = make_models(home)
    asker.call(CreateExpert, 'create_expert', artifact_path=str(models / 'base.gguf'),
               expert=Expert(name='served', domain='served', max_seq_len=2048))
    client = ActionClient(asker.node, GenerateResponse, 'experts/generate_response')
    if not client.wait_for_server(60.0):
        raise SystemExit('The expert node does not answer.')
    failures: list[str] = []
    answered = wrong = 0
    lock, stop = threading.Lock(), threading.Event()
    promoted = promoting = 1

    def ask(number: int) -> None:
        nonlocal answered, wrong
        while not stop.is_set():
            oldest = promoted - 1  # the node may hear of the latest promotion an instant later
            handle = asker.wait(client.send_goal_async(GenerateResponse.Goal(
                prompt=f'hello {number} {answered}', expert='served', max_tokens=16,
                sampling_config=SamplingConfig(temp=0.0))))
            result = asker.wait(handle.get_result_async()).result
            with lock:
                answered += 1
                wrong += not result.error_code and not oldest <= result.expert_version <= promoting
                if result.error_code:
                    failures.append(result.error_msg)
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    took = []
    for number in range(2, times + 2):
        asker.call(RegisterVersion, 'register_version', expert='served', alias='challenger',
                   version=ExpertVersion(artifact_path=str(models / 'base.gguf')))
        promoting = number
        begin = time.perf_counter()
        asker.call(Promote, 'promote', expert='served')
        took.append(1000 * (time.perf_counter() - begin))
        promoted = number
        target = answered + 4
        while answered < target and not failures:
            time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert asker.call(GetVersion, 'get_version', expert='served').version.number == times + 1
    if failures:
        print('first failure:', failures[0])
    return [figure('promote', took, 'ms'),
            Figure(f'failed of {answered} requests during {times} promotions', len(failures), '', '<= 0', not failures),
            Figure('answers from a version that was neither', wrong, '', '<= 0', not wrong)]


def starts(repeats: int) -> list[float]:
    """Seconds until an embedded server on existing data has an open, migrated database; a process each."""
    with tempfile.TemporaryDirectory(prefix='moe_benchmark_') as folder:
        program = ('import sys, time; from pathlib import Path; from moe_experts.registry.database import Database; '
                   'begin = time.perf_counter(); database = Database(Path(sys.argv[1])); '
                   'print(time.perf_counter() - begin); database.close()')
        found = [float(subprocess.run([sys.executable, '-c', program, folder], check=True, capture_output=True,
                                      text=True).stdout) for _ in range(repeats + 1)]
    return found[1:]


def main() -> None:
    """Start, measure, stop, write."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('--repeats', type=int, default=500)
    parser.add_argument('--promotions', type=int, default=50)
    options = parser.parse_args()
    os.environ.setdefault('ROS_DOMAIN_ID', '88')
    figures = [figure('embedded start, second run', starts(5), 's', most=2)]
    with tempfile.TemporaryDirectory(prefix='moe_benchmark_') as folder:
        home = Path(folder)
        asker = Asker()
        with running(home, 'registry_node', 'expert_node'):
            asker.wait_until_ready()
            execute(home, FILL, 'postgres')
            execute(home, 'VACUUM (ANALYZE)')
            figures += reads(asker, options.repeats)
            figures.append(writes(asker, 40))
            figures += events(asker, home, options.repeats)
            figures += promotions(asker, home, options.promotions)
    report('registry', figures, {'experts': EXPERTS, 'outcomes': OUTCOMES, 'load': os.getloadavg()})


if __name__ == '__main__':
    main()
