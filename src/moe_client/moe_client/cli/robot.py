"""The robot: move, joints, estop, reset-estop, scan-servos, set-servo-id, calibrate-imu, and the simulators."""

from __future__ import annotations

import math
import os
from typing import Annotated

import typer

from moe_client.cli.connection import connect
from moe_client.cli.output import Json, done, follow, rows, values
from moe_client.suite import program

PASS_ON = {'allow_extra_args': True, 'ignore_unknown_options': True, 'help_option_names': []}


def move(joint: Annotated[str, typer.Argument(help='pan, tilt, ...')],
         degrees: Annotated[float, typer.Argument(help='After "--" where it is negative: moe move pan -- -30')],
         relative: Annotated[bool, typer.Option('--by/--to', help='From where it is, or absolute.')] = True,
         json: Json = False) -> None:
    """Move a joint by or to an angle in degrees; pan is positive to the left, tilt positive up."""
    with connect() as client:
        _degrees(client.robot.move(joint, degrees, relative=relative), json)


def joints(json: Json = False) -> None:
    """Print the joint positions in degrees."""
    with connect() as client:
        _degrees(client.robot.joints(), json)


def _degrees(positions: dict[str, float], json: bool) -> None:
    rows(('joint', 'degrees'), [(name, round(math.degrees(value), 1)) for name, value in positions.items()], json)


def servos(json: Json = False) -> None:
    """Print every servo's state: voltage, temperature, errors, and the e-stop."""
    with connect() as client:
        states = client.robot.servos()
    columns = ('joint', 'id', 'online', 'torque_enabled', 'voltage', 'temperature', 'hardware_error', 'comm_errors')
    rows(columns, [tuple(row[column] for column in columns) for row in states['servos']], json)
    if not json:
        print(f'e-stop: {states["estop_reason"] or "latched" if states["estop"] else "no"}')


def estop(json: Json = False) -> None:
    """Stop every servo at once."""
    with connect() as client:
        sentence = client.robot.estop()
    done(sentence, json, message=sentence)


def reset_estop(json: Json = False) -> None:
    """Allow motion again after an e-stop."""
    with connect() as client:
        sentence = client.robot.reset_estop()
    done(sentence, json, message=sentence)


def scan_servos(
    baud: Annotated[list[int] | None, typer.Option(help='May be given again; default: 57600, 115200, 1000000.')] = None,
    json: Json = False,
) -> None:
    """Find every servo on the bus, at several baud rates."""
    with connect() as client:
        found = client.robot.scan(baud)
    columns = ('id', 'model_number', 'firmware_version', 'baud_rate', 'voltage', 'temperature')
    rows(columns, [tuple(row[column] for column in columns) for row in found], json)


def set_servo_id(old: Annotated[int, typer.Argument(min=0, max=252)],
                 new: Annotated[int, typer.Argument(min=0, max=252)], json: Json = False) -> None:
    """Change a servo's id; only one servo with the old id may be on the bus."""
    with connect() as client:
        client.robot.set_id(old, new)
    done(f'The servo {old} has the id {new} now.', json, old=old, new=new)


def calibrate_imu(
    samples: Annotated[int, typer.Option(min=100)] = 2000,
    warmup: Annotated[float, typer.Option(help='Seconds to wait first; -1 = the node\'s own.')] = -1.0,
    json: Json = False,
) -> None:
    """Measure and save the biases of the IMU; it has to lie still."""
    with connect() as client:
        values(follow(client.robot.calibrate_imu(samples, warmup), json), json)


def _become(name: str, arguments: list[str]) -> None:
    path = program('moe_hardware', name)
    os.execv(path, [str(path), *arguments])


def sim_servos(context: typer.Context) -> None:
    """Simulate a Dynamixel bus on a pseudo-terminal; arguments are the simulator's, --help shows them."""
    _become('sim_servos', context.args)


def sim_imu(context: typer.Context) -> None:
    """Simulate a BNO055 on a pseudo-terminal; arguments are the simulator's, --help shows them."""
    _become('sim_imu', context.args)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (move, joints, servos, estop, reset_estop, scan_servos, set_servo_id, calibrate_imu):
        app.command(verb.__name__.replace('_', '-'))(verb)
    app.command('sim-servos', context_settings=PASS_ON)(sim_servos)
    app.command('sim-imu', context_settings=PASS_ON)(sim_imu)
