"""Register map of the Dynamixel X series as data (e-manual, XL430-W250 and XM430-W350, Protocol 2.0).

One table for the driver and for the simulator: addresses are facts of the device, not of our code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TICKS_PER_REVOLUTION = 4096
ZERO_TICKS = 2048  # 0 rad: the middle of the range 0..4095 in position mode
RADIANS_PER_TICK = 2.0 * math.pi / TICKS_PER_REVOLUTION
VELOCITY_UNIT = 0.229 * 2.0 * math.pi / 60.0  # [rad/s] per count of the velocity registers (0.229 rev/min)
ACCELERATION_UNIT = 214.577 * 2.0 * math.pi / 3600.0  # [rad/s^2] per count of register 108 (214.577 rev/min^2)
VOLTAGE_UNIT = 0.1  # [V] per count
WATCHDOG_UNIT_MS = 20  # per count of register 98
WATCHDOG_LIMIT = 127  # largest count of register 98
WATCHDOG_ERROR = -1  # register 98 after it has stopped the servo
RETURN_DELAY_UNIT_US = 2  # per count of register 9

POSITION_MODE = 3  # register 11
TIME_BASED_PROFILE = 0x04  # bit of register 10: profile velocity is a time then
EEPROM_END = 64  # below it registers are locked while torque is on
TABLE_SIZE = 147

BAUD_RATES = {0: 9600, 1: 57600, 2: 115200, 3: 1000000, 4: 2000000, 5: 3000000, 6: 4000000, 7: 4500000}
MODEL_NAMES = {1060: 'XL430-W250', 1020: 'XM430-W350', 1030: 'XM430-W210', 1190: 'XL330-M077', 1200: 'XL330-M288'}

# Bits of register 70, with the words of the e-manual.
HARDWARE_ERRORS = {0: 'input voltage', 2: 'overheating', 3: 'motor encoder', 4: 'electrical shock', 5: 'overload'}


@dataclass(frozen=True)
class Register:
    """One entry of the table.

    Args:
        address: of its first byte.
        size: 1, 2 or 4 bytes, little endian.
        signed: two's complement.
        writable: False for what only the servo writes.
        initial: value after FACTORY RESET (EEPROM) or at power-on (RAM).
        minimum, maximum: values a write may have; both 0 = any.
    """

    name: str
    address: int
    size: int
    signed: bool = False
    writable: bool = True
    initial: int = 0
    minimum: int = 0
    maximum: int = 0

    def encode(self, value: int) -> bytes:
        """Bytes on the wire. Raises OverflowError when value does not fit."""
        return value.to_bytes(self.size, 'little', signed=self.signed)

    def decode(self, data: bytes) -> int:
        """Value of the first `size` bytes of data."""
        return int.from_bytes(data[:self.size], 'little', signed=self.signed)


MODEL_NUMBER = Register('model_number', 0, 2, writable=False, initial=1060)
FIRMWARE_VERSION = Register('firmware_version', 6, 1, writable=False, initial=45)
ID = Register('id', 7, 1, initial=1, maximum=252)
BAUD_RATE = Register('baud_rate', 8, 1, initial=1, maximum=7)
RETURN_DELAY_TIME = Register('return_delay_time', 9, 1, initial=250, maximum=254)
DRIVE_MODE = Register('drive_mode', 10, 1, initial=0, maximum=13)
OPERATING_MODE = Register('operating_mode', 11, 1, initial=POSITION_MODE, maximum=16)
SECONDARY_ID = Register('secondary_id', 12, 1, initial=255, maximum=255)
PROTOCOL_TYPE = Register('protocol_type', 13, 1, initial=2, minimum=1, maximum=2)
HOMING_OFFSET = Register('homing_offset', 20, 4, signed=True, minimum=-1044479, maximum=1044479)
MOVING_THRESHOLD = Register('moving_threshold', 24, 4, initial=10, maximum=1023)
TEMPERATURE_LIMIT = Register('temperature_limit', 31, 1, initial=72, maximum=100)
MAX_VOLTAGE_LIMIT = Register('max_voltage_limit', 32, 2, initial=140, minimum=60, maximum=160)
MIN_VOLTAGE_LIMIT = Register('min_voltage_limit', 34, 2, initial=60, minimum=60, maximum=160)
PWM_LIMIT = Register('pwm_limit', 36, 2, initial=885, maximum=885)
VELOCITY_LIMIT = Register('velocity_limit', 44, 4, initial=265, maximum=1023)
MAX_POSITION_LIMIT = Register('max_position_limit', 48, 4, initial=4095, maximum=4095)
MIN_POSITION_LIMIT = Register('min_position_limit', 52, 4, maximum=4095)
SHUTDOWN = Register('shutdown', 63, 1, initial=52, maximum=255)

TORQUE_ENABLE = Register('torque_enable', 64, 1, maximum=1)
LED = Register('led', 65, 1, maximum=1)
STATUS_RETURN_LEVEL = Register('status_return_level', 68, 1, initial=2, maximum=2)
REGISTERED_INSTRUCTION = Register('registered_instruction', 69, 1, writable=False)
HARDWARE_ERROR_STATUS = Register('hardware_error_status', 70, 1, writable=False)
VELOCITY_I_GAIN = Register('velocity_i_gain', 76, 2, initial=1000, maximum=16383)
VELOCITY_P_GAIN = Register('velocity_p_gain', 78, 2, initial=100, maximum=16383)
POSITION_D_GAIN = Register('position_d_gain', 80, 2, initial=4000, maximum=16383)
POSITION_I_GAIN = Register('position_i_gain', 82, 2, maximum=16383)
POSITION_P_GAIN = Register('position_p_gain', 84, 2, initial=640, maximum=16383)
BUS_WATCHDOG = Register('bus_watchdog', 98, 1, signed=True, minimum=0, maximum=WATCHDOG_LIMIT)
GOAL_PWM = Register('goal_pwm', 100, 2, signed=True, initial=885, minimum=-885, maximum=885)
GOAL_VELOCITY = Register('goal_velocity', 104, 4, signed=True, minimum=-1023, maximum=1023)
PROFILE_ACCELERATION = Register('profile_acceleration', 108, 4, maximum=32767)
PROFILE_VELOCITY = Register('profile_velocity', 112, 4, maximum=32767)
GOAL_POSITION = Register('goal_position', 116, 4, signed=True, initial=ZERO_TICKS)
REALTIME_TICK = Register('realtime_tick', 120, 2, writable=False)
MOVING = Register('moving', 122, 1, writable=False)
MOVING_STATUS = Register('moving_status', 123, 1, writable=False)
PRESENT_PWM = Register('present_pwm', 124, 2, signed=True, writable=False)
PRESENT_LOAD = Register('present_load', 126, 2, signed=True, writable=False)  # present current on XM and XL330
PRESENT_VELOCITY = Register('present_velocity', 128, 4, signed=True, writable=False)
PRESENT_POSITION = Register('present_position', 132, 4, signed=True, writable=False, initial=ZERO_TICKS)
VELOCITY_TRAJECTORY = Register('velocity_trajectory', 136, 4, signed=True, writable=False)
POSITION_TRAJECTORY = Register('position_trajectory', 140, 4, signed=True, writable=False)
PRESENT_INPUT_VOLTAGE = Register('present_input_voltage', 144, 2, writable=False, initial=120)
PRESENT_TEMPERATURE = Register('present_temperature', 146, 1, writable=False, initial=30)

REGISTERS = tuple(sorted((value for value in list(globals().values()) if isinstance(value, Register)),
                         key=lambda register: register.address))
GOALS = frozenset({GOAL_PWM, GOAL_VELOCITY, PROFILE_ACCELERATION, PROFILE_VELOCITY, GOAL_POSITION})


def register_at(address: int, size: int) -> Register | None:
    """Return the register that has exactly this place, None when the range is another one."""
    return next((one for one in REGISTERS if one.address == address and one.size == size), None)


def hardware_error_text(bits: int) -> str:
    """Say the bits of register 70 in words, '' for none."""
    return ', '.join(text for bit, text in HARDWARE_ERRORS.items() if bits >> bit & 1)


def radians(ticks: int) -> float:
    """Angle [rad] of a position register; 2048 ticks are 0 rad."""
    return (ticks - ZERO_TICKS) * RADIANS_PER_TICK


def ticks(angle: float) -> int:
    """Value of a position register for an angle [rad], the nearest."""
    return ZERO_TICKS + round(angle / RADIANS_PER_TICK)
