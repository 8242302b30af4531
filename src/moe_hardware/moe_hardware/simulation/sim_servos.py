"""sim_servos: simulated Dynamixel servos on a pseudo-terminal, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from moe_hardware.simulation.control import Action, ControlFifo
from moe_hardware.simulation.journal import Journal
from moe_hardware.simulation.pseudo_terminal import driven, until_signalled
from moe_hardware.simulation.servo import SimulatedServo
from moe_hardware.simulation.servo_bus import SimulatedBus

LINGER_S = 4.0  # a launch signals everything at once, and a driver must still be able to take the torque off


def linger(path: Path) -> None:
    """Wait until no driver has the line open, at most LINGER_S."""
    give_up = time.monotonic() + LINGER_S
    while driven(path) and time.monotonic() < give_up:
        time.sleep(0.05)


def actions(bus: SimulatedBus) -> dict[str, Action]:
    """Faults by the first word of a line; ID is that of a servo, ON is 1 or 0."""
    def servo(words: list[str]) -> SimulatedServo:
        return bus.servos[int(words[0])]

    def of(attribute: str, read: Callable[[str], float | bool]) -> Action:
        return lambda words: setattr(servo(words), attribute, read(words[1]))

    def replug(words: list[str]) -> None:
        """Unplug, and plug in again after some seconds, to another pseudo-terminal."""
        bus.unplug()
        time.sleep(float(words[0]) if words else 1.0)
        bus.plug()

    def on(word: str) -> bool:
        return {'1': True, '0': False}[word]

    return {
        'mute': of('muted', on), 'stall': of('stalled', on),  # ID ON
        'voltage': of('voltage', float), 'temperature': of('temperature', float),  # ID VALUE
        'error': lambda words: servo(words).raise_hardware_error(int(words[1])),  # ID BITS of register 70
        'duplicate': lambda words: bus.duplicate(int(words[0]), on(words[1])),  # ID ON
        'faults': lambda words: setattr(bus.line, 'rate', float(words[0])),  # SHARE
        'corrupt': lambda words: bus.corrupt(int(words[0])),  # COUNT of answers
        'late': lambda words: bus.delay(*map(float, words)),  # SECONDS of the next answers
        'split': lambda words: bus.split(float(words[0])),  # SECONDS between the pieces, 0 = whole
        'noise': lambda words: bus.inject(bytes.fromhex(''.join(words))),  # BYTES
        'unplug': lambda _words: bus.unplug(), 'plug': lambda _words: bus.plug(), 'replug': replug}  # [SECONDS]


def main(arguments: list[str] | None = None) -> int:
    """Simulate X-series servos (Protocol 2.0); the link appears once they answer and goes when they stop."""
    parser = argparse.ArgumentParser(prog='sim_servos', description=main.__doc__)
    parser.add_argument('--ids', type=int, nargs='+', default=[1, 2], choices=range(253), metavar='ID')
    parser.add_argument('--link', type=Path, required=True, help='symlink to the pty; a driver opens it')
    parser.add_argument('--journal', type=Path, help='file that gets every write as a line of JSON')
    parser.add_argument('--baud-rate', type=int, default=57600, help='at which the servos listen')
    parser.add_argument('--timing', choices=['wire', 'ideal'], default='wire',
                        help='answers as late as on a wire of this speed, or at once')
    parser.add_argument('--fault-rate', type=float, default=0.0, metavar='SHARE',
                        help='share of answers lost, cut, split, late, garbled, preceded by noise, or collided; 0..1')
    parser.add_argument('--control', type=Path, metavar='FIFO',
                        help='takes a fault a line: mute|stall|duplicate ID 1|0, voltage|temperature|error ID VALUE, '
                             'faults SHARE, corrupt COUNT, late SECONDS..., split SECONDS, noise HEX, unplug, plug, '
                             'replug [SECONDS]')
    parser.add_argument('--seed', type=int, default=0, help='of those faults')
    options = parser.parse_args(arguments)
    if not 0.0 <= options.fault_rate <= 1.0:
        parser.error(f'--fault-rate is a share from 0 to 1, not {options.fault_rate}')
    with until_signalled():
        try:
            bus = SimulatedBus(options.ids, options.link, options.baud_rate, options.timing == 'wire',
                               Journal(options.journal), options.fault_rate, options.seed)
        except (OSError, ValueError) as error:
            print(f'sim_servos: {error}', file=sys.stderr)
            return 1
        with bus, ControlFifo(options.control, actions(bus)):
            print(f'{len(bus.servos)} servos on {options.link} ({bus.path}) at {options.baud_rate} baud', flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
            with contextlib.suppress(RuntimeError):  # it is unplugged
                linger(bus.path)
    return 0


if __name__ == '__main__':
    sys.exit(main())
