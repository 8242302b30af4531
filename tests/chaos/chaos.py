"""A seeded run in which things break: processes are killed, Postgres ends, the servo bus is unplugged, the disk fills.

`./moe exec python tests/chaos/chaos.py --seed 7` runs ten minutes; `--minutes 1` is the short mode, 480 a soak.
Meanwhile callers ask, each for an answer of an expert that they name, and a model is trained. What must hold, whatever
happened:

- every answer comes from the expert and in the words that were asked for, or is an error with a code,
- nobody waits until his patience ends: who is not answered hears of it,
- the suite answers again after every fault, and at the end every process is up,
- no version is half: every artifact matches its row, and no file is left half written,
- no training job is lost: each one that was begun has an end with its reason, or goes on and makes steps,
- the servos got no goal outside their limits, and at the end their torque is off,
- memory is back to what it was, within a fifth and 150 MB.

Prints each fault and a summary, writes a report as JSON, and ends with 1 where something did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from moe_client import Client, suite
from moe_client.errors import MoeError, Timeout, Unavailable

ASKED = {'python': 'How do I read a JSON file in Python?', 'linux': 'How can I see how much disk space is free?',
         'robotics': 'How do I list all active ROS 2 topics?'}
TRAINED, DATASET = 'chaos', Path(__file__).parents[2] / 'data' / 'demo' / 'coffee.jsonl'
RECOVERY_S = 240.0
BETWEEN = (20, 100)  # answers between two faults
TICKS_PER_RADIAN = 4096 / (2 * math.pi)
LIMITS = {1: math.radians(90.0), 2: math.radians(60.0)}  # [rad], of the servo node's defaults
FULL = 15  # answers while the disk is full; each is put down


@dataclass
class Report:
    """What was done and what was seen."""

    seed: int
    minutes: float
    faults: list[dict[str, object]] = field(default_factory=list)
    answers: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    baseline_mb: float = 0.0
    final_mb: float = 0.0


class Callers:
    """Threads that ask until they are stopped, and compare each answer with the undisturbed one.

    Their answers are the clock of the run: what is waited for is looked at again after each.
    """

    def __init__(self, report: Report, expected: dict[str, str]) -> None:
        self._report, self._expected = report, expected
        self._stop = threading.Event()
        self._heard = threading.Condition()
        self._threads = [threading.Thread(target=self._ask, args=(expert,)) for expert in expected]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def until(self, condition: Callable[[], bool]) -> bool:
        """Wait, while the suite recovers, for something to come true; returns whether it did."""
        with self._heard:
            return self._heard.wait_for(condition, RECOVERY_S)

    def answers(self, count: int) -> bool:
        """Wait for so many answers more."""
        wanted = self._report.answers + count
        return self.until(lambda: self._report.answers >= wanted)

    def _ask(self, expert: str) -> None:
        with Client() as client:
            while not self._stop.wait(0.5):
                try:
                    answer = client.inference.generate(ASKED[expert], expert=expert, temperature=0.0)
                except MoeError as error:
                    with self._heard:
                        self._heard.notify_all()
                        self._report.errors[str(error.code)] = self._report.errors.get(str(error.code), 0) + 1
                        if isinstance(error, Timeout):
                            self._report.broken.append(f'{expert} was asked and nothing came: {error}')
                        if not error.code:
                            self._report.broken.append(f'an error without a code: {error}')
                    continue
                with self._heard:
                    self._heard.notify_all()
                    self._report.answers += 1
                    if answer.expert != expert:
                        self._report.broken.append(f'{expert} was asked, {answer.expert} answered')
                    elif answer.text != self._expected[expert]:
                        self._report.broken.append(f'{expert} answered {answer.text!r}')


def pid_of(name: str) -> int:
    """Pid of a supervised process; 0 = it is between two lives."""
    return next((row.pid for row in suite.processes() if row.name == name), 0)


def kill(name: str) -> None:
    """End a process without warning."""
    if pid := pid_of(name):
        os.kill(pid, signal.SIGKILL)


def postgres() -> list[psutil.Process]:
    """The embedded database server and its processes."""
    data = str(suite.home() / 'postgres')
    return [one for process in psutil.process_iter(['cmdline'])
            if (line := process.info['cmdline']) and line[0].endswith('postgres') and data in line
            for one in (process, *process.children())]


def stop_postgres() -> None:
    """End the database server, which the registry has to start anew."""
    for process in postgres()[:1]:
        process.send_signal(signal.SIGQUIT)


def unplug_bus() -> None:
    """The simulated bus goes away with its pseudo-terminal, and comes back under the same path."""
    kill('sim_servos')


def fill_disk(callers: Callers) -> None:
    """For some answers whoever keeps something can write no byte into any file, as on a full disk."""
    writers = [psutil.Process(pid) for row in suite.processes() if row.name in ('registry', 'training')
               for pid in row.family()] + postgres()
    for limit in (0, psutil.RLIM_INFINITY):
        for process in writers:
            with contextlib.suppress(psutil.Error):
                process.rlimit(psutil.RLIMIT_FSIZE, (limit, psutil.RLIM_INFINITY))
        if limit == 0:
            callers.answers(FULL)


def faults(callers: Callers) -> dict[str, Callable[[], None]]:
    """Everything that may happen, by name."""
    killed = {f'kill {name}': lambda name=name: kill(name)
              for name in ('experts', 'router', 'registry', 'training', 'motion', 'servos', 'camera', 'gateway')}
    return {**killed, 'stop postgres': stop_postgres, 'unplug the bus': unplug_bus,
            'fill the disk': lambda: fill_disk(callers)}


def memory_mb() -> float:
    """Memory of all processes [MB]."""
    return sum(row.resident_bytes for row in suite.processes()) / 1e6


def disturb(client: Client, callers: Callers, report: Report, chance: random.Random) -> None:
    """Break one thing after another; after each, the suite has to answer again."""
    ends = time.monotonic() + 60.0 * report.minutes
    known = faults(callers)
    while time.monotonic() < ends:
        if not callers.answers(count := chance.randint(*BETWEEN)):
            report.broken.append(f'{count} answers did not come within {RECOVERY_S:.0f} s')
        name = chance.choice(sorted(known))
        known[name]()
        begin = time.monotonic()
        try:
            suite.wait_until_ready(client, timeout_s=RECOVERY_S)
            if not callers.until(lambda: keep_training(client)):
                report.broken.append(f'after "{name}": no job could be begun for {RECOVERY_S:.0f} s')
        except MoeError as error:
            report.broken.append(f'after "{name}": {error}')
        report.faults.append({'fault': name, 'recovered_s': round(time.monotonic() - begin, 1)})
        print(f'  {name}: answers again after {time.monotonic() - begin:.1f} s', flush=True)


def keep_training(client: Client) -> bool:
    """Begin a job that ends only when it is told to, where none is on its way; False while nobody can say."""
    try:
        if all(job.ended for job in client.training.list(TRAINED)):
            client.training.start(TRAINED, str(DATASET), method='full', base='tiny', max_steps=10**6, batch_size=1,
                                  promote=False)
    except Unavailable:  # Postgres ended a moment ago
        return False
    return True


def look_at_processes(callers: Callers, report: Report) -> None:
    """Each is up."""
    if not callers.until(lambda: all(row.pid for row in suite.processes())):
        report.broken.append(f'down at the end: {", ".join(row.name for row in suite.processes() if not row.pid)}')


def look_at_jobs(client: Client, callers: Callers, report: Report) -> None:
    """Each job has an end with its reason, or makes steps; it is cancelled then."""
    for job in client.training.list(TRAINED):
        if job.ended:
            if not job.error_msg:
                report.broken.append(f'job {job.id} is {job.status}, and nobody knows why')
        elif not callers.until(lambda job=job: client.training.status(job.id).step > job.step):
            report.broken.append(f'job {job.id} is {job.status} and makes no step')
        else:
            worker = client.training.status(job.id).pid
            client.training.stop(job.id)
            if not callers.until(lambda worker=worker: not psutil.pid_exists(worker)):
                report.broken.append(f'job {job.id} was cancelled, and its worker runs on')


def look(client: Client, report: Report) -> None:
    """What must hold once it is quiet again."""
    verified = client.registry.maintain('verify')
    if not verified['ok']:
        report.broken.append(f'the registry says {verified["rows"]}')
    report.broken += [f'half a file: {path}' for path in (suite.home() / 'artifacts').rglob('*.tmp')]
    report.final_mb = memory_mb()
    if report.final_mb > 1.2 * report.baseline_mb + 150.0:
        report.broken.append(f'memory grew from {report.baseline_mb:.0f} to {report.final_mb:.0f} MB')


def look_at_servos(report: Report) -> None:
    """The journal of the simulated bus, after the stop: goals within the limits, torque off."""
    torque: dict[int, int] = {}
    for line in (suite.home() / 'run' / 'servos.journal.jsonl').read_text().splitlines():
        row = json.loads(line)
        if row['register'] == 'torque_enable':
            torque[row['id']] = row['value']
        elif row['register'] == 'goal_position' and not row['error']:
            angle = (row['value'] - 2048) / TICKS_PER_RADIAN
            if abs(angle) > LIMITS[row['id']] + 0.01:
                report.broken.append(f'servo {row["id"]} was sent to {math.degrees(angle):.0f} degrees')
    report.broken += [f'torque of servo {servo} is on after the stop' for servo, value in torque.items() if value]


def main() -> int:
    """Run; 0 where everything held."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('--seed', type=int, default=7)
    parser.add_argument('--minutes', type=float, default=10.0)
    parser.add_argument('--output', type=Path, default=Path('benchmarks/results/chaos.json'))
    options = parser.parse_args()
    report = Report(options.seed, options.minutes)
    models = (suite.home() / 'models').resolve()
    os.environ.setdefault('ROS_DOMAIN_ID', '49')
    os.environ.update(MOE_API_PORT='0', MOE_METRICS_PORT='0')
    with tempfile.TemporaryDirectory(prefix='moe-chaos-') as folder:
        os.environ['MOE_HOME'] = folder
        (Path(folder) / 'models').symlink_to(models)
        with suite.running(simulate=True), Client() as client:
            suite.wait_until_ready(client, timeout_s=2 * RECOVERY_S, joints=True)
            expected = {expert: client.inference.generate(prompt, expert=expert, temperature=0.0).text
                        for expert, prompt in ASKED.items()}
            report.baseline_mb = memory_mb()
            client.experts.create(TRAINED, TRAINED)
            keep_training(client)
            with Callers(report, expected) as callers:
                disturb(client, callers, report, random.Random(options.seed))
                look_at_processes(callers, report)
                look_at_jobs(client, callers, report)
            look(client, report)
        look_at_servos(report)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(vars(report), indent=2) + '\n')
    print(f'seed {report.seed}: {len(report.faults)} faults, {report.answers} answers, errors by code {report.errors}, '
          f'memory {report.baseline_mb:.0f} -> {report.final_mb:.0f} MB')
    for sentence in report.broken:
        print(f'BROKEN: {sentence}')
    return 1 if report.broken else 0


if __name__ == '__main__':
    sys.exit(main())
