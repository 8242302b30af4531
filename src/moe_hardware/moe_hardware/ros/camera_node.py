"""camera_node: publishes the frames of a camera, a recording or a drawn scene, with their calibration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from sensor_msgs.srv import SetCameraInfo

from moe_hardware.camera import intrinsics
from moe_hardware.camera.capture import Capture, Frame, Settings, Wanted
from moe_hardware.camera.source import Format
from moe_hardware.device_thread import DeviceThread
from moe_hardware.errors import InvalidCommand, MotionError
from moe_hardware.ros import image_conversion
from moe_hardware.ros.diagnostics import ERROR, OK, STALE, WARN, Diagnostics
from moe_hardware.ros.managed_node import INACTIVE, ManagedNode
from moe_hardware.ros.publishing import sensor_publisher, stamp, until_shutdown, warner
from moe_hardware.ros.spinning import spin
from moe_interfaces.srv import SetCapture

THREADS = 2
LOW_RATE_SHARE = 0.8  # of the wanted rate; below it diagnostics warn


class CameraNode(ManagedNode):
    """Publishes image_raw, image_raw/compressed and camera_info; serves set_camera_info and set_capture."""

    def __init__(self) -> None:
        super().__init__('camera')

        def declare(name: str, default: Any, description: str, **limits: Any) -> Any:
            return self.declare_parameter(
                name, default, ParameterDescriptor(description=description, read_only=True, **limits)).value

        def between(low: float, high: float) -> dict[str, Any]:
            return {'floating_point_range': [FloatingPointRange(from_value=low, to_value=high, step=0.0)]}

        def pixels(name: str, default: int) -> int:
            return int(declare(name, default, 'wanted [pixels]; a recording keeps its own', integer_range=[
                IntegerRange(from_value=16, to_value=16384, step=1)]))

        self._video_device = declare('video_device', '/dev/video0', 'V4L2 device (symlinks are followed anew), video '
                                     'file, pattern of images (frame_%04d.png), URL, or "synthetic"')
        wanted = Format(pixels('image_width', 640), pixels('image_height', 480),
                        declare('framerate', 15.0, 'wanted frames per second [Hz]', **between(0.1, 240.0)),
                        declare('pixel_format', 'mjpeg2rgb', 'asked of a V4L2 device, as usb_cam names it: mjpeg2rgb, '
                                'yuyv2rgb, uyvy2rgb, ...; "" leaves it to the device'))
        self._frame_id = declare('frame_id', 'camera_optical_frame', 'x right, y down, z forward (REP 103)')
        self._camera_name = declare('camera_name', 'camera', 'in the calibration file')
        url = declare('camera_info_url', '', 'calibration: file://, package:// or a path; "" is '
                      '$MOE_HOME/hardware/camera_info/<camera_name>.yaml')
        self._jpeg_quality = declare(
            'jpeg_quality', 80, 'of image_raw/compressed; a camera that sends JPEG keeps its own',
            integer_range=[IntegerRange(from_value=1, to_value=100, step=1)])
        timeout = declare('read_timeout', 2.0, 'without a frame for so long the camera is opened again [s]',
                          **between(0.2, 60.0))
        reconnect = declare('reconnect_period', 2.0, 'longest time between two attempts to open it [s]',
                            **between(0.1, 60.0))
        loop = declare('loop', True, 'begin a file or sequence again at its end')
        self._image = sensor_publisher(self, Image, 'image_raw')
        self._compressed = sensor_publisher(self, CompressedImage, 'image_raw/compressed')
        self._info = sensor_publisher(self, CameraInfo, 'camera_info')
        self._calibration: intrinsics.Intrinsics | None = None
        self._calibration_path: Path | None = None
        self._calibration_fault = ''
        self._load_calibration(url)
        self._capture = Capture(Settings(self._video_device, wanted, timeout, loop),
                                lambda: int(self.get_clock().now().nanoseconds), self._wanted, self._publish)
        self._thread = DeviceThread(self._capture, 'camera', reconnect, self._inform,
                                    warner(self))
        Diagnostics(self, self._video_device).add('device', self._diagnose)
        self.create_service(SetCameraInfo, 'set_camera_info', self._set_camera_info)
        self.create_service(SetCapture, 'set_capture', self._set_capture)
        self.autostart()

    def begin(self) -> None:
        """Open the camera."""
        self._thread.start()

    def end(self) -> None:
        """Let go of the camera."""
        self._thread.stop()

    def _load_calibration(self, url: str) -> None:
        home = Path(os.environ.get('MOE_HOME') or '~/.local/share/moe').expanduser().absolute()
        try:
            if url.startswith('package://'):
                package, _, rest = url.removeprefix('package://').partition('/')
                url = str(Path(get_package_share_directory(package)) / rest)
            self._calibration_path = intrinsics.path_of(url, self._camera_name, home / 'hardware' / 'camera_info')
            self._calibration = intrinsics.load(self._calibration_path)
        except FileNotFoundError:
            if url:
                self._calibration_fault = (f'camera_info_url names {self._calibration_path}, which does not exist; '
                                           'calibrate the camera or correct it.')
        except (PackageNotFoundError, ValueError):
            self._calibration_fault = f'camera_info_url names a package that is not installed: {url}.'
        except InvalidCommand as error:
            self._calibration_fault = str(error)
        if self._calibration_fault:
            self.get_logger().warning(self._calibration_fault)

    def _inform(self) -> None:
        actual = self._capture.actual
        size = f' {actual.width}x{actual.height} frames' if actual else ''
        self.get_logger().info(f'{self._video_device} sends{size}.')

    def _wanted(self) -> Wanted:
        with until_shutdown(self):
            return Wanted(bool(self._image.get_subscription_count()), bool(self._compressed.get_subscription_count()))
        return Wanted()

    def _publish(self, frame: Frame, actual: Format, stamp_ns: int) -> None:
        """Publish a frame where somebody listens; called in the device's thread."""
        head = image_conversion.header(stamp(stamp_ns), self._frame_id)
        with until_shutdown(self):
            if frame.image is not None and self._image.get_subscription_count():
                self._image.publish(image_conversion.image_message(frame.image, head))
            if frame.jpeg is not None:
                self._compressed.publish(image_conversion.jpeg_message(frame.jpeg, head))
            elif frame.image is not None and self._compressed.get_subscription_count():
                self._compressed.publish(image_conversion.compressed_message(frame.image, self._jpeg_quality, head))
            self._info.publish(image_conversion.camera_info_message(self._intrinsics(actual), head))

    def _intrinsics(self, actual: Format) -> intrinsics.Intrinsics:
        """Return the calibration when it is of this size, otherwise an ideal camera."""
        known = self._calibration
        if known is not None and (known.width, known.height) == (actual.width, actual.height):
            return known
        return intrinsics.pinhole(self._camera_name, actual.width, actual.height)

    def _set_camera_info(self, request: Any, response: Any) -> Any:
        actual = self._capture.actual
        try:
            given = image_conversion.intrinsics_of(request.camera_info, self._camera_name)
            given.check()
            if actual is not None and (given.width, given.height) != (actual.width, actual.height):
                raise InvalidCommand(f'The calibration is of {given.width}x{given.height} images, the camera sends '
                                     f'{actual.width}x{actual.height}; calibrate it at this size.')
            if self._calibration_path is None:
                raise InvalidCommand(f'There is no file to save to: {self._calibration_fault}')
            intrinsics.save(given, self._calibration_path)
        except MotionError as error:
            response.success, response.status_message = False, str(error)
            return response
        self._calibration, self._calibration_fault = given, ''
        response.success, response.status_message = True, f'Saved to {self._calibration_path}.'
        return response

    def _set_capture(self, request: Any, response: Any) -> Any:
        self._capture.enabled = request.enable
        self.get_logger().info('Capture is on.' if request.enable else 'Capture is off; the camera stays open.')
        return response

    def _diagnose(self) -> tuple[bytes, str, dict[str, str]]:
        wanted, actual, measured = self._capture.settings.wanted, self._capture.actual, self._capture.meter.rate()
        calibration = self._calibration
        state = 'waiting for the device'
        if self._thread.running:
            state = 'streaming' if self._capture.enabled else 'paused by set_capture'
        values = {
            'state': state, 'wanted size': f'{wanted.width}x{wanted.height}',
            'actual size': f'{actual.width}x{actual.height}' if actual else '',
            'wanted rate [Hz]': f'{wanted.rate:.1f}', 'rate of the source [Hz]': f'{actual.rate:.1f}' if actual else '',
            'measured rate [Hz]': f'{measured:.1f}', 'pixel format': actual.pixel_format if actual else '',
            'undecodable frames': str(self._capture.undecodable), 'reconnections': str(self._thread.restarts),
            'calibration': str(self._calibration_path) if calibration else 'none; an ideal camera of 60 degrees',
            'last error': self._thread.fault or self._calibration_fault}
        if not self.active:
            return STALE, INACTIVE, {**values, 'state': 'inactive'}
        if not self._thread.running or actual is None:
            return ERROR, self._thread.fault or 'The camera is being opened.', values
        if self._calibration_fault:
            return WARN, self._calibration_fault, values
        if calibration and (calibration.width, calibration.height) != (actual.width, actual.height):
            return WARN, (f'The calibration is of {calibration.width}x{calibration.height} images, the camera sends '
                          f'{actual.width}x{actual.height}; an ideal camera is published instead.'), values
        if not self._capture.enabled:
            return OK, 'Capture is off; set_capture turns it on.', values
        if 0.0 < measured < LOW_RATE_SHARE * wanted.rate:
            return WARN, f'{measured:.1f} frames/s instead of {wanted.rate:.1f}; the source or the machine is too ' \
                'slow.', values
        return OK, f'{actual.width}x{actual.height} at {measured:.1f} Hz.', values


def main() -> None:
    """Run the node."""
    spin(CameraNode, THREADS)


if __name__ == '__main__':
    main()
