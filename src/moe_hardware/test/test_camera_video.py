"""Sources of frames: recordings made here, patterns, a stream over HTTP, and everything that is no video."""

import http.server
import os
import threading

import numpy
import pytest
from recordings import write_video

from moe_hardware.camera.opencv import cv2
from moe_hardware.camera.source import Format, Kind, expanded, kind_of
from moe_hardware.camera.synthetic import SyntheticSource
from moe_hardware.camera.video import DeviceSource, RecordingEnded, RecordingSource
from moe_hardware.errors import HardwareFault

WANTED = Format(640, 480, 15.0)


def levels(source, count):
    found = []
    for _ in range(count):
        assert source.wait()
        found.append(round(float(source.image().mean()) / 40))
    return found


def test_a_file_is_read_in_order_and_loops(tmp_path):
    source = RecordingSource(str(write_video(tmp_path / 'video.avi')), Kind.FILE, True, 1.0)
    actual = source.open()
    assert (actual.width, actual.height, actual.rate, actual.pixel_format) == (64, 48, 10.0, 'MJPG')
    assert levels(source, 12) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    image = source.image()
    assert image.shape == (48, 64, 3) and image.dtype == numpy.uint8 and image.flags.c_contiguous
    source.close()


def test_a_file_that_does_not_loop_ends(tmp_path):
    source = RecordingSource(str(write_video(tmp_path / 'video.avi')), Kind.FILE, False, 1.0)
    source.open()
    assert levels(source, 5) == [0, 1, 2, 3, 4]
    with pytest.raises(RecordingEnded, match='has ended after 5 frames'):
        source.wait()
    source.close()


def test_a_pattern_of_images(tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f'frame_{number:03d}.png'), numpy.full((48, 64, 3), 40 * number, numpy.uint8))
    pattern = str(tmp_path / 'frame_%03d.png')
    assert kind_of(pattern) is Kind.PATTERN
    source = RecordingSource(pattern, Kind.PATTERN, True, 1.0)
    source.open()
    assert levels(source, 5) == [0, 1, 2, 0, 1]
    source.close()
    empty = RecordingSource(str(tmp_path / 'other_%03d.png'), Kind.PATTERN, True, 1.0)
    with pytest.raises(HardwareFault, match='No image fits'):
        empty.open()


def test_a_stream_that_stalls_is_a_fault_in_time():
    _, jpeg = cv2.imencode('.jpg', numpy.zeros((48, 64, 3), numpy.uint8))
    release = threading.Event()

    class Sender(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=next')
            self.end_headers()
            for _ in range(30):
                self.wfile.write(b'--next\r\nContent-Type: image/jpeg\r\nContent-Length: '
                                 + str(len(jpeg)).encode() + b'\r\n\r\n' + jpeg.tobytes() + b'\r\n')
            self.wfile.flush()
            release.wait(30)

        def log_message(self, *_arguments):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Sender) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        source = RecordingSource(f'http://127.0.0.1:{server.server_port}/camera', Kind.URL, True, 0.5)
        try:
            actual = source.open()
            assert (actual.width, actual.height) == (64, 48) and source.live
            count = 0
            with pytest.raises(HardwareFault, match='ended or stalled'):
                while source.wait():
                    count += 1
            assert count > 0
        finally:
            source.close()
            release.set()
            server.shutdown()
            thread.join()


def test_a_stream_nobody_sends():
    source = RecordingSource('http://127.0.0.1:9/none', Kind.URL, True, 0.5)
    with pytest.raises(HardwareFault, match='cannot be opened; check the address'):
        source.open()


@pytest.mark.parametrize('content', [b'', b'this is no video\n' * 100, b'\x00' * 4096])
def test_a_file_that_is_no_video(tmp_path, content):
    path = tmp_path / 'video.avi'
    path.write_bytes(content)
    with pytest.raises(HardwareFault, match='is no video that OpenCV can read'):
        RecordingSource(str(path), Kind.FILE, True, 1.0).open()


def test_a_cut_file_gives_what_is_whole(tmp_path):
    path = write_video(tmp_path / 'video.avi', 20)
    path.write_bytes(path.read_bytes()[:path.stat().st_size * 2 // 3])
    source = RecordingSource(str(path), Kind.FILE, False, 1.0)
    source.open()
    with pytest.raises(RecordingEnded):
        while source.wait():
            source.image()
    source.close()


def test_absent_folder_and_what_is_no_camera(tmp_path):
    with pytest.raises(HardwareFault, match=r'video9 does not exist; plug in the camera or set video_device'):
        kind_of(str(tmp_path / 'video9'))
    with pytest.raises(HardwareFault, match='is a folder; set video_device to'):
        kind_of(str(tmp_path))
    assert kind_of('/dev/null') is Kind.DEVICE
    with pytest.raises(HardwareFault, match='/dev/null is not a V4L2 camera'):
        DeviceSource('/dev/null', WANTED).open()


@pytest.mark.skipif(os.geteuid() == 0, reason='root may open everything')
def test_permission_denied(tmp_path):
    path = write_video(tmp_path / 'video.avi')
    path.chmod(0)
    with pytest.raises(HardwareFault, match='No permission for'):
        RecordingSource(str(path), Kind.FILE, True, 1.0).open()


def test_names():
    assert expanded('0') == '/dev/video0' and expanded('/dev/video1') == '/dev/video1'
    assert kind_of('rtsp://camera/1') is Kind.URL and kind_of('synthetic') is Kind.SYNTHETIC


@pytest.mark.parametrize(('width', 'height'), [(640, 480), (17, 16), (320, 240)])
def test_the_synthetic_scene_moves(width, height):
    source = SyntheticSource(Format(width, height, 30.0))
    assert source.open() == Format(width, height, 30.0)
    assert source.wait()
    first = source.image()
    assert first.shape == (height, width, 3) and first.dtype == numpy.uint8
    source.wait()
    assert width < 100 or (source.image() != first).any()
    source.close()
