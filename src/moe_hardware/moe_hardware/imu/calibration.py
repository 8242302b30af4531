"""Offsets of a resting IMU: measured, checked, kept in a YAML file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy
import yaml

from moe_hardware.atomic_files import write_atomically
from moe_hardware.errors import HardwareFault, InvalidCommand, SafetyViolation
from moe_hardware.imu.complementary_filter import GRAVITY_MPS2
from moe_hardware.imu.reading import Reading, Vector

FEWEST_SAMPLES = 100
CHECK_EVERY = 50  # samples between two looks at whether it moves
# Noise of a resting BNO055 is 0.1 deg/s and 0.015 m/s^2 rms; a hand on the robot gives ten times that.
STILL_GYRO_STDDEV_RPS = math.radians(0.5)
STILL_ACCEL_STDDEV_MPS2 = 0.12
# Largest offsets of the data sheet: 3 deg/s, and 150 mg at 80 mg typical.
LARGEST_GYRO_BIAS_RPS = math.radians(5.0)
LARGEST_GRAVITY_ERROR_MPS2 = 1.5


@dataclass(frozen=True)
class Calibration:
    """What is subtracted from every reading."""

    gyro_bias: Vector = (0.0, 0.0, 0.0)  # [rad/s]
    accel_bias: Vector = (0.0, 0.0, 0.0)  # [m/s^2]
    accel_norm: float = GRAVITY_MPS2  # mean measured [m/s^2]
    temperature: float = math.nan  # mean [degree Celsius]
    samples: int = 0  # 0: not calibrated
    warm: bool = False  # measured after the warm-up; a cold chip's offsets drift away as it warms

    def apply(self, reading: Reading) -> Reading:
        """Return the reading without the offsets."""
        velocity, acceleration = (
            (a[0] - b[0], a[1] - b[1], a[2] - b[2]) for a, b in (
                (reading.angular_velocity, self.gyro_bias), (reading.linear_acceleration, self.accel_bias)))
        return Reading(reading.stamp_ns, velocity, acceleration, reading.temperature)


class Calibrator:
    """Collects readings of a resting IMU and works out the offsets.

    The mean angular velocity is the offset of the gyroscope. One position cannot tell an offset of the accelerometer
    from a tilt; what it shows is how much longer or shorter than 9.80665 m/s^2 gravity appears, and that part, along
    the measured direction, is the offset.

    Args:
        samples: to collect, >= 100.

    Raises:
        InvalidCommand: too few samples.
    """

    def __init__(self, samples: int) -> None:
        if samples < FEWEST_SAMPLES:
            raise InvalidCommand(f'{samples} samples are too few to tell rest from noise; ask for at least '
                                 f'{FEWEST_SAMPLES} (2000 is usual).')
        self._rows = numpy.empty((samples, 7))
        self.count = 0

    @property
    def complete(self) -> bool:
        """Whether all samples are there."""
        return self.count >= len(self._rows)

    def add(self, reading: Reading) -> None:
        """Take a reading as the sensor gives it, offsets included. Raises SafetyViolation as soon as it moves."""
        self._rows[self.count] = (*reading.angular_velocity, *reading.linear_acceleration, reading.temperature)
        self.count += 1
        if self.count % CHECK_EVERY == 0:
            self._check_rest(self._rows[self.count - CHECK_EVERY:self.count])

    def result(self, warm: bool) -> Calibration:
        """Return the calibration.

        Args:
            warm: whether the chip was warm.

        Raises:
            SafetyViolation: the IMU moved meanwhile, however slowly.
            HardwareFault: the mean values are not those of a sensor at rest on Earth.
        """
        rows = self._rows[:self.count]
        self._check_rest(rows)
        mean = rows.mean(axis=0)
        gyro, accel, norm = mean[:3], mean[3:6], float(numpy.linalg.norm(mean[3:6]))
        if abs(norm - GRAVITY_MPS2) > LARGEST_GRAVITY_ERROR_MPS2:
            raise HardwareFault(f'The accelerometer measures {norm:.3f} m/s^2 at rest instead of {GRAVITY_MPS2}; '
                                'it is defective or set to another range, nothing was saved.')
        if numpy.abs(gyro).max() > LARGEST_GYRO_BIAS_RPS:
            raise HardwareFault(f'The gyroscope measures {numpy.degrees(numpy.abs(gyro).max()):.1f} deg/s at rest '
                                f'instead of 0 within {math.degrees(LARGEST_GYRO_BIAS_RPS):.0f}; it turns steadily or '
                                'is defective, nothing was saved.')
        bias = accel * (1.0 - GRAVITY_MPS2 / norm)
        return Calibration(_vector(gyro), _vector(bias), norm, float(mean[6]), self.count, warm)

    @staticmethod
    def _check_rest(rows: numpy.ndarray) -> None:
        spread = rows.std(axis=0)
        gyro, accel = float(spread[:3].max()), float(spread[3:6].max())
        if gyro > STILL_GYRO_STDDEV_RPS or accel > STILL_ACCEL_STDDEV_MPS2:
            raise SafetyViolation(
                f'The robot moved while the IMU was calibrated (standard deviation {math.degrees(gyro):.2f} deg/s and '
                f'{accel:.3f} m/s^2; at rest below {math.degrees(STILL_GYRO_STDDEV_RPS):.2f} and '
                f'{STILL_ACCEL_STDDEV_MPS2:.3f}); let it stand still and calibrate again, nothing was saved.')


def save(calibration: Calibration, path: Path) -> None:
    """Write the file, atomically. Raises HardwareFault when the disk does not take it."""
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(calibration).items()}
    text = ('# Offsets of the IMU: rad/s, m/s^2, degrees Celsius; written by the action calibrate_imu.\n'
            + yaml.safe_dump(values, sort_keys=False))
    try:
        write_atomically(path, text)
    except OSError as error:
        raise HardwareFault(f'The calibration could not be written to {path} ({error.strerror}); make room or set '
                            'calibration_file, then calibrate again.') from error


def load(path: Path) -> Calibration:
    """Read the file; without one, an empty calibration. Raises InvalidCommand when its content is not one."""
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
        return Calibration(
            gyro_bias=_vector(values['gyro_bias']), accel_bias=_vector(values['accel_bias']),
            accel_norm=float(values['accel_norm']), temperature=float(values['temperature']),
            samples=int(values['samples']), warm=bool(values['warm']))
    except FileNotFoundError:
        return Calibration()
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        cause = f'{error} is missing' if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise InvalidCommand(f'{path} is not a calibration of an IMU ({cause}); calibrate again, or remove '
                             'it.') from error


def _vector(values: object) -> Vector:
    x, y, z = (float(value) for value in values)  # type: ignore[attr-defined]
    if not all(map(math.isfinite, (x, y, z))):
        raise ValueError('an offset is not a finite number')
    return (x, y, z)
