"""scan_servos and set_servo_id: find servos and give them ids on a bus that no node uses."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from moe_hardware.dynamixel.bus import Bus
from moe_hardware.dynamixel.control_table import MODEL_NAMES
from moe_hardware.dynamixel.controller import DEFAULT_BAUD_RATES
from moe_hardware.errors import MotionError

_IN_USE = 'While the servo node runs ask it instead: moe scan-servos, moe set-servo-id.'


def scan(arguments: list[str] | None = None) -> int:
    """Look for servos at several rates by broadcast ping; 0 when there are some, 1 otherwise."""
    parser = argparse.ArgumentParser(prog='scan_servos', description=scan.__doc__, epilog=_IN_USE)
    parser.add_argument('--port', default='/dev/ttyUSB0', help='serial port of the bus')
    parser.add_argument('--baud-rates', type=int, nargs='+', default=list(DEFAULT_BAUD_RATES), metavar='BAUD')
    parser.add_argument('--json', action='store_true', help='for a program')
    options = parser.parse_args(arguments)
    bus = Bus(options.port, options.baud_rates[0])
    try:
        bus.open()
        found = bus.scan(options.baud_rates)
    except MotionError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        bus.close()
    if options.json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    elif found:
        print('id   model              firmware  baud     voltage  temperature')
        for one in found:
            model = f'{one.model_number} {MODEL_NAMES.get(one.model_number, "")}'
            print(f'{one.id:<4} {model:<18} {one.firmware_version:<9} {one.baud_rate:<8} {one.voltage:4.1f} V   '
                  f'{one.temperature:.0f} C')
    else:
        print(f'No servo answers on {options.port}; check their power, the cable and the baud rates.', file=sys.stderr)
    return 0 if found else 1


def set_id(arguments: list[str] | None = None) -> int:
    """Give a servo another id; its torque goes off."""
    parser = argparse.ArgumentParser(prog='set_servo_id', description=set_id.__doc__, epilog=_IN_USE)
    parser.add_argument('old', type=int)
    parser.add_argument('new', type=int)
    parser.add_argument('--port', default='/dev/ttyUSB0', help='serial port of the bus')
    parser.add_argument('--baud-rate', type=int, default=57600, help='of the servo')
    options = parser.parse_args(arguments)
    bus = Bus(options.port, options.baud_rate)
    try:
        bus.open()
        bus.set_id(options.old, options.new)
    except MotionError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        bus.close()
    print(f'Servo {options.old} is servo {options.new} now.')
    return 0
