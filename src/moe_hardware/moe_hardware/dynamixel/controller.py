"""The servos for every thread but the one that owns the bus: commands in, states out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from moe_hardware.device_thread import DeviceThread
from moe_hardware.dynamixel import limits
from moe_hardware.dynamixel.bus import Found
from moe_hardware.dynamixel.bus_loop import BusLoop, Publish
from moe_hardware.dynamixel.command_queue import CommandQueue
from moe_hardware.dynamixel.emergency_stop import EmergencyStop
from moe_hardware.dynamixel.joints import Joint
from moe_hardware.dynamixel.movement import Movement
from moe_hardware.dynamixel.servo import ServoReport
from moe_hardware.dynamixel.settings import Settings
from moe_hardware.dynamixel.trajectory import PointToPoint, Trajectory, Waypoints
from moe_hardware.errors import HardwareFault

COMMAND_TIMEOUT_S = 3.0
REBOOT_TIMEOUT_S = 5.0
RECONNECT_LIMIT_S = 1.0  # longest pause between two attempts to open the port
DEFAULT_BAUD_RATES = (57600, 115200, 1000000)
_SCAN_S = 4.0  # per baud rate, at most

T = TypeVar('T')


class ServoController:
    """Runs the servos of a bus from start() to stop().

    Args:
        settings: of the bus.
        publish: called in the bus thread with (position [rad], velocity [rad/s]) by joint, fresh ones only.
        inform, warn: called with sentences for a person.

    Commands raise SafetyViolation before a byte is written, HardwareFault when servos or port are away,
    InvalidCommand when they can never succeed.
    """

    def __init__(self, settings: Settings, publish: Publish, inform: Callable[[str], None],
                 warn: Callable[[str], None]) -> None:
        self._settings = settings
        self._inform, self._warn = inform, warn
        self._commands = CommandQueue()
        self._loop = BusLoop(settings, self._commands, publish, inform, warn)
        self._thread = DeviceThread(self._loop, 'servo bus', RECONNECT_LIMIT_S, self._opened, warn)

    def _opened(self) -> None:
        self._inform(f'The servo bus on {self._settings.port_name} is open at {self._settings.baud_rate} baud.')

    @property
    def emergency_stop(self) -> EmergencyStop:
        """The latch."""
        return self._loop.emergency_stop

    @property
    def rate(self) -> float:
        """Cycles of the bus per second [Hz], measured."""
        return self._loop.cycles.rate()

    @property
    def reports(self) -> tuple[ServoReport, ...]:
        """Last state of every servo."""
        return self._loop.reports

    @property
    def connected(self) -> bool:
        """Whether the port is open."""
        return self._thread.running

    @property
    def fault(self) -> str:
        """What is wrong with the bus and what to do, '' = nothing."""
        if not self._thread.started:
            return 'The servo node is inactive and leaves the bus alone; activate it (service ~/change_state).'
        if not self._thread.running:
            return self._thread.fault or f'{self._settings.port_name} is being opened.'
        if not any(report.online for report in self._loop.reports):
            return (f'No servo answers on {self._settings.port_name} at {self._settings.baud_rate} baud; check their '
                    'power and cable, then ids and baud rate (scan_servos finds servos at other rates).')
        return ''

    def start(self) -> None:
        """Begin, again after stop() too; the port may be absent."""
        self._loop.stopping = False
        self._thread.start()

    def stop(self) -> None:
        """End: stop what moves, switch the torque off (see Settings), close the port."""
        self._loop.stopping = True
        self._commands.wake()
        self._thread.stop()

    def move(self, names: Sequence[str], positions: Sequence[float], duration: float = 0.0) -> Movement:
        """Move joints to positions [rad] in at least `duration` [s]; a movement under way is replaced."""
        goal = limits.check_positions(self._settings.joints, names, positions)
        limits.check_duration(duration)

        def make(start: Mapping[str, float], joints: Mapping[str, Joint]) -> Trajectory:
            return PointToPoint(start, goal, joints, duration)

        return self._call(lambda: self._loop.begin(goal, make))

    def command(self, positions: Sequence[float]) -> Movement:
        """Send all joints straight to positions [rad], one of a stream; see Settings.command_timeout_s.

        Each joint goes at its max_velocity at most, from where the last command of the stream has brought it.
        """
        goal = limits.check_positions(self._settings.joints, list(self._settings.joints), positions)

        def make(start: Mapping[str, float], joints: Mapping[str, Joint]) -> Trajectory:
            longest = max(abs(goal[name] - start[name]) / joints[name].max_velocity for name in goal)
            return Waypoints(start, [max(longest, 1.0 / self._settings.rate)], [goal])

        return self._call(lambda: self._loop.begin(goal, make, lifetime=self._settings.command_timeout_s))

    def follow(self, names: Sequence[str], times: Sequence[float], points: Sequence[Sequence[float]]) -> Movement:
        """Follow points [rad] at times [s] from now; one point at time 0 is gone to as fast as allowed."""
        limits.check_names(self._settings.joints, names)
        limits.check_times(times)
        path = [limits.check_positions(self._settings.joints, names, point) for point in points]
        if len(times) == 1 and times[0] == 0.0:
            return self.move(names, points[0])

        def make(start: Mapping[str, float], joints: Mapping[str, Joint]) -> Trajectory:
            limits.check_speed(joints, start, times, path)
            return Waypoints(start, times, path)

        return self._call(lambda: self._loop.begin(path[-1], make, path))

    def halt(self, movement: Movement | None = None) -> None:
        """Stop where it is: a movement if it is still under way, or (None) any."""
        self._call(lambda: self._loop.halt(movement))

    def trip(self, reason: str) -> bool:
        """Trip the e-stop; it works at once, and holds even when the bus is away. False = it was on already."""
        first = self.emergency_stop.trip(reason)
        try:
            self._call(self._loop.engage)
        except HardwareFault as fault:
            self._warn(f'The e-stop is on, but the servos cannot be told: {fault}')
        return first

    def reset(self) -> None:
        """Reset the e-stop and hold where the servos are; refused while its cause is still there."""
        self._call(self._loop.reset)

    def set_torque(self, names: Sequence[str], enable: bool) -> None:
        """Switch the torque of joints (none named: all) on, holding where they are, or off."""
        wanted = self._named(names)
        self._call(lambda: self._loop.set_torque(wanted, enable))

    def reboot(self, names: Sequence[str]) -> None:
        """Reboot servos (none named: all) and wait until they are back."""
        wanted = self._named(names)
        self._call(lambda: self._loop.reboot(wanted))
        give_up = time.monotonic() + REBOOT_TIMEOUT_S
        while missing := [one.joint for one in self._loop.reports if one.joint in wanted and not one.online]:
            if time.monotonic() > give_up:
                raise HardwareFault(f'{", ".join(missing)} did not come back after the reboot; check power and cable.')
            time.sleep(0.05)

    def scan(self, baud_rates: Sequence[int] = ()) -> list[Found]:
        """Look for servos at baud rates (none: 57600, 115200 and 1000000); refused while something moves."""
        rates = list(baud_rates) or list(DEFAULT_BAUD_RATES)
        return self._call(lambda: self._loop.scan(rates), COMMAND_TIMEOUT_S + _SCAN_S * len(rates))

    def set_id(self, old: int, new: int) -> None:
        """Give the servo with one bus id another; its torque goes off."""
        self._call(lambda: self._loop.set_id(old, new))

    def _named(self, names: Sequence[str]) -> list[str]:
        if names:
            limits.check_names(self._settings.joints, names)
        return list(names) or list(self._settings.joints)

    def _call(self, function: Callable[[], T], timeout: float = COMMAND_TIMEOUT_S) -> T:
        """Run a function in the bus thread and return its result."""
        if not self._thread.running:
            raise HardwareFault(self.fault)
        try:
            return self._commands.call(function, timeout, lambda: self._thread.running)
        except TimeoutError:
            raise HardwareFault(self.fault or f'The servo bus on {self._settings.port_name} was busy for '
                                              f'{timeout:.0f} s; try again.') from None
