"""Whether a servo is well: temperature, supply and its own hardware error bits, against the settings."""

from __future__ import annotations

from dataclasses import dataclass

from moe_hardware.dynamixel.control_table import hardware_error_text

_WARM = 10.0  # warn this far below the limit [degree Celsius]


@dataclass(frozen=True)
class VitalLimits:
    """Bounds of what a servo may report.

    Args:
        max_temperature: trips the e-stop and takes the servo's torque [degree Celsius].
        min_voltage, max_voltage: outside trips the e-stop [V].
        low_voltage: below is a warning [V].
    """

    max_temperature: float = 70.0
    min_voltage: float = 6.5
    max_voltage: float = 14.8
    low_voltage: float = 10.0


@dataclass(frozen=True)
class Vitals:
    """What a servo reports of itself.

    Args:
        voltage: [V]; NaN = not read yet.
        temperature: [degree Celsius]; NaN = not read yet.
        hardware_error: register 70.
    """

    voltage: float = float('nan')
    temperature: float = float('nan')
    hardware_error: int = 0

    def overloaded(self, limits: VitalLimits) -> str:
        """Why its torque must go off, '' = it may stay: heat and the servo's own errors."""
        if self.hardware_error:
            return (f'reports {hardware_error_text(self.hardware_error) or "a hardware error"} (register 70 = '
                    f'{self.hardware_error}); find the cause, then reboot it')
        if self.temperature >= limits.max_temperature:
            return (f'is at {self.temperature:.0f} degrees Celsius, {limits.max_temperature:.0f} is the limit; '
                    'let it cool and lighten its load')
        return ''

    def fault(self, limits: VitalLimits) -> str:
        """Why the e-stop must trip, '' = it need not."""
        if reason := self.overloaded(limits):
            return reason
        if self.voltage < limits.min_voltage:
            return f'has {self.voltage:.1f} V, less than {limits.min_voltage:.1f} V; check the supply'
        if self.voltage > limits.max_voltage:
            return f'has {self.voltage:.1f} V, more than {limits.max_voltage:.1f} V; check the supply'
        return ''

    def warning(self, limits: VitalLimits) -> str:
        """What a person should look at soon, '' = nothing."""
        if self.voltage < limits.low_voltage:
            return f'has {self.voltage:.1f} V, less than {limits.low_voltage:.1f} V; charge or check the supply'
        if self.temperature >= limits.max_temperature - _WARM:
            return f'is at {self.temperature:.0f} degrees Celsius, near its limit of {limits.max_temperature:.0f}'
        return ''
