"""The camera node as a process: joint stamps, formats, QoS, calibration, and cameras that are not there."""

import array
import itertools
import signal
import time

import numpy
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from processes import wait_for
from rclpy.qos import ReliabilityPolicy, qos_profile_sensor_data
from recordings import write_video
from ros_graph import Graph, node, wait_for_status
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from sensor_msgs.srv import SetCameraInfo

from moe_hardware.camera.intrinsics import pinhole, save
from moe_hardware.camera.opencv import cv2
from moe_hardware.ros import image_conversion
from moe_interfaces.srv import SetCapture


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('MOE_HOME', str(tmp_path / 'home'))


def camera_node(tmp_path, video_device='synthetic', **parameters):
    return node(tmp_path / 'node.log', 'camera_node', video_device=video_device, **parameters)


def lead(link, target):
    """Let the link lead elsewhere with no moment in which it leads nowhere."""
    (new := link.with_name('new link')).symlink_to(target)
    new.replace(link)


def stamp_of(message):
    return message.header.stamp.sec, message.header.stamp.nanosec


def test_images_of_one_frame_have_one_stamp(tmp_path, graph):
    raw, compressed = graph.listen(Image, 'image_raw'), graph.listen(CompressedImage, 'image_raw/compressed')
    info, diagnostics = graph.listen(CameraInfo, 'camera_info'), graph.diagnostics()
    with camera_node(tmp_path) as process:
        image, jpeg = raw.next(10)[-1], compressed.next(5)[-1]
        status = wait_for_status(diagnostics, 'camera', lambda one: one.level == DiagnosticStatus.OK)
        assert process.end(signal.SIGTERM) == 0, process.output
    assert 'Traceback' not in process.output
    stamps = {stamp_of(message) for message in info.messages}
    joint = [message for message in raw.messages if stamp_of(message) in stamps]
    assert len(joint) >= len(raw.messages) - 3, 'all but the first and last'
    by_stamp = {stamp_of(message): message for message in raw.messages}
    assert image.header.frame_id == jpeg.header.frame_id == info.messages[0].header.frame_id == 'camera_optical_frame'
    assert (image.width, image.height, image.encoding, image.step, image.is_bigendian) == (640, 480, 'bgr8', 1920, 0)
    assert len(image.data) == 640 * 480 * 3 and isinstance(image.data, array.array)
    assert jpeg.format == 'bgr8; jpeg compressed bgr8'
    decoded = cv2.imdecode(numpy.frombuffer(jpeg.data, numpy.uint8), cv2.IMREAD_COLOR)
    exact = numpy.frombuffer(by_stamp.get(stamp_of(jpeg), image).data, numpy.uint8).reshape(480, 640, 3)
    assert numpy.abs(decoded.astype(int) - exact).mean() < 8
    ideal = pinhole('camera', 640, 480)
    assert (info.messages[0].width, info.messages[0].height) == (640, 480)
    assert tuple(info.messages[0].k) == pytest.approx(ideal.k) and tuple(info.messages[0].p) == pytest.approx(ideal.p)
    values = {pair.key: pair.value for pair in status.values}
    assert (values['wanted size'], values['actual size'], values['wanted rate [Hz]']) == ('640x480', '640x480', '15.0')


def test_best_effort_subscribers_get_images_too_and_nobody_means_none(tmp_path, graph):
    info = graph.listen(CameraInfo, 'camera_info')
    with camera_node(tmp_path, image_width=320, image_height=240, framerate=30.0) as process:
        info.next(5)  # flows without anybody looking at the images
        raw = graph.listen(Image, 'image_raw', qos_profile_sensor_data)
        raw.next(10)
        assert process.end(signal.SIGINT) == 0, process.output


def test_plays_a_file_over_and_over_at_its_own_size(tmp_path, graph):
    raw, info = graph.listen(Image, 'image_raw'), graph.listen(CameraInfo, 'camera_info')
    with camera_node(tmp_path, write_video(tmp_path / 'video.avi'), framerate=50.0):
        images = raw.next(12)
    levels = [round(sum(image.data) / len(image.data) / 40) for image in images]
    assert (images[0].width, images[0].height) == (64, 48) == (info.messages[0].width, info.messages[0].height)
    assert all((later - earlier) % 5 == 1 for earlier, later in itertools.pairwise(levels))


def test_a_file_that_ends_is_told_and_the_node_stays(tmp_path, graph):
    diagnostics, raw = graph.diagnostics(), graph.listen(Image, 'image_raw')
    with camera_node(tmp_path, write_video(tmp_path / 'video.avi'), loop='false', framerate=50.0) as process:
        status = wait_for_status(diagnostics, 'camera', lambda one: 'has ended after 5 frames' in one.message)
        assert status.level == DiagnosticStatus.ERROR
        wait_for_status(diagnostics, 'camera', lambda one: one.level == DiagnosticStatus.ERROR)
        assert len(raw.messages) <= 5, 'it does not begin again'
        assert process.popen.poll() is None


def test_waits_for_its_camera_says_why_and_starts_when_it_appears(tmp_path, graph):
    diagnostics, raw = graph.diagnostics(), graph.listen(Image, 'image_raw')
    device = tmp_path / 'camera'
    with camera_node(tmp_path, device, reconnect_period=0.3) as process:
        status = wait_for_status(diagnostics, 'camera', lambda one: 'does not exist' in one.message)
        assert status.level == DiagnosticStatus.ERROR and status.hardware_id == str(device)
        assert status.message == f'{device} does not exist; plug in the camera or set video_device (see ls ' \
            '/dev/video*).'
        (tmp_path / 'folder').mkdir()
        (tmp_path / 'text').write_text('no video')
        lead(device, tmp_path / 'folder')
        wait_for_status(diagnostics, 'camera', lambda one: 'is a folder' in one.message)
        lead(device, tmp_path / 'text')
        wait_for_status(diagnostics, 'camera', lambda one: 'is no video' in one.message)
        lead(device, write_video(tmp_path / 'video.avi'))
        raw.next(3)
        wait_for_status(diagnostics, 'camera', lambda one: one.level == DiagnosticStatus.OK)
        assert process.end() == 0, process.output
    assert process.output.count('does not exist') == 1, 'said once, not at every attempt'


def test_unplugged_and_plugged_in_as_another_device_it_goes_on(tmp_path, graph):
    diagnostics, raw = graph.diagnostics(), graph.listen(Image, 'image_raw')
    device = tmp_path / 'by-id'
    device.symlink_to(write_video(tmp_path / 'first.avi'))
    with camera_node(tmp_path, device, reconnect_period=0.3, framerate=50.0) as process:
        assert raw.next(3)[-1].width == 64
        device.unlink()
        wait_for_status(diagnostics, 'camera', lambda one: 'does not exist' in one.message)
        wait_for(lambda: stands_still(raw), what='silence')
        device.symlink_to(write_video(tmp_path / 'second.avi', size=(32, 24)))
        assert raw.next(3)[-1].width == 32
        wait_for_status(diagnostics, 'camera', lambda one: one.level == DiagnosticStatus.OK)
        assert process.end() == 0, process.output


def test_parameters_override_the_quality_of_service(tmp_path, graph):
    overrides = {f'qos_overrides./moe/image_raw.publisher.{name}': value
                 for name, value in (('reliability', 'best_effort'), ('depth', 1))}
    with camera_node(tmp_path, **overrides):
        infos = wait_for(lambda: graph.node.get_publishers_info_by_topic('/moe/image_raw'), what='the publisher')
        assert infos[0].qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        graph.listen(Image, 'image_raw', qos_profile_sensor_data).next(2)


def test_set_capture_stops_and_starts_the_stream(tmp_path, graph):
    diagnostics, info = graph.diagnostics(), graph.listen(CameraInfo, 'camera_info')
    with camera_node(tmp_path):
        info.next(2)
        assert graph.call(SetCapture, 'set_capture', SetCapture.Request(enable=False)).error_code == 0
        wait_for_status(diagnostics, 'camera', lambda one: 'Capture is off' in one.message)
        wait_for(lambda: stands_still(info), what='silence')
        assert graph.call(SetCapture, 'set_capture', SetCapture.Request(enable=True)).error_code == 0
        info.next(2)


def stands_still(listener):
    before = len(listener.messages)
    time.sleep(0.3)  # four frames and more
    return len(listener.messages) == before


def test_set_camera_info_is_checked_saved_and_loaded_again(tmp_path, graph):
    info = graph.listen(CameraInfo, 'camera_info')
    given = CameraInfo(width=64, height=48, distortion_model='plumb_bob', d=[0.1, 0.0, 0.0, 0.0, 0.0],
                       k=[50.0, 0.0, 32.0, 0.0, 51.0, 24.0, 0.0, 0.0, 1.0],
                       r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
                       p=[50.0, 0.0, 32.0, 0.0, 0.0, 51.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    arguments = {'image_width': 64, 'image_height': 48, 'camera_name': 'left'}
    with camera_node(tmp_path, **arguments):
        info.next(1)
        wrong = graph.call(SetCameraInfo, 'set_camera_info', SetCameraInfo.Request(camera_info=CameraInfo()))
        assert not wrong.success and 'size is 0x0' in wrong.status_message
        given.width = 65
        wrong = graph.call(SetCameraInfo, 'set_camera_info', SetCameraInfo.Request(camera_info=given))
        assert not wrong.success and 'the camera sends 64x48' in wrong.status_message
        given.width = 64
        done = graph.call(SetCameraInfo, 'set_camera_info', SetCameraInfo.Request(camera_info=given))
        path = tmp_path / 'home' / 'hardware' / 'camera_info' / 'left.yaml'
        assert done.success and done.status_message == f'Saved to {path}.'
        assert info.next(1, lambda message: message.k[0] == 50.0)
    with camera_node(tmp_path, **arguments):
        again = info.next(1)[0]
    assert (list(again.k), list(again.d), list(again.p)) == (list(given.k), list(given.d), list(given.p))


def test_calibrations_that_do_not_fit_are_told(tmp_path, graph):
    diagnostics, info = graph.diagnostics(), graph.listen(CameraInfo, 'camera_info')
    save(pinhole('camera', 1280, 720), tmp_path / 'large.yaml')
    with camera_node(tmp_path, camera_info_url=f'file://{tmp_path}/large.yaml'):
        wait_for_status(diagnostics, 'camera', lambda one: 'The calibration is of 1280x720 images' in one.message)
        assert info.next(1)[0].width == 640
    with camera_node(tmp_path, camera_info_url='package://nowhere/camera.yaml'):
        wait_for_status(diagnostics, 'camera', lambda one: 'package that is not installed' in one.message)
        assert info.next(1)[0].width == 640


def test_image_messages_are_those_of_cv_bridge():
    # cv_bridge's cv2_to_imgmsg: height, width, encoding, is_bigendian of the machine, step = bytes of a row, data.
    image = numpy.random.default_rng(1).integers(0, 256, (48, 64, 3), numpy.uint8)
    message = image_conversion.image_message(image, image_conversion.header(stamp=Image().header.stamp, frame_id='c'))
    assert (message.height, message.width, message.encoding, message.is_bigendian, message.step) == (
        48, 64, 'bgr8', 0, 64 * 3)
    assert bytes(message.data) == image.tobytes()
