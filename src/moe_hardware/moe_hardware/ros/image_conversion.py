"""Frames as messages; cv_bridge where ROS provides it, the same bytes without it."""

from __future__ import annotations

import array
from typing import Any

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from moe_hardware.camera import jpeg
from moe_hardware.camera.intrinsics import Intrinsics

try:
    from cv_bridge import CvBridge
except ImportError:  # not among the ROS wheels of PyPI
    CvBridge = None

_BRIDGE = CvBridge() if CvBridge is not None else None


def header(stamp: Time, frame_id: str) -> Header:
    """Return a header."""
    return Header(stamp=stamp, frame_id=frame_id)


def image_message(image: Any, head: Header) -> Image:
    """Return a bgr8 image message of a height x width x 3 array."""
    if _BRIDGE is not None:
        return _BRIDGE.cv2_to_imgmsg(image, 'bgr8', head)
    message = Image(header=head, height=image.shape[0], width=image.shape[1], encoding='bgr8', is_bigendian=0,
                    step=image.shape[1] * 3)
    message.data = _bytes(image)
    return message


def compressed_message(image: Any, quality: int, head: Header) -> CompressedImage:
    """Return a JPEG message, its format named as compressed_image_transport does."""
    return jpeg_message(jpeg.encode(image, quality), head)


def jpeg_message(data: Any, head: Header) -> CompressedImage:
    """Return a message of the bytes of a JPEG file."""
    message = CompressedImage(header=head, format='bgr8; jpeg compressed bgr8')
    message.data = _bytes(data)
    return message


def camera_info_message(intrinsics: Intrinsics, head: Header) -> CameraInfo:
    """Return a calibration as a message."""
    return CameraInfo(header=head, width=intrinsics.width, height=intrinsics.height,
                      distortion_model=intrinsics.distortion_model, d=list(intrinsics.d), k=list(intrinsics.k),
                      r=list(intrinsics.r), p=list(intrinsics.p))


def intrinsics_of(message: CameraInfo, camera_name: str) -> Intrinsics:
    """Return the calibration in a message."""
    return Intrinsics(camera_name, message.width, message.height, message.distortion_model, *(
        tuple(float(value) for value in values) for values in (message.d, message.k, message.r, message.p)))


def _bytes(values: Any) -> array.array[int]:
    """Copy an array's bytes at memory speed; a list or an ndarray would be copied value by value."""
    data = array.array('B')
    data.frombytes(values.data)
    return data
