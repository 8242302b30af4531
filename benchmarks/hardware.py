"""What the hardware nodes hold: bus rate, faults on the bus, images across processes, the camera, a command's way.

    ./moe exec python benchmarks/hardware.py [--quick] [--only loop faults images camera command]

Everything runs against the byte-level simulators, which share the cores with what is measured. The whole takes about
half an hour; --quick shortens the runs and writes hardware_quick.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measurement import Figure, figure, report

ROOT = Path(__file__).parents[1]
SERVOS = range(1, 7)
FAST = 1000000
GOAL_POSITION = 116
LOOP_HZ = 100.0
FAULT_RATE = 0.05
WORKERS, PIECES = 8, 80
WIDTH, HEIGHT = 640, 480


@contextlib.contextmanager
def process(module: str, *arguments: object, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of moe_hardware until the end of the block."""
    with subprocess.Popen([sys.executable, '-m', f'moe_hardware.{module}', *map(str, arguments)],
                          stdout=subprocess.DEVNULL, env=os.environ | environment) as started:
        try:
            yield started
        finally:
            started.terminate()


@contextlib.contextmanager
def simulated_servos(folder: Path, timing: str, ids: range = SERVOS) -> Iterator[tuple[Path, Path]]:
    """Simulated servos in a process of their own; gives the link and the journal."""
    link, journal = folder / f'servos_{timing}', folder / f'{timing}.jsonl'
    with process('simulation.sim_servos', '--ids', *ids, '--link', link, '--journal', journal,
                 '--baud-rate', FAST, '--timing', timing):
        until(link.is_symlink, 'the simulated servos')
        yield link, journal


def until(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """Wait for a condition and return its value. Raises SystemExit when it does not come."""
    give_up = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > give_up:
            raise SystemExit(f'{what} did not come within {timeout:.0f} s.')
        time.sleep(0.01)
    return value


def goals(journal: Path) -> list[dict[str, Any]]:
    """Goal positions that reached the servos, in order."""
    lines = (json.loads(line) for line in journal.read_text().splitlines())
    return [line for line in lines if line['address'] == GOAL_POSITION and not line['error']]


# --- the control loop ----------------------------------------------------------------------------------------------

def control_loop(folder: Path, timing: str, seconds: float, rate: float | None) -> tuple[list[float], int, float]:
    """Write and read six servos; returns the rate of every second [Hz], lost commands, share of a core used.

    Args:
        folder: for the simulator.
        timing: wire or ideal.
        seconds: how long [s].
        rate: to keep [Hz]; None is as fast as it goes.
    """
    import threading

    from moe_hardware.dynamixel import control_table as ct
    from moe_hardware.dynamixel.bus import Bus
    from moe_hardware.pacing import Pacer

    with simulated_servos(folder, timing) as (link, journal):
        bus = Bus(str(link), FAST)
        bus.open()
        for servo in SERVOS:
            bus.write(servo, ct.RETURN_DELAY_TIME, 0)
            bus.write(servo, ct.TORQUE_ENABLE, 1)
        stop, pacer = threading.Event(), Pacer(rate) if rate else None
        ends, unread, number = [time.monotonic()], 0, 0
        used, begin = time.process_time(), time.monotonic()
        while time.monotonic() - begin < seconds:
            if pacer is not None:
                pacer.wait(stop)
            bus.sync_write(ct.GOAL_POSITION, {servo: 1500 + number % 1000 for servo in SERVOS})
            answers, _ = bus.sync_read(SERVOS, ct.PRESENT_VELOCITY, ct.PRESENT_POSITION)
            unread += len(SERVOS) - len(answers)
            ends.append(time.monotonic())
            number += 1
        share = (time.process_time() - used) / (ends[-1] - begin)
        until(lambda: bus.read(SERVOS[-1], ct.GOAL_POSITION) == 1500 + (number - 1) % 1000, 'the last goal')
        bus.close()
        lost = len(SERVOS) * number - len(goals(journal)) + unread
    counts = np.histogram(ends, np.arange(ends[0], ends[-1], 1.0))[0]
    return [float(count) for count in counts], lost, share


def loop_figures(folder: Path, quick: bool) -> list[Figure]:
    """The loop at the timing of a wire, kept at a rate, and as fast as an ideal line lets it."""
    rates, lost, share = control_loop(folder, 'wire', 6.0 if quick else 60.0, LOOP_HZ)
    fastest, _, _ = control_loop(folder, 'wire', 4.0 if quick else 15.0, None)
    ideal, lost_ideal, share_ideal = control_loop(folder, 'ideal', 4.0 if quick else 15.0, None)
    return [
        figure(f'control loop, 6 servos, wire timing 1 Mbps, kept at {LOOP_HZ:.0f} Hz', rates, 'Hz', least=98),
        Figure('  its slowest second', min(rates), 'Hz', '>= 98', min(rates) >= 98),
        Figure('  lost commands and answers', lost, '', '0', lost == 0),
        Figure('  share of a core', 100 * share, '%', '<= 10', share <= 0.1),
        figure('  the same, as fast as it goes', fastest, 'Hz'),
        figure('control loop, 6 servos, ideal line', ideal, 'Hz', least=500),
        Figure('  lost commands and answers', lost_ideal, '', '0', lost_ideal == 0),
        Figure('  share of a core', 100 * share_ideal, '%')]


# --- faults --------------------------------------------------------------------------------------------------------

def transact(seed: int, count: int, folder: Path) -> dict[str, int]:
    """Make transactions on a line that damages answers; every value read is compared with what may be there."""
    from moe_hardware.dynamixel import control_table as ct
    from moe_hardware.dynamixel.bus import Bus, ServoSilent
    from moe_hardware.simulation.servo_bus import SimulatedBus

    ids, draw = (1, 2, 3), random.Random(seed)
    registers = (ct.GOAL_POSITION, ct.PROFILE_VELOCITY, ct.PROFILE_ACCELERATION, ct.LED, ct.POSITION_P_GAIN,
                 ct.POSITION_D_GAIN, ct.GOAL_PWM)
    tops = {ct.GOAL_POSITION: 4095, ct.LED: 1, ct.GOAL_PWM: 885}
    found = {'transactions': 0, 'failed': 0, 'wrong': 0}
    with SimulatedBus(ids, folder / f'faults_{seed}', FAST, fault_rate=FAULT_RATE, seed=seed) as simulated:
        bus = Bus(str(simulated.path), FAST)
        bus.open()
        may = {(servo, register): {simulated.servos[servo].get(register)} for servo in ids for register in registers}
        while found['transactions'] < count:
            servo, register, kind = draw.choice(ids), draw.choice(registers), draw.random()
            found['transactions'] += 1
            try:
                if kind < 0.3:
                    value = draw.randint(0, tops.get(register, 10000))
                    may[servo, register].add(value)  # also when the confirmation gets lost
                    bus.write(servo, register, value)
                    may[servo, register] = {value}
                elif kind < 0.7:
                    value = bus.read(servo, register)
                    found['wrong'] += value not in may[servo, register]
                    may[servo, register] = {value}
                elif kind < 0.8:
                    found['wrong'] += bus.read(servo, ct.PRESENT_INPUT_VOLTAGE) != 120
                else:
                    answers, _ = bus.sync_read(ids, register, register)
                    for one, data in answers.items():
                        found['wrong'] += register.decode(data) not in may[one, register]
                    found['failed'] += len(answers) < len(ids)
            except ServoSilent:
                found['failed'] += 1
        found['answers lost or damaged'] = sum(bus.silences.values()) + sum(bus.damages.values())
        bus.close()
    return found


def transact_piece(piece: tuple[int, int, Path]) -> dict[str, int]:
    """Make the transactions of a piece of the whole."""
    return transact(*piece)


def fault_figures(folder: Path, quick: bool) -> list[Figure]:
    """A million transactions in several processes at once: most of the time passes in waiting for lost answers."""
    count = 20000 if quick else 1000000
    begin = time.monotonic()
    total: Counter[str] = Counter()
    pieces = [(seed, count // PIECES, folder) for seed in range(PIECES)]
    with multiprocessing.get_context('spawn').Pool(WORKERS) as pool:
        for part in pool.imap_unordered(transact_piece, pieces):
            total.update(part)
            print(f'  {total["transactions"]} transactions, {total["wrong"]} wrong values', flush=True)
    wrong = total['wrong']
    return [
        Figure(f'bus transactions, {FAULT_RATE:.0%} of the answers damaged', total['transactions'], '',
               '' if quick else '1000000'),
        Figure('  stale or wrong values', wrong, '', '0', wrong == 0),
        Figure('  answers found lost or damaged', total['answers lost or damaged'], ''),
        Figure('  not answered after the retry, said so', total['failed'], ''),
        Figure('  wall time', time.monotonic() - begin, 's')]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('--quick', action='store_true', help='short runs')
    parts: dict[str, Callable[[Path, bool], list[Figure]]] = {
        'loop': loop_figures, 'faults': fault_figures}
    parser.add_argument('--only', nargs='+', choices=parts, default=list(parts), metavar='PART',
                        help=f'of {", ".join(parts)}')
    options = parser.parse_args()
    os.environ.setdefault('ROS_DOMAIN_ID', '88')
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            print(f'{name} ...', flush=True)
            figures += parts[name](Path(folder), options.quick)
    report('hardware_quick' if options.quick else 'hardware', figures)


if __name__ == '__main__':
    main()
