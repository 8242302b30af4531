"""The thread that owns the bus: reads every servo, streams movements, and leaves the servos safe.

Nothing else touches the port. Movements are streamed, goal by goal in every cycle, so that a cancel, an e-stop or the
death of this process ends them at once; commands wake the thread instead of waiting for its next cycle.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from moe_hardware.dynamixel import control_table as ct
from moe_hardware.dynamixel import limits
from moe_hardware.dynamixel.bus import Bus, Found, ServoRefused, ServoSilent
from moe_hardware.dynamixel.command_queue import CommandQueue
from moe_hardware.dynamixel.emergency_stop import EmergencyStop
from moe_hardware.dynamixel.joints import Joint
from moe_hardware.dynamixel.movement import Movement
from moe_hardware.dynamixel.port import PortGone
from moe_hardware.dynamixel.servo import Servo, ServoReport
from moe_hardware.dynamixel.settings import Settings
from moe_hardware.dynamixel.trajectory import Trajectory
from moe_hardware.dynamixel.vitals import Vitals
from moe_hardware.errors import HardwareFault, InvalidCommand, MotionCancelled, MotionError, SafetyViolation
from moe_hardware.pacing import RateMeter

LOST_AFTER_S = 1.0  # a servo silent for so long counts as away,
LOST_AFTER_READS = 3  # if it was asked that often meanwhile: this process may not have run
PROBE_PERIOD_S = 0.5  # between two looks for one that is away
# None has three bytes: that is the length of the answer to a ping, which tells old answers from new ones.
_SLOW_BLOCKS = ((ct.POSITION_TRAJECTORY, ct.PRESENT_TEMPERATURE), (ct.TORQUE_ENABLE, ct.HARDWARE_ERROR_STATUS),
                (ct.BUS_WATCHDOG, ct.BUS_WATCHDOG))  # one of them every third cycle
_SLOW_EVERY = 3
_STATUS_BLOCK = 1  # read at once when a servo sets the alert bit

Publish = Callable[[dict[str, tuple[float, float]]], None]
MakeTrajectory = Callable[[Mapping[str, float], Mapping[str, Joint]], Trajectory]


class BusLoop:
    """What the bus thread does, as a moe_hardware.device_thread.Device; every method runs in that thread.

    Args:
        settings: of the bus.
        commands: of other threads, carried out between two requests on the bus.
        publish: called with (position [rad], velocity [rad/s]) by joint, fresh ones only.
        inform, warn: called with sentences for a person.
    """

    def __init__(self, settings: Settings, commands: CommandQueue, publish: Publish,
                 inform: Callable[[str], None], warn: Callable[[str], None]) -> None:
        self._settings = settings
        self._commands = commands
        self._publish, self._inform, self._warn = publish, inform, warn
        self._bus = Bus(settings.port_name, settings.baud_rate)
        self._servos = {name: Servo(joint, self._bus, settings.watchdog_ms, settings.return_delay_us)
                        for name, joint in settings.joints.items()}
        self._movement: Movement | None = None
        self._due = self._probe_due = 0.0
        self._turn = 0
        self.emergency_stop = EmergencyStop()
        self.cycles = RateMeter()
        self.stopping = False  # set it to leave with the torque off
        self.reports: tuple[ServoReport, ...] = ()  # last state of every servo, for any thread
        self._report()

    def open(self) -> None:
        """Open the port and switch the servos on that answer."""
        self._bus.open()
        for servo in self._servos.values():
            self._connect(servo)
        self._due = time.monotonic()
        self._report()

    def step(self, stop: threading.Event) -> None:
        """Wait for the next cycle or a command, and do it."""
        if self._commands.run(max(0.0, self._due - time.monotonic())):
            self._report()
        if not self.stopping and time.monotonic() >= self._due:
            # What falls behind goes on from now; a burst of late cycles would help nobody.
            self._due = max(self._due + 1.0 / self._settings.rate, time.monotonic())
            self._cycle()

    def close(self) -> None:
        """Leave the bus safely: after stop() with the torque off, after a loss with the e-stop on."""
        online = [servo for servo in self._servos.values() if servo.online]
        if self.stopping:
            self.end_movement(MotionCancelled('The servo node is shutting down.'))
            self._shut_down(online)
        elif online:
            self._lost_bus()
        for servo in online:
            servo.lose()
        self._bus.close()
        self._report()

    def _report(self) -> None:
        self.reports = tuple(servo.report for servo in self._servos.values())

    def _connect(self, servo: Servo) -> None:
        try:
            servo.connect(servo.torque_wanted and not self.emergency_stop.reason)
            self._inform(f'{servo.joint.name} (servo {servo.id}) is there, torque {"on" if servo.torque else "off"}.')
        except (ServoSilent, ServoRefused) as error:
            if isinstance(error, ServoRefused):
                self._warn(str(error))
            servo.lose()

    def _cycle(self) -> None:
        if self._movement is not None and self.emergency_stop.reason:
            self.engage()
        if self._movement is not None:
            self._write_goals(self._movement)
        present = [servo for servo in self._servos.values() if servo.online]
        answers, alerts = self._bus.sync_read((servo.id for servo in present), ct.PRESENT_VELOCITY,
                                              ct.PRESENT_POSITION)
        fresh: dict[str, tuple[float, float]] = {}
        now = time.monotonic()
        for servo in present:
            if (data := answers.get(servo.id)) is not None:
                velocity, position = ct.PRESENT_VELOCITY.decode(data), ct.PRESENT_POSITION.decode(data[4:])
                servo.heard_at, servo.missed = now, 0
                servo.position = servo.joint.radians(position)
                servo.velocity = servo.joint.direction * velocity * ct.VELOCITY_UNIT
                fresh[servo.joint.name] = (servo.position, servo.velocity)
            else:
                servo.missed += 1
                if now - servo.heard_at > LOST_AFTER_S and servo.missed >= LOST_AFTER_READS:
                    self._lose(servo)
        self._turn += 1
        if alerts or self._turn % _SLOW_EVERY == 0:
            in_turn = self._turn % _SLOW_EVERY == 0
            block = self._turn // _SLOW_EVERY % len(_SLOW_BLOCKS) if in_turn else _STATUS_BLOCK
            self._read_slowly([servo for servo in present if servo.online], block)
        self._look_for_the_missing()
        self._judge()
        self._report()
        self.cycles.tick()
        if fresh:
            self._publish(fresh)

    def _read_slowly(self, servos: list[Servo], block: int) -> None:
        """Read one of the blocks that change slowly."""
        first, last = _SLOW_BLOCKS[block]
        answers, _alerts = self._bus.sync_read((servo.id for servo in servos), first, last)
        for servo in servos:
            data = answers.get(servo.id)
            if data is None:
                continue
            if first is ct.POSITION_TRAJECTORY:
                servo.vitals = Vitals(ct.PRESENT_INPUT_VOLTAGE.decode(data[-3:]) * ct.VOLTAGE_UNIT, float(data[-1]),
                                      servo.vitals.hardware_error)
            elif first is ct.TORQUE_ENABLE:
                servo.torque = bool(data[0])
                servo.vitals = Vitals(servo.vitals.voltage, servo.vitals.temperature, data[-1])
            elif ct.BUS_WATCHDOG.decode(data) == ct.WATCHDOG_ERROR:
                self._warn(f'The bus watchdog of {servo.joint.name} has stopped it, because this process did not get '
                           'to the bus in time; it goes on from where it is.')
                self.end_movement(HardwareFault(f'The bus watchdog of {servo.joint.name} stopped the movement; '
                                                 'send it again.'))
                self._try_each([servo], lambda one: one.arm(one.torque))

    def _look_for_the_missing(self) -> None:
        missing = [servo for servo in self._servos.values() if not servo.online]
        if not missing or time.monotonic() < self._probe_due or self._movement is not None:
            return
        self._probe_due = time.monotonic() + PROBE_PERIOD_S / len(missing)
        if len(missing) == len(self._servos) and self._bus.moved():
            raise PortGone(f'{self._settings.port_name} leads to another device now.')
        self._connect(missing[self._turn % len(missing)])

    def _judge(self) -> None:
        """End the movement that has arrived or cannot; trip the e-stop for a servo that is unwell."""
        for servo in self._servos.values():
            if servo.online and (fault := servo.vitals.fault(self._settings.vital_limits)):
                reason = f'{servo.joint.name} {fault}'
                if self.emergency_stop.trip(reason):
                    self._warn(f'E-stop: {reason}.')
                    self.engage()
                if servo.torque and servo.vitals.overloaded(self._settings.vital_limits):
                    self._try_each([servo], Servo.release)
        movement = self._movement
        if movement is None:
            return
        away = {}
        for name, goal in movement.trajectory.goal.items():
            servo = self._servos[name]
            if not servo.online or not servo.torque:
                what = 'has no torque any more' if servo.online else 'does not answer any more'
                self.end_movement(HardwareFault(f'{name} {what}; look at /diagnostics, check its cable and load.'))
                return
            away[name] = abs(servo.position - goal)
        name = max(away, key=lambda one: away[one])
        if movement.elapsed > movement.lifetime and away[name] > self._settings.goal_tolerance:
            self.end_movement(MotionCancelled(f'No command came for {movement.lifetime:.2f} s; the joints hold.'))
            return
        if movement.elapsed < movement.trajectory.duration:
            return
        if away[name] <= self._settings.goal_tolerance:
            self._movement = None
            movement.finish()
        elif movement.elapsed > movement.trajectory.duration + self._settings.settle_s:
            self.end_movement(HardwareFault(
                f'{name} stopped {math.degrees(away[name]):.1f} degrees before its goal; see what blocks it.'))

    def begin(self, goal: Mapping[str, float], make: MakeTrajectory,
              path: Iterable[Mapping[str, float]] = (), lifetime: float = math.inf) -> Movement:
        """Begin a movement, in the bus thread; its first goal is written before this returns.

        One with a lifetime belongs to a stream: it goes on from where the joints were commanded to.
        """
        self.emergency_stop.check()
        servos = self.online(list(goal))
        for servo in servos:
            if not servo.torque:
                raise HardwareFault(f'The torque of {servo.joint.name} is off; switch it on with set_torque.')
        joints = {servo.joint.name: servo.joint for servo in servos}
        for point in (goal, *path):  # again, against the limits that the servos themselves have
            limits.check_positions(joints, list(point), list(point.values()))
        streamed = self._movement is not None and math.isfinite(lifetime) and math.isfinite(self._movement.lifetime)
        trajectory = make({servo.joint.name: servo.setpoint if streamed else servo.hold_position()
                           for servo in servos}, joints)
        replaced = MotionCancelled('A newer command replaced the movement.')
        if self._movement is not None and streamed and set(self._movement.trajectory.goal) <= set(goal):
            self._movement.finish(replaced)  # without a stop in between
        else:
            self.end_movement(replaced)
        self._movement = movement = Movement(trajectory, lifetime)
        self._write_goals(movement)
        return movement

    def _write_goals(self, movement: Movement) -> None:
        """Write where the joints are to be by the next cycle."""
        for name, position in movement.trajectory.at(movement.elapsed + 1.0 / self._settings.rate).items():
            self._servos[name].setpoint = position
        self._send([self._servos[name] for name in movement.trajectory.goal])

    def _send(self, servos: list[Servo]) -> None:
        self._bus.sync_write(ct.GOAL_POSITION, {servo.id: servo.joint.ticks(servo.setpoint) for servo in servos})

    def end_movement(self, error: MotionError) -> None:
        """End the movement under way, if any, and hold its joints where they are."""
        movement, self._movement = self._movement, None
        if movement is None:
            return
        servos = [self._servos[name] for name in movement.trajectory.goal if self._servos[name].online]
        for servo in servos:
            servo.setpoint = servo.hold_position()
        try:
            if servos:
                self._send(servos)
        finally:
            movement.finish(error)

    def halt(self, movement: Movement | None) -> None:
        """Stop a movement if it is still under way, or (None) any."""
        if self._movement is not None and movement in (None, self._movement):
            self.end_movement(MotionCancelled('The movement was stopped.'))

    def engage(self) -> None:
        """Carry out a tripped e-stop."""
        self.end_movement(SafetyViolation(f'The e-stop ended the movement ({self.emergency_stop.reason}).'))
        if self._settings.estop_releases_torque:
            self._try_each(self._servos.values(), Servo.release)

    def _try_each(self, servos: Iterable[Servo], action: Callable[[Servo], None]) -> None:
        """Do something with every servo that is there; what one does not do does not keep it from the others."""
        for servo in servos:
            if servo.online:
                try:
                    action(servo)
                except (ServoSilent, ServoRefused) as error:
                    self._warn(str(error))

    def reset(self) -> None:
        """Reset the e-stop, unless its cause is still there, and hold."""
        for servo in self._servos.values():
            if servo.online and (fault := servo.vitals.fault(self._settings.vital_limits)):
                raise HardwareFault(f'The e-stop stays on: {servo.joint.name} {fault}.')
        if not any(servo.online for servo in self._servos.values()):
            raise HardwareFault('The e-stop stays on: no servo answers; check their power and cable.')
        self.emergency_stop.reset()
        self._try_each(self._servos.values(), lambda servo: servo.arm(servo.torque_wanted))

    def online(self, names: Sequence[str]) -> list[Servo]:
        """Return the servos of joints (none named: all). Raises HardwareFault when one is away."""
        servos = [self._servos[name] for name in names or list(self._servos)]
        for servo in servos:
            if not servo.online:
                raise HardwareFault(f'{servo.joint.name} (servo {servo.id}) does not answer on '
                                    f'{self._settings.port_name}; check its power and cable.')
        return servos

    def set_torque(self, names: Sequence[str], enable: bool) -> None:
        """Switch the torque on, holding where the servos are, or off."""
        if enable:
            self.emergency_stop.check()
        elif self._movement is not None and set(names) & set(self._movement.trajectory.goal):
            self.end_movement(MotionCancelled('The torque was switched off.'))
        for servo in self.online(names):
            servo.torque_wanted = enable
            if enable:
                servo.arm(True)
            else:
                servo.release()
        self._report()

    def reboot(self, names: Sequence[str]) -> None:
        """Restart servos; the loop finds them again."""
        self.end_movement(MotionCancelled('A servo was rebooted.'))
        for name in names:
            servo = self._servos[name]
            self._bus.reboot(servo.id)
            servo.lose()
            servo.vitals = Vitals()
        self._report()

    def scan(self, baud_rates: Sequence[int]) -> list[Found]:
        """Look for servos at other rates too, with the watchdogs off meanwhile."""
        if self._movement is not None:
            raise InvalidCommand('A scan silences the bus, and a movement is under way; stop it first.')
        self._try_each(self._servos.values(), Servo.disarm)
        try:
            return self._bus.scan(baud_rates)
        finally:
            for servo in self._servos.values():
                servo.heard_at = time.monotonic()
            self._try_each(self._servos.values(), Servo.rearm)

    def set_id(self, old: int, new: int) -> None:
        """Give a servo another id; its torque goes off, because the id is locked while it is on."""
        if self._movement is not None:
            raise InvalidCommand('A movement is under way; stop it before an id is changed.')
        self._bus.set_id(old, new)
        for servo in self._servos.values():
            if servo.id in (old, new):
                servo.lose()  # who answers to its id now is found out like anything new
        self._report()

    def _lose(self, servo: Servo) -> None:
        self._warn(f'{servo.joint.name} (servo {servo.id}) does not answer any more; check its power and cable.')
        servo.lose()
        if not any(other.online for other in self._servos.values()):
            self._lost_bus()

    def _lost_bus(self) -> None:
        """The servos cannot be told to stop; their watchdogs do it. What comes back must not go on by itself."""
        reason = f'the servo bus on {self._settings.port_name} was lost'
        if self.emergency_stop.trip(reason):
            self._warn(f'E-stop: {reason}.')
        movement, self._movement = self._movement, None
        if movement is not None:
            movement.finish(HardwareFault(f'The movement ended: {reason}; check the adapter and the power.'))

    def _shut_down(self, servos: list[Servo]) -> None:
        def leave(servo: Servo) -> None:
            if self._settings.torque_off_on_shutdown:
                servo.release()
            servo.disarm()

        try:
            self._try_each(servos, leave)
        except PortGone as error:
            self._warn(f'The torque may still be on: {error}')
