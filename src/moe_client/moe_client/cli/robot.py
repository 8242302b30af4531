"""move, joints, estop, reset-estop."""

from __future__ import annotations

import json as jsonlib
import math
from typing import Annotated

import typer


def move(joint: str, degrees: float,
         relative: Annotated[bool, typer.Option('--by/--to', help='From where it is, or absolute.')] = True) -> None:
    """Move a joint by or to an angle in degrees; pan is positive to the left, tilt positive up."""
    from moe_client import Client
    command = jsonlib.dumps({'joint': joint, 'by' if relative else 'to': round(degrees)})
    with Client() as client:
        for name, position in client.robot.execute(command).items():
            print(f'{name}\t{math.degrees(position):.1f}')


def joints() -> None:
    """Print the joint positions in degrees."""
    from moe_client import Client
    with Client() as client:
        for name, position in client.robot.joints().items():
            print(f'{name}\t{math.degrees(position):.1f}')


def estop() -> None:
    """Stop every servo at once."""
    from moe_client import Client
    with Client() as client:
        print(client.robot.estop())


def reset_estop() -> None:
    """Allow motion again after an e-stop."""
    from moe_client import Client
    with Client() as client:
        print(client.robot.reset_estop())


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(move)
    app.command()(joints)
    app.command()(estop)
    app.command('reset-estop')(reset_estop)
