"""A BNO055 on a pseudo-terminal: `sim_imu --link /tmp/imu`, then start the IMU node with port_name:=/tmp/imu."""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

from moe_hardware.simulation.bno055_chip import Bno055
from moe_hardware.simulation.inertial_body import SensorErrors
from moe_hardware.simulation.pseudo_terminal import PseudoTerminal, until_signalled

LATE_S = 0.15  # a late reply comes after the driver has given up on it
SPLIT_S = 0.01


class Line:
    """The wire from the chip to the host, which damages replies with a given probability.

    Args:
        terminal: to write to.
        rate: share of replies damaged, 0..1.
        seed: of what is damaged, and how.
    """

    def __init__(self, terminal: PseudoTerminal, rate: float, seed: int) -> None:
        self._terminal, self._rate = terminal, rate
        self._random = random.Random(seed)
        self._damages = (self._lose, self._shorten, self._split, self._delay, self._precede, self._overrun)

    def send(self, reply: bytes) -> None:
        """Send a reply, whole or damaged."""
        if reply and self._rate and self._random.random() < self._rate:
            self._random.choice(self._damages)(reply)
        else:
            self._terminal.write(reply)

    def _lose(self, _reply: bytes) -> None:
        pass

    def _shorten(self, reply: bytes) -> None:
        self._terminal.write(reply[:self._random.randrange(1, len(reply))])

    def _split(self, reply: bytes) -> None:
        at = self._random.randrange(1, len(reply))
        self._terminal.write(reply[:at])
        time.sleep(SPLIT_S)
        self._terminal.write(reply[at:])

    def _delay(self, reply: bytes) -> None:
        time.sleep(LATE_S)
        self._terminal.write(reply)

    def _precede(self, reply: bytes) -> None:
        self._terminal.write(self._random.randbytes(self._random.randrange(1, 8)) + reply)

    def _overrun(self, _reply: bytes) -> None:
        self._terminal.write(bytes([0xEE, 0x07]))


def main(arguments: list[str] | None = None) -> int:
    """Run the simulator until SIGINT or SIGTERM; 0 then, 2 when the link cannot be made."""
    parser = argparse.ArgumentParser(prog='sim_imu', description='Simulate a BNO055 on UART at the byte level.')
    parser.add_argument('--link', type=Path, help='symlink to make to the pseudo-terminal; removed at the end')
    parser.add_argument('--seed', type=int, default=0, help='of offsets, drift, noise and faults')
    motion = parser.add_mutually_exclusive_group()
    motion.add_argument('--still', action='store_true', help='lie still and level (default)')
    motion.add_argument('--sway', action='store_true', help='sway about all three axes')
    parser.add_argument('--warmup-s', type=float, default=20.0,
                        help='time constant of the warm-up drift [s]; 0: warm from the start')
    parser.add_argument('--baud-rate', type=int, default=115200, help='answers at this speed only')
    parser.add_argument('--fault-rate', type=float, default=0.0, metavar='SHARE',
                        help='share of replies lost, cut, split, late, preceded by noise, or refused; 0..1')
    options = parser.parse_args(arguments)
    if not 0.0 <= options.fault_rate <= 1.0:
        parser.error(f'--fault-rate is a share from 0 to 1, not {options.fault_rate}')
    chip = Bno055(SensorErrors(options.seed, options.warmup_s), options.sway, time.monotonic)
    with until_signalled():
        try:
            terminal = PseudoTerminal(options.link)
        except OSError as error:
            print(f'The link cannot be made: {error}', file=sys.stderr)
            return 2
        with terminal:
            print(f'BNO055 on {options.link or terminal.path}', flush=True)
            line = Line(terminal, options.fault_rate, options.seed)
            while True:
                data = terminal.read()
                if data and terminal.baud_rate == options.baud_rate:
                    line.send(chip.receive(data))
    return 0


if __name__ == '__main__':
    sys.exit(main())
