"""Capturing: pace, stamps, decoding only what is wanted, pausing."""

import threading

import numpy
import pytest
from recordings import write_video

from moe_hardware.camera.capture import Capture, Settings, Wanted
from moe_hardware.camera.opencv import cv2
from moe_hardware.camera.source import Format
from moe_hardware.errors import HardwareFault


class Recorder:
    """A capture of a device, stepped by hand; its stamps count up."""

    def __init__(self, video_device, rate=200.0, loop=True):
        self.jpegs = []
        self.frames, self.wanted, self.stamps = [], Wanted(image=True), 0
        self.capture = Capture(Settings(str(video_device), Format(64, 48, rate), 1.0, loop), self.now,
                               lambda: self.wanted, self.take)

    def take(self, frame, actual, stamp):
        self.frames.append((frame.image, actual, stamp))
        self.jpegs.append(frame.jpeg)

    def now(self):
        self.stamps += 1
        return self.stamps

    def step(self, count=1):
        never = threading.Event()
        for _ in range(count):
            self.capture.step(never)


@pytest.fixture
def recorder(tmp_path):
    recorder = Recorder(write_video(tmp_path / 'video.avi'))
    recorder.capture.open()
    yield recorder
    recorder.capture.close()


def test_every_frame_comes_with_its_size_and_stamp(recorder):
    recorder.step(3)
    assert [stamp for _, _, stamp in recorder.frames] == [1, 2, 3]
    assert all((actual.width, actual.height) == (64, 48) for _, actual, _ in recorder.frames)
    assert [round(float(image.mean()) / 40) for image, _, _ in recorder.frames] == [0, 1, 2]
    assert recorder.capture.meter.rate() > 0


def test_frames_nobody_wants_are_not_decoded_and_flow_on(recorder):
    recorder.wanted = Wanted()
    recorder.step(2)
    recorder.wanted = Wanted(image=True)
    recorder.step()
    assert [image is None for image, _, _ in recorder.frames] == [True, True, False]
    assert round(float(recorder.frames[2][0].mean()) / 40) == 2


def test_a_paused_recording_stands_still(recorder):
    recorder.step()
    recorder.capture.enabled = False
    recorder.step(5)
    recorder.capture.enabled = True
    recorder.step()
    assert [round(float(image.mean()) / 40) for image, _, _ in recorder.frames] == [0, 1]


def test_a_recording_that_has_ended_stays_so(tmp_path):
    recorder = Recorder(write_video(tmp_path / 'video.avi'), loop=False)
    recorder.capture.open()
    with pytest.raises(HardwareFault, match='has ended'):
        recorder.step(6)
    recorder.capture.close()
    with pytest.raises(HardwareFault, match='has ended'):
        recorder.capture.open()
    assert len(recorder.frames) == 5


def test_the_file_is_found_anew_at_each_opening(tmp_path):
    recorder = Recorder(tmp_path / 'link')
    with pytest.raises(HardwareFault, match='does not exist'):
        recorder.capture.open()
    recorder.capture.close()
    write_video(tmp_path / 'video.avi')
    (tmp_path / 'link').symlink_to(tmp_path / 'video.avi')
    recorder.capture.open()
    assert recorder.capture.actual.width == 64
    recorder.capture.close()
    assert recorder.capture.actual is None


def test_the_synthetic_scene_has_the_wanted_format():
    recorder = Recorder('synthetic')
    recorder.capture.open()
    recorder.step()
    assert recorder.frames[0][0].shape == (48, 64, 3) and recorder.capture.actual == Format(64, 48, 200.0)


def test_the_jpeg_of_the_source_is_passed_on_undecoded(recorder):
    recorder.wanted = Wanted(jpeg=True)
    recorder.step()
    recorder.wanted = Wanted(image=True, jpeg=True)
    recorder.step()
    assert recorder.frames[0][0] is None and bytes(recorder.jpegs[0][:2]) == b'\xff\xd8'
    image, jpeg = recorder.frames[1][0], recorder.jpegs[1]
    assert numpy.array_equal(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), image)
    assert round(float(image.mean()) / 40) == 1


def test_what_is_no_jpeg_is_decoded_for_who_wants_one():
    recorder = Recorder('synthetic')
    recorder.capture.open()
    recorder.wanted = Wanted(jpeg=True)
    recorder.step()
    assert recorder.frames[0][0].shape == (48, 64, 3) and recorder.jpegs == [None]
