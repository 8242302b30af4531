"""Calibration files of cameras: the format of camera_calibration_parsers, the default, and broken ones."""

import dataclasses
import math

import pytest
import yaml

from moe_hardware.camera.intrinsics import load, path_of, pinhole, save
from moe_hardware.errors import HardwareFault, InvalidCommand

# As camera_calibration writes it.
WRITTEN = '''image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [438.783367, 0.000000, 305.593336, 0.000000, 437.302876, 243.738352, 0.000000, 0.000000, 1.000000]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.361976, 0.110510, 0.001014, 0.000505, 0.000000]
rectification_matrix:
  rows: 3
  cols: 3
  data: [0.999978, 0.002789, -0.006046, -0.002816, 0.999986, -0.004401, 0.006034, 0.004417, 0.999972]
projection_matrix:
  rows: 3
  cols: 4
  data: [393.653800, 0.000000, 322.797939, 0.000000, 0.000000, 393.653800, 241.090902, 0.0, 0.0, 0.0, 1.0, 0.0]
'''


def test_reads_what_camera_calibration_writes(tmp_path):
    path = tmp_path / 'camera.yaml'
    path.write_text(WRITTEN)
    found = load(path)
    assert (found.camera_name, found.width, found.height, found.distortion_model) == ('narrow_stereo', 640, 480,
                                                                                     'plumb_bob')
    assert found.k[0] == 438.783367 and found.d[0] == -0.361976 and found.p[5] == 393.6538
    save(found, tmp_path / 'folder' / 'again.yaml')
    assert load(tmp_path / 'folder' / 'again.yaml') == found
    assert yaml.safe_load((tmp_path / 'folder' / 'again.yaml').read_text()) == yaml.safe_load(WRITTEN)


def test_the_default_is_an_ideal_camera_of_60_degrees():
    ideal = pinhole('camera', 640, 480)
    ideal.check()
    assert math.degrees(2 * math.atan(320 / ideal.k[0])) == pytest.approx(60)
    assert (ideal.k[2], ideal.k[5]) == (319.5, 239.5) and ideal.k[0] == ideal.k[4] == ideal.p[0] == ideal.p[5]


@pytest.mark.parametrize(('change', 'cause'), [
    ({'k': (0.0,) * 9}, 'focal length'), ({'width': 0}, 'size is 0x480'), ({'r': (1.0,)}, 'matrix has the wrong size'),
    ({'d': (0.1, 0.2)}, '4 or 5 coefficients'), ({'distortion_model': 'fish'}, 'distortion model'),
    ({'k': (math.nan,) * 9}, 'finite'),
])
def test_impossible_values_are_refused(change, cause):
    with pytest.raises(InvalidCommand, match=cause):
        dataclasses.replace(pinhole('camera', 640, 480), **change).check()


@pytest.mark.parametrize('content', ['', 'a: 1', '[1', WRITTEN.replace('image_width: 640', ''),
                                     WRITTEN.replace('438.783367', 'x')])
def test_broken_files_are_refused(tmp_path, content):
    (tmp_path / 'camera.yaml').write_text(content)
    with pytest.raises(InvalidCommand, match=r'cannot be used .*set camera_info_url'):
        load(tmp_path / 'camera.yaml')
    with pytest.raises(FileNotFoundError):
        load(tmp_path / 'none.yaml')


def test_a_disk_that_takes_nothing_is_told(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(HardwareFault, match='could not be written'):
        save(pinhole('camera', 640, 480), tmp_path / 'file' / 'camera.yaml')


def test_urls(tmp_path):
    assert path_of('', 'left', tmp_path) == tmp_path / 'left.yaml'
    assert str(path_of('file:///etc/${NAME}.yaml', 'left', tmp_path)) == '/etc/left.yaml'
    assert str(path_of('/etc/camera.yaml', 'left', tmp_path)) == '/etc/camera.yaml'
    with pytest.raises(InvalidCommand, match='use file://'):
        path_of('ftp://somewhere/camera.yaml', 'left', tmp_path)
