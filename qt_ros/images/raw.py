"""sensor_msgs/Image to pixels.

Rows may be padded (`step`), 16-bit and float pixels may be big-endian. Colours are converted by
`cv_bridge` where it is installed and gives the very pixels of the table here, else by the table: a
policy must see the same image on the robot and from the bag, whichever of the two has cv_bridge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from qt_ros.images.depth import known_metres, metres_from_mm
from qt_ros.images.picture import BGR, DEPTH, GREY, RGB, Picture
from qt_ros.message_types import DecodeError

Pixels = NDArray[Any]
_16_TO_8_BITS = 255.0 / 65535.0


@dataclass(frozen=True)
class Encoding:
    """How pixels lie in memory, and how they become a picture."""

    dtype: str  # without byte order
    channels: int
    kind: str  # of the picture
    convert: Callable[[Pixels], Pixels]


def eight_bits(image: Pixels) -> Pixels:
    """Scale 16-bit values to 8 bits, rounded to the nearest."""
    return np.asarray(cv2.convertScaleAbs(image, alpha=_16_TO_8_BITS)).reshape(image.shape)


def _same(image: Pixels) -> Pixels:
    return image


def _three(image: Pixels) -> Pixels:
    return np.ascontiguousarray(image[:, :, :3])  # without alpha


def _code(code: int) -> Callable[[Pixels], Pixels]:
    return lambda image: np.asarray(cv2.cvtColor(image, code))


def _bayer16(code: int) -> Callable[[Pixels], Pixels]:
    return lambda image: eight_bits(cv2.cvtColor(image, code))


# OpenCV names a Bayer pattern after its second row.
_BAYER = {
    'rggb': cv2.COLOR_BayerBG2RGB,
    'bggr': cv2.COLOR_BayerRG2RGB,
    'gbrg': cv2.COLOR_BayerGR2RGB,
    'grbg': cv2.COLOR_BayerGB2RGB,
}

ENCODINGS: dict[str, Encoding] = {
    'rgb8': Encoding('u1', 3, RGB, _same),
    'bgr8': Encoding('u1', 3, BGR, _same),
    '8UC3': Encoding('u1', 3, BGR, _same),
    'rgba8': Encoding('u1', 4, RGB, _three),
    'bgra8': Encoding('u1', 4, BGR, _three),
    '8UC4': Encoding('u1', 4, BGR, _three),
    'mono8': Encoding('u1', 1, GREY, _same),
    '8UC1': Encoding('u1', 1, GREY, _same),
    'rgb16': Encoding('u2', 3, RGB, eight_bits),
    'bgr16': Encoding('u2', 3, BGR, eight_bits),
    'rgba16': Encoding('u2', 4, RGB, lambda image: eight_bits(_three(image))),
    'bgra16': Encoding('u2', 4, BGR, lambda image: eight_bits(_three(image))),
    'mono16': Encoding('u2', 1, GREY, eight_bits),
    '16UC1': Encoding('u2', 1, DEPTH, metres_from_mm),
    '32FC1': Encoding('f4', 1, DEPTH, known_metres),
    **{f'bayer_{name}8': Encoding('u1', 1, RGB, _code(code)) for name, code in _BAYER.items()},
    **{f'bayer_{name}16': Encoding('u2', 1, RGB, _bayer16(code)) for name, code in _BAYER.items()},
    'yuv422': Encoding('u1', 2, RGB, _code(cv2.COLOR_YUV2RGB_UYVY)),
    'uyvy': Encoding('u1', 2, RGB, _code(cv2.COLOR_YUV2RGB_UYVY)),
    'yuv422_yuy2': Encoding('u1', 2, RGB, _code(cv2.COLOR_YUV2RGB_YUYV)),
    'yuyv': Encoding('u1', 2, RGB, _code(cv2.COLOR_YUV2RGB_YUYV)),
}


def read_raw(msg: Any, as_depth: bool) -> Picture:
    """Decode a sensor_msgs/Image; with `as_depth` a mono16 image holds millimetres.

    DecodeError: unknown encoding, or sizes that do not fit together.
    """
    name = str(msg.encoding)
    if name not in ENCODINGS:
        raise DecodeError(f'unknown image encoding {name!r}; supported: {", ".join(ENCODINGS)}')
    image = _unpack(msg, ENCODINGS[name])
    if as_depth and name == 'mono16':
        return Picture(metres_from_mm(image), DEPTH, name)
    if _cv_bridge_agrees(name):
        return Picture(_with_cv_bridge(_cv_bridge(), image, name), RGB, name)
    return Picture(_convert(image, name), ENCODINGS[name].kind, name)


def _convert(image: Pixels, name: str) -> Pixels:
    try:
        return ENCODINGS[name].convert(image)
    except cv2.error as error:
        raise DecodeError(
            f'{name} image of {image.shape[1]}x{image.shape[0]} pixels cannot be converted: '
            'bayer and yuv need a width and height that are even and not tiny'
        ) from error


def _unpack(msg: Any, encoding: Encoding) -> Pixels:
    """Return (H, W) or (H, W, C) pixels in this machine's byte order, row padding removed."""
    height, width = int(msg.height), int(msg.width)
    dtype = np.dtype(('>' if msg.is_bigendian else '<') + encoding.dtype)
    row = width * encoding.channels * dtype.itemsize
    step = int(msg.step) or row  # some drivers leave step empty
    data = np.frombuffer(msg.data, dtype=np.uint8)
    if height < 1 or width < 1:
        raise DecodeError(f'image of {width}x{height} pixels')
    # The padding of the last row may be left out.
    needed = step * (height - 1) + row
    if step < row or data.size < needed:
        raise DecodeError(
            f'{msg.encoding} image {width}x{height} with step {step} has {data.size} bytes; '
            f'needed: step >= {row} and {needed} bytes'
        )
    rows = np.lib.stride_tricks.as_strided(data, (height, row), (step, 1), writeable=False)
    pixels = np.ascontiguousarray(rows).view(dtype).astype(dtype.newbyteorder('='), copy=False)
    return pixels if encoding.channels == 1 else pixels.reshape(height, width, encoding.channels)


@cache
def _cv_bridge() -> Any | None:
    """Return a CvBridge, None where it does not import (not installed, or built for NumPy 1)."""
    try:
        from cv_bridge import CvBridge

        return CvBridge()
    except (ImportError, AttributeError, RuntimeError, SystemError, OSError):
        return None


@cache
def _cv_bridge_agrees(name: str) -> bool:
    """Try cv_bridge on a small image: does it work here, and give what the table gives?"""
    encoding, bridge = ENCODINGS[name], _cv_bridge()
    if bridge is None or encoding.dtype != 'u1':  # wider pixels: cv_bridge has no rule for depth
        return False
    shape = (6, 8) if encoding.channels == 1 else (6, 8, encoding.channels)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    try:
        expected = in_rgb(_convert(image, name), encoding.kind)
        return np.array_equal(_with_cv_bridge(bridge, image, name), expected)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, cv2.error):
        return False  # an encoding it does not know, or a version that does not fit this numpy


def in_rgb(pixels: Pixels, kind: str) -> NDArray[np.uint8]:
    """Return the colours of a picture as a fresh (H, W, 3) uint8 array, RGB."""
    if kind == GREY:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB))
    if kind == BGR:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    return np.array(pixels, dtype=np.uint8, order='C')


def _with_cv_bridge(bridge: Any, image: Pixels, encoding: str) -> Pixels:
    height, width = image.shape[:2]
    message = SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=image.nbytes // height,
        data=image.tobytes(),
    )
    return np.asarray(bridge.imgmsg_to_cv2(message, 'rgb8'))
