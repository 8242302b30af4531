"""Intrinsic calibration of a camera, in the YAML format of camera_calibration_parsers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moe_hardware.atomic_files import write_atomically
from moe_hardware.errors import HardwareFault, InvalidCommand

DEFAULT_VIEW_RAD = math.radians(60.0)  # horizontal field of view of an uncalibrated camera
_COEFFICIENTS = {'plumb_bob': (4, 5), 'rational_polynomial': (8, 12, 14), 'equidistant': (4,)}


@dataclass(frozen=True)
class Intrinsics:
    """Lens and sensor, as in sensor_msgs/CameraInfo; matrices row-major."""

    camera_name: str
    width: int  # [pixels]
    height: int  # [pixels]
    distortion_model: str
    d: tuple[float, ...]  # distortion coefficients
    k: tuple[float, ...]  # 3x3 camera matrix [pixels]
    r: tuple[float, ...]  # 3x3 rectification
    p: tuple[float, ...]  # 3x4 projection [pixels]

    def check(self) -> None:
        """Raise InvalidCommand when this cannot be a calibration."""
        counts = _COEFFICIENTS.get(self.distortion_model)
        wrong = ''
        if self.width <= 0 or self.height <= 0:
            wrong = f'its size is {self.width}x{self.height}'
        elif (len(self.k), len(self.r), len(self.p)) != (9, 9, 12):
            wrong = 'a matrix has the wrong size'
        elif counts is None and self.d:
            wrong = f'its distortion model is {self.distortion_model!r}, not one of {", ".join(_COEFFICIENTS)}'
        elif self.d and counts is not None and len(self.d) not in counts:
            wrong = f'{self.distortion_model} has {" or ".join(map(str, counts))} coefficients, not {len(self.d)}'
        elif not all(map(math.isfinite, (*self.d, *self.k, *self.r, *self.p))):
            wrong = 'a value is not a finite number'
        elif self.k[0] <= 0.0 or self.k[4] <= 0.0:
            wrong = 'a focal length is not above 0'
        if wrong:
            raise InvalidCommand(f'This is not the calibration of a camera: {wrong}; calibrate it again.')


def pinhole(camera_name: str, width: int, height: int) -> Intrinsics:
    """Return an ideal camera with 60 degrees of horizontal view and its axis in the middle."""
    focal, cx, cy = width / 2 / math.tan(DEFAULT_VIEW_RAD / 2), (width - 1) / 2, (height - 1) / 2
    return Intrinsics(camera_name, width, height, 'plumb_bob', (0.0,) * 5,
                      (focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
                      (focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0))


def load(path: Path) -> Intrinsics:
    """Read a calibration file.

    Raises:
        FileNotFoundError: there is none.
        InvalidCommand: its content is not one.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
        found = Intrinsics(
            str(values['camera_name']), int(values['image_width']), int(values['image_height']),
            str(values.get('distortion_model', 'plumb_bob')), _numbers(values['distortion_coefficients']),
            _numbers(values['camera_matrix']), _numbers(values['rectification_matrix']),
            _numbers(values['projection_matrix']))
        found.check()
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError,
            InvalidCommand) as error:
        cause = f'{error} is missing' if isinstance(error, KeyError) else str(error).splitlines()[0].rstrip('.')
        raise InvalidCommand(f'{path} cannot be used ({cause}); set camera_info_url to a file that '
                             'camera_calibration wrote.') from error
    return found


def save(intrinsics: Intrinsics, path: Path) -> None:
    """Write a calibration file, atomically. Raises HardwareFault when the disk does not take it."""
    def matrix(rows: int, columns: int, data: tuple[float, ...]) -> dict[str, Any]:
        return {'rows': rows, 'cols': columns, 'data': list(data)}

    text = yaml.safe_dump({
        'image_width': intrinsics.width, 'image_height': intrinsics.height, 'camera_name': intrinsics.camera_name,
        'camera_matrix': matrix(3, 3, intrinsics.k), 'distortion_model': intrinsics.distortion_model,
        'distortion_coefficients': matrix(1, len(intrinsics.d), intrinsics.d),
        'rectification_matrix': matrix(3, 3, intrinsics.r), 'projection_matrix': matrix(3, 4, intrinsics.p),
    }, sort_keys=False)
    try:
        write_atomically(path, text)
    except OSError as error:
        raise HardwareFault(f'The calibration could not be written to {path} ({error.strerror}); make room or set '
                            'camera_info_url, then set it again.') from error


def path_of(url: str, camera_name: str, default_folder: Path) -> Path:
    """Return the file a camera_info_url means: file://, a path, or '' for <camera_name>.yaml in the default folder.

    Raises:
        InvalidCommand: the URL is of another kind.
    """
    url = url.replace('${NAME}', camera_name)
    if not url:
        return default_folder / f'{camera_name}.yaml'
    if url.startswith('file://'):
        return Path(url.removeprefix('file://')).expanduser()
    if '://' in url:
        raise InvalidCommand(f'camera_info_url is {url}; use file:///absolute/path.yaml or '
                             'package://package/path.yaml.')
    return Path(url).expanduser()


def _numbers(matrix: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in matrix['data'])
