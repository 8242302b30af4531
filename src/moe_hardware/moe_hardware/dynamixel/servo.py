"""One servo of the bus as the driver sees it: its last state, and the sequences that switch it on and off."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

from moe_hardware.dynamixel import control_table as ct
from moe_hardware.dynamixel.bus import Bus
from moe_hardware.dynamixel.joints import Joint
from moe_hardware.dynamixel.vitals import Vitals

_HOLD_SLACK = 0.05  # [rad] a held goal may be away from where the servo is, so that stopping does not jerk


@dataclass(frozen=True)
class ServoReport:
    """State of a servo at one moment; angles of the joint."""

    joint: str
    id: int
    online: bool = False
    torque: bool = False
    position: float = math.nan  # [rad]
    velocity: float = math.nan  # [rad/s]
    vitals: Vitals = field(default_factory=Vitals)
    silences: int = 0  # requests not answered in time, since the start
    damages: int = 0  # answers that did not come in one piece, since the start


class Servo:
    """A servo and its joint; used by the bus thread alone.

    Args:
        joint: it moves.
        bus: it is on.
        watchdog_ms: of register 98 [ms], 0 = off.
        return_delay_us: of register 9 [us], how long the servo waits before it answers; -1 = as it is.
    """

    def __init__(self, joint: Joint, bus: Bus, watchdog_ms: int, return_delay_us: int = -1) -> None:
        self.configured = joint
        self.joint = joint  # with the servo's own limits once they are read
        self._bus = bus
        self._watchdog = min(ct.WATCHDOG_LIMIT, -(-watchdog_ms // ct.WATCHDOG_UNIT_MS))
        self._return_delay = return_delay_us // ct.RETURN_DELAY_UNIT_US
        self._profiled = False  # its profile velocity is a speed
        self.online = False
        self.torque = False
        self.torque_wanted = True
        self.position = math.nan  # [rad]
        self.velocity = math.nan  # [rad/s]
        self.vitals = Vitals()
        self.setpoint = math.nan  # last commanded [rad]
        self.heard_at = 0.0  # monotonic [s]
        self.missed = 0  # answers since then

    @property
    def id(self) -> int:
        """Bus id."""
        return self.joint.id

    @property
    def report(self) -> ServoReport:
        """State now."""
        return ServoReport(self.joint.name, self.id, self.online, self.torque, self.position, self.velocity,
                           self.vitals, self._bus.silences[self.id], self._bus.damages[self.id])

    def connect(self, enable: bool) -> None:
        """Read what the servo is, bring it to position mode and, if wanted, switch it on; raises as Bus does."""
        self._bus.ping(self.id)
        self.torque = bool(self._bus.read(self.id, ct.TORQUE_ENABLE))
        if self._bus.read(self.id, ct.OPERATING_MODE) != ct.POSITION_MODE:
            self.release()  # the mode is locked while torque is on
            self._bus.write(self.id, ct.OPERATING_MODE, ct.POSITION_MODE)
        # Only while it holds nothing: the register is locked while the torque is on, and a saved ms drops no arm.
        if (self._return_delay >= 0 and not self.torque
                and self._bus.read(self.id, ct.RETURN_DELAY_TIME) != self._return_delay):
            self._bus.write(self.id, ct.RETURN_DELAY_TIME, self._return_delay)
        ends = [self.configured.radians(self._bus.read(self.id, register))
                for register in (ct.MIN_POSITION_LIMIT, ct.MAX_POSITION_LIMIT)]
        self.joint = replace(self.configured, minimum=max(self.configured.minimum, min(ends)),
                             maximum=min(self.configured.maximum, max(ends)))
        self.vitals = Vitals(self._bus.read(self.id, ct.PRESENT_INPUT_VOLTAGE) * ct.VOLTAGE_UNIT,
                             float(self._bus.read(self.id, ct.PRESENT_TEMPERATURE)),
                             self._bus.read(self.id, ct.HARDWARE_ERROR_STATUS))
        self._profiled = not self._bus.read(self.id, ct.DRIVE_MODE) & ct.TIME_BASED_PROFILE
        self.arm(enable and not self.vitals.hardware_error)
        self.heard_at = time.monotonic()
        self.online = True

    def arm(self, enable: bool) -> None:
        """Hold where it is: clear the bus watchdog, goal := present, torque on if wanted, arm the watchdog.

        In this order nothing jumps: after the watchdog has stopped a servo goals are refused until register 98 is
        cleared, and a goal of yesterday would be gone to as soon as the torque is on. A servo whose torque is on goes
        on to its old goal once register 98 is cleared, so the new one follows at once, and only then a faster profile.
        """
        present = self._bus.read(self.id, ct.PRESENT_POSITION)
        low, high = (self._bus.read(self.id, ct.MIN_POSITION_LIMIT), self._bus.read(self.id, ct.MAX_POSITION_LIMIT))
        self._bus.write(self.id, ct.BUS_WATCHDOG, 0)
        self._bus.write(self.id, ct.GOAL_POSITION, min(high, max(low, present)))
        if self._profiled:
            # A second barrier: whatever goal is written, the servo itself is not faster than this.
            self._bus.write(self.id, ct.PROFILE_VELOCITY, math.ceil(1.1 * self.joint.max_velocity / ct.VELOCITY_UNIT))
        self.position = self.setpoint = self.joint.radians(present)
        self.velocity = 0.0
        if enable:
            self._bus.write(self.id, ct.TORQUE_ENABLE, 1)
            self.torque = True
        if self._watchdog:
            self._bus.write(self.id, ct.BUS_WATCHDOG, self._watchdog)

    def disarm(self) -> None:
        """Let the bus be silent without the servo minding."""
        self._bus.write(self.id, ct.BUS_WATCHDOG, 0)

    def rearm(self) -> None:
        """Mind silence of the bus again."""
        if self._watchdog:
            self._bus.write(self.id, ct.BUS_WATCHDOG, self._watchdog)

    def release(self) -> None:
        """Switch the torque off."""
        self._bus.write(self.id, ct.TORQUE_ENABLE, 0)
        self.torque = False

    def hold_position(self) -> float:
        """Return where to stop [rad]: the last commanded position, unless the servo is further away from it."""
        if math.isnan(self.setpoint):
            return self.position
        return min(self.position + _HOLD_SLACK, max(self.position - _HOLD_SLACK, self.setpoint))

    def lose(self) -> None:
        """Note that it is away; nothing it said before is true any more."""
        self.online = self.torque = False
        self.position = self.velocity = self.setpoint = math.nan
