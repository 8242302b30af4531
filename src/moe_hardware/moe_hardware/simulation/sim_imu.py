"""A BNO055 on a pseudo-terminal: `sim_imu --link /tmp/imu`, then start the IMU node with port_name:=/tmp/imu."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from moe_hardware.imu import registers
from moe_hardware.simulation.bno055_chip import Bno055
from moe_hardware.simulation.inertial_body import SensorErrors
from moe_hardware.simulation.line import Damage, Line
from moe_hardware.simulation.pseudo_terminal import PseudoTerminal, until_signalled

OVERRUN = bytes([registers.STATUS, registers.Status.BUS_OVER_RUN_ERROR])  # a busy chip refuses a request so
# Without a checksum in the protocol nothing could tell a changed byte from a measurement, so none is changed.
DAMAGES = (Damage.LOSE, Damage.CUT, Damage.SPLIT, Damage.LATE, Damage.NOISE, OVERRUN)


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
            line = Line(terminal.write, options.fault_rate, options.seed, DAMAGES)
            while True:
                data = terminal.read()
                if data and terminal.baud_rate == options.baud_rate:
                    line.send(chip.receive(data))
    return 0


if __name__ == '__main__':
    sys.exit(main())
