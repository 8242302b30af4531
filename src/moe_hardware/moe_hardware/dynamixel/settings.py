"""Settings of the servo bus, validated once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moe_hardware.dynamixel.joints import Joint
from moe_hardware.dynamixel.vitals import VitalLimits


@dataclass(frozen=True)
class Settings:
    """How the bus is run.

    Args:
        port_name: device or symlink.
        baud_rate: [baud].
        joints: by name, in the order of joint_states.
        rate: of the cycle that reads all positions and writes the goals of a movement [Hz].
        vital_limits: of every servo.
        watchdog_ms: a servo that hears nothing for so long stops by itself [ms]; 0 = off.
        return_delay_us: how long a servo waits before it answers [us]; -1 = as it is set.
        command_timeout_s: a motion by streamed commands ends so long after the last of them [s].
        torque_off_on_shutdown: at the end of the node, else the servos hold where they are.
        estop_releases_torque: on an e-stop, else the servos hold where they are.
        goal_tolerance: a movement has arrived this near its goal [rad].
        settle_s: and must be there this long after its last goal position was written [s].
    """

    port_name: str
    baud_rate: int
    joints: Mapping[str, Joint]
    rate: float = 50.0
    vital_limits: VitalLimits = field(default_factory=VitalLimits)
    watchdog_ms: int = 500
    return_delay_us: int = 0
    command_timeout_s: float = 0.5
    torque_off_on_shutdown: bool = True
    estop_releases_torque: bool = False
    goal_tolerance: float = 0.03
    settle_s: float = 1.0
