"""One simulated X-series servo: registers, the rules of writing them, and how the horn moves.

The kinematics are of first order: the velocity follows the goal within profile velocity and acceleration, without
inertia or load; that is enough to see whether a driver moves, stops and holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from moe_hardware.dynamixel import control_table as ct
from moe_hardware.dynamixel.control_table import Register

# Error numbers of the status packet (e-manual, Protocol 2.0).
RESULT_FAIL, INSTRUCTION, CRC, DATA_RANGE, DATA_LENGTH, DATA_LIMIT, ACCESS = range(1, 8)
ALERT = 0x80
BOOT_S = 0.25  # silent this long after REBOOT [s]
_STEP_S = 0.005  # of the integration
_TICKS_PER_VELOCITY = ct.VELOCITY_UNIT / ct.RADIANS_PER_TICK  # [ticks/s] per count
_TICKS_PER_ACCELERATION = ct.ACCELERATION_UNIT / ct.RADIANS_PER_TICK  # [ticks/s^2] per count


class Refused(Exception):
    """An instruction gets an error number instead of being done."""

    def __init__(self, error: int) -> None:
        super().__init__(error)
        self.error = error


class SimulatedServo:
    """A servo at the level of its registers.

    Args:
        servo_id: bus id, 0..252.
        clock: monotonic time [s].
        position: of the horn at power-on [ticks].

    Public attributes are the world around it, to be set by tests: muted (answers nothing, does nothing), stalled (the
    horn is blocked), voltage [V], temperature [degree Celsius].
    """

    def __init__(self, servo_id: int, clock: Callable[[], float], position: float = ct.ZERO_TICKS) -> None:
        self._clock = clock
        self._table = bytearray(ct.TABLE_SIZE)
        self.factory_reset()
        self.set(ct.ID, servo_id)
        self.muted = False
        self.stalled = False
        self.voltage = 12.0
        self.temperature = 30.0
        self._horn = float(position)
        self._velocity = 0.0  # [ticks/s]
        self._now = clock()
        self._heard_at = self._now
        self._silent_until = 0.0
        self._registered: tuple[int, bytes] | None = None
        self._power_on()

    def get(self, register: Register) -> int:
        """Value of a register as it is stored; advance() first for what changes by itself."""
        return register.decode(bytes(self._table[register.address:register.address + register.size]))

    def set(self, register: Register, value: int) -> None:
        """Store a value without any rule."""
        self._table[register.address:register.address + register.size] = register.encode(value)

    @property
    def id(self) -> int:
        """Bus id."""
        return self.get(ct.ID)

    @property
    def baud_rate(self) -> int:
        """Speed at which it listens [baud]."""
        return ct.BAUD_RATES[self.get(ct.BAUD_RATE)]

    @property
    def position(self) -> int:
        """Present position [ticks]."""
        self.advance()
        return self.get(ct.PRESENT_POSITION)

    @property
    def torque(self) -> bool:
        """Whether the motor holds."""
        return bool(self.get(ct.TORQUE_ENABLE))

    def awake(self) -> bool:
        """Whether it answers: neither muted nor booting."""
        return not self.muted and self._clock() >= self._silent_until

    def place(self, position: float) -> None:
        """Turn the horn by hand [ticks]."""
        self.advance()
        self._horn, self._velocity = float(position), 0.0

    def raise_hardware_error(self, bits: int) -> None:
        """Set bits of register 70; those of register 63 (shutdown) switch the torque off until a reboot."""
        self.set(ct.HARDWARE_ERROR_STATUS, self.get(ct.HARDWARE_ERROR_STATUS) | bits)
        if bits & self.get(ct.SHUTDOWN):
            self.advance()
            self.set(ct.TORQUE_ENABLE, 0)

    def factory_reset(self, keep_id: bool = False, keep_baud_rate: bool = False) -> None:
        """Put the whole table to its initial values."""
        for register in ct.REGISTERS:
            if (register is ct.ID and keep_id) or (register is ct.BAUD_RATE and keep_baud_rate):
                continue
            self.set(register, register.initial)

    def _power_on(self) -> None:
        for register in ct.REGISTERS:
            if register.address >= ct.EEPROM_END:
                self.set(register, register.initial)
        self.set(ct.GOAL_POSITION, round(self._horn))
        self._velocity = 0.0
        self._registered = None

    def reboot(self) -> None:
        """Forget the RAM, as after a power cut; silent for BOOT_S."""
        self.advance()
        self._power_on()
        self._silent_until = self._clock() + BOOT_S

    def heard(self) -> None:
        """Note that an instruction went over the bus: the bus watchdog counts from here."""
        self.advance()
        self._heard_at = self._clock()

    def read(self, address: int, length: int) -> bytes:
        """Bytes of the table. Raises Refused."""
        if length == 0 or address + length > ct.TABLE_SIZE:
            raise Refused(ACCESS if length else DATA_LENGTH)
        self.advance()
        return bytes(self._table[address:address + length])

    def write(self, address: int, data: bytes) -> None:
        """Write as an instruction does, whole or not at all. Raises Refused."""
        if not data or address + len(data) > ct.TABLE_SIZE:
            raise Refused(ACCESS if data else DATA_LENGTH)
        self.advance()
        end = address + len(data)
        for register in ct.REGISTERS:
            if register.address < end and address < register.address + register.size:
                self._check(register, address, data)
        before = self.torque
        self._table[address:end] = data
        if before and not self.torque:
            self._velocity = 0.0

    def _check(self, register: Register, address: int, data: bytes) -> None:
        if not register.writable or (register.address < ct.EEPROM_END and self.torque):
            raise Refused(ACCESS)
        if register.address < address or register.address + register.size > address + len(data):
            raise Refused(DATA_LENGTH)  # a part of a register
        value = register.decode(data[register.address - address:])
        minimum, maximum = register.minimum, register.maximum
        if register in ct.GOALS and self.get(ct.BUS_WATCHDOG) == ct.WATCHDOG_ERROR:
            raise Refused(DATA_RANGE)  # read-only until register 98 is cleared
        if register is ct.GOAL_POSITION:
            minimum, maximum = self.get(ct.MIN_POSITION_LIMIT), self.get(ct.MAX_POSITION_LIMIT)
        elif register is ct.GOAL_VELOCITY:
            maximum = self.get(ct.VELOCITY_LIMIT)
            minimum = -maximum
        elif register is ct.TORQUE_ENABLE and value and self.get(ct.HARDWARE_ERROR_STATUS) & self.get(ct.SHUTDOWN):
            raise Refused(RESULT_FAIL)
        if (minimum or maximum) and not minimum <= value <= maximum:
            raise Refused(DATA_LIMIT)

    def register_write(self, address: int, data: bytes) -> None:
        """Keep a write for action()."""
        self._registered = (address, data)
        self.set(ct.REGISTERED_INSTRUCTION, 1)

    def action(self) -> tuple[int, bytes] | None:
        """Take the kept write, None when there is none."""
        kept, self._registered = self._registered, None
        self.set(ct.REGISTERED_INSTRUCTION, 0)
        return kept

    def status_error(self, error: int = 0) -> int:
        """Error field of a status packet, with the alert bit while register 70 is set."""
        return error | (ALERT if self.get(ct.HARDWARE_ERROR_STATUS) else 0)

    def advance(self) -> None:
        """Bring motion, watchdog and the present registers to now."""
        now = self._clock()
        stop = math.inf
        watchdog = self.get(ct.BUS_WATCHDOG)
        if watchdog > 0:
            stop = self._heard_at + watchdog * ct.WATCHDOG_UNIT_MS / 1000.0
        self._move(min(now, max(stop, self._now)))
        if now > stop:
            self.set(ct.BUS_WATCHDOG, ct.WATCHDOG_ERROR)
            self._velocity = 0.0
        self._now = now
        self._publish()

    def _move(self, until: float) -> None:
        free = self.torque and not self.stalled and self.get(ct.BUS_WATCHDOG) != ct.WATCHDOG_ERROR
        goal = self.get(ct.GOAL_POSITION) - self.get(ct.HOMING_OFFSET)
        limit = self.get(ct.VELOCITY_LIMIT)
        fastest = min(limit, self.get(ct.PROFILE_VELOCITY) or limit) * _TICKS_PER_VELOCITY
        acceleration = (self.get(ct.PROFILE_ACCELERATION) or math.inf) * _TICKS_PER_ACCELERATION
        if not free:
            self._velocity = 0.0
            return
        while self._now < until and (self._horn != goal or self._velocity):
            step = min(_STEP_S, until - self._now)
            self._now += step
            distance = goal - self._horn
            # Fast enough to arrive, slow enough to brake within the distance.
            wanted = min(fastest, math.sqrt(2.0 * acceleration * abs(distance)), abs(distance) / step)
            wanted = math.copysign(wanted, distance)
            change = acceleration * step
            self._velocity += min(change, max(-change, wanted - self._velocity))
            self._horn += self._velocity * step
            if abs(goal - self._horn) < 0.01:
                self._horn, self._velocity = float(goal), 0.0

    def _publish(self) -> None:
        goal = self.get(ct.GOAL_POSITION)
        position = round(self._horn) + self.get(ct.HOMING_OFFSET)
        self.set(ct.PRESENT_POSITION, position)
        self.set(ct.PRESENT_VELOCITY, round(self._velocity / _TICKS_PER_VELOCITY))
        self.set(ct.MOVING, int(abs(self._velocity) / _TICKS_PER_VELOCITY > self.get(ct.MOVING_THRESHOLD)))
        self.set(ct.MOVING_STATUS, int(position == goal))
        pushing = self.torque and self.stalled and position != goal
        self.set(ct.PRESENT_LOAD, int(math.copysign(900, goal - position)) if pushing else 0)
        self.set(ct.PRESENT_INPUT_VOLTAGE, round(self.voltage / ct.VOLTAGE_UNIT))
        self.set(ct.PRESENT_TEMPERATURE, round(self.temperature))
        self.set(ct.REALTIME_TICK, int(self._now * 1000.0) % 32768)
