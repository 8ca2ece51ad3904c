"""Image messages to (H, W, 3) uint8 RGB.

Rows may be padded (`step`), 16-bit pixels may be big-endian. Colours are converted by `cv_bridge`
where it is installed and gives the very pixels of the table here, else by the table: a policy must
see the same image on the robot and from the bag, whichever of the two has cv_bridge.

Depth becomes grey 255 / (1 + z [m]): 255 at the lens, 128 at 1 m, 51 at 4 m, 0 where unknown. It
needs no range, and is finest where an arm works.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from qt_ros.contract import Camera
from qt_ros.message_types import CAMERA_TYPES, COMPRESSED_IMAGE, IMAGE, DecodeError

Pixels = NDArray[Any]
Rgb = NDArray[np.uint8]

_JPEG, _JPEG_SCAN, _JPEG_END = b'\xff\xd8', b'\xff\xda', b'\xff\xd9'
_PNG = b'\x89PNG\r\n\x1a\n'
_DEPTH_HEADER = struct.Struct('<iff')  # format, quantisation A and B of compressed_depth_transport
_MONO16_SCALE = 255.0 / 65535.0


def decode_image(msg: Any, camera: Camera) -> Rgb:
    """Decode one image, crop it, and resize it by area (aspect is not kept) to the camera's size.

    Returns a fresh (H, W, 3) uint8 array, RGB. DecodeError: damaged data or unknown encoding, or
    an image that does not contain the crop.
    """
    if camera.type == IMAGE:
        image = _decode_raw(msg)
    elif camera.type == COMPRESSED_IMAGE:
        image = _decode_compressed(msg)
    else:
        raise DecodeError(f'{camera.type} is no image; supported: {", ".join(CAMERA_TYPES)}')
    image = _crop(image, camera)
    height, width = camera.size
    if image.shape[:2] != (height, width):
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(resized, dtype=np.uint8)
    return np.array(image, dtype=np.uint8, order='C')


def _crop(image: Pixels, camera: Camera) -> Pixels:
    """Cut out the contract's part of the recorded image."""
    if camera.crop is None:
        return image
    top, left, height, width = camera.crop
    if top + height > image.shape[0] or left + width > image.shape[1]:
        raise DecodeError(
            f'camera {camera.name}: the image is {image.shape[0]}x{image.shape[1]} '
            f'(height x width), its crop needs {top + height}x{left + width}: '
            f'{height}x{width} from row {top} and column {left}'
        )
    return image[top : top + height, left : left + width]


def _bayer(code: int) -> Callable[[Pixels], Pixels]:
    return lambda image: cv2.cvtColor(image, code)


def _grey(image: Pixels) -> Pixels:
    return np.repeat(image[:, :, None], 3, axis=2)


def _mono16(image: Pixels) -> Pixels:
    return _grey(np.rint(image * _MONO16_SCALE).astype(np.uint8))


def _depth(metres: Pixels) -> Pixels:
    """(H, W) depth [m] to grey; zero, negative and non-finite depths are unknown: 0."""
    known = np.isfinite(metres) & (metres > 0)
    z = np.where(known, metres, 0).astype(np.float32)
    return _grey(np.where(known, np.rint(np.float32(255) / (1 + z)), 0).astype(np.uint8))


def _depth_mm(image: Pixels) -> Pixels:
    return _depth(image.astype(np.float32) / np.float32(1000))


# {encoding: (pixel type, channels, to RGB)}. OpenCV names a Bayer pattern after its second row.
_ENCODINGS: dict[str, tuple[str, int, Callable[[Pixels], Pixels]]] = {
    'rgb8': ('u1', 3, lambda image: image),
    'bgr8': ('u1', 3, lambda image: image[:, :, ::-1]),
    '8UC3': ('u1', 3, lambda image: image[:, :, ::-1]),
    'rgba8': ('u1', 4, lambda image: image[:, :, :3]),
    'bgra8': ('u1', 4, lambda image: image[:, :, 2::-1]),
    '8UC4': ('u1', 4, lambda image: image[:, :, 2::-1]),
    'mono8': ('u1', 1, _grey),
    '8UC1': ('u1', 1, _grey),
    'mono16': ('u2', 1, _mono16),
    '16UC1': ('u2', 1, _depth_mm),
    '32FC1': ('f4', 1, _depth),
    'bayer_rggb8': ('u1', 1, _bayer(cv2.COLOR_BayerBG2RGB)),
    'bayer_bggr8': ('u1', 1, _bayer(cv2.COLOR_BayerRG2RGB)),
    'bayer_gbrg8': ('u1', 1, _bayer(cv2.COLOR_BayerGR2RGB)),
    'bayer_grbg8': ('u1', 1, _bayer(cv2.COLOR_BayerGB2RGB)),
    'yuv422': ('u1', 2, lambda image: cv2.cvtColor(image, cv2.COLOR_YUV2RGB_UYVY)),
    'uyvy': ('u1', 2, lambda image: cv2.cvtColor(image, cv2.COLOR_YUV2RGB_UYVY)),
    'yuv422_yuy2': ('u1', 2, lambda image: cv2.cvtColor(image, cv2.COLOR_YUV2RGB_YUYV)),
    'yuyv': ('u1', 2, lambda image: cv2.cvtColor(image, cv2.COLOR_YUV2RGB_YUYV)),
}


def _decode_raw(msg: Any) -> Pixels:
    """sensor_msgs/Image to (H, W, 3) uint8."""
    if msg.encoding not in _ENCODINGS:
        raise DecodeError(
            f'unknown image encoding {msg.encoding!r}; supported: {", ".join(_ENCODINGS)}'
        )
    image = _unpack(msg)
    if _cv_bridge_agrees(msg.encoding):
        return _with_cv_bridge(_cv_bridge(), image, msg.encoding)
    return _ENCODINGS[msg.encoding][2](image)


def _unpack(msg: Any) -> Pixels:
    """Return (H, W) or (H, W, C) pixels in this machine's byte order, row padding removed."""
    kind, channels, _ = _ENCODINGS[msg.encoding]
    height, width = int(msg.height), int(msg.width)
    dtype = np.dtype(('>' if msg.is_bigendian else '<') + kind)
    row = width * channels * dtype.itemsize
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
    return pixels if channels == 1 else pixels.reshape(height, width, channels)


@cache
def _cv_bridge() -> Any | None:
    """Return a CvBridge, None where it does not import (not installed, or built for NumPy 1)."""
    try:
        from cv_bridge import CvBridge

        return CvBridge()
    except (ImportError, AttributeError, RuntimeError, SystemError, OSError):
        return None


@cache
def _cv_bridge_agrees(encoding: str) -> bool:
    """Try cv_bridge on a small image: does it work here, and give what the table gives?"""
    kind, channels, convert = _ENCODINGS[encoding]
    bridge = _cv_bridge()
    if bridge is None or kind != 'u1':  # wider pixels: cv_bridge has no rule for depth
        return False
    shape = (6, 8) if channels == 1 else (6, 8, channels)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    try:
        return np.array_equal(_with_cv_bridge(bridge, image, encoding), convert(image))
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, cv2.error):
        return False  # an encoding it does not know, or a version that does not fit this numpy


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


def _decode_compressed(msg: Any) -> Pixels:
    """sensor_msgs/CompressedImage (JPEG, PNG, compressedDepth) to (H, W, 3) uint8.

    The data says what it is; `format` only tells depth from other 16-bit images.
    """
    data = bytes(memoryview(msg.data))
    described = str(msg.format)
    if 'compressedDepth' in described:
        return _decode_compressed_depth(data, described)
    image = _decode_blob(data, described)
    if image.dtype == np.uint16:
        if described.startswith('16UC1'):
            return _depth_mm(image[:, :, 0])
        image = np.rint(image * _MONO16_SCALE).astype(np.uint8)
    return image[:, :, ::-1]


def _decode_compressed_depth(data: bytes, described: str) -> Pixels:
    """12 bytes of header, then a 16-bit PNG of millimetres (16UC1) or inverse depth (32FC1)."""
    if 'rvl' in described.lower():
        raise DecodeError(
            f"format {described!r} is not supported; set the camera driver's "
            'compressedDepth format parameter to png'
        )
    if len(data) <= _DEPTH_HEADER.size:
        raise DecodeError(f'compressedDepth of {len(data)} bytes; needed: 12 bytes and a PNG')
    _, quant_a, quant_b = _DEPTH_HEADER.unpack_from(data)
    raw = _decode_blob(data[_DEPTH_HEADER.size :], described, cv2.IMREAD_UNCHANGED)
    if raw.dtype != np.uint16 or raw.ndim != 2:
        raise DecodeError(f'compressedDepth holds {raw.dtype} {raw.shape}; needed: 16-bit grey')
    if described.startswith('32FC1'):
        with np.errstate(divide='ignore', invalid='ignore'):
            metres = np.float32(quant_a) / (raw.astype(np.float32) - np.float32(quant_b))
        return _depth(np.where(raw > 0, metres, 0))
    return _depth_mm(raw)


def _decode_blob(
    data: bytes,
    described: str,
    # Neither the bit depth nor EXIF rotation may be dealt with behind our back.
    flags: int = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION,
) -> Pixels:
    """Decode a JPEG or PNG to BGR; a truncated one is an error, OpenCV would fill it with grey."""
    if data.startswith(_JPEG):
        # Inside a scan the end marker cannot occur; an EXIF thumbnail's comes before the scan.
        complete = data.rfind(_JPEG_END) > data.rfind(_JPEG_SCAN)
    elif data.startswith(_PNG):
        complete = _png_is_complete(data)
    else:
        raise DecodeError(
            f'format {described!r}, {len(data)} bytes starting {data[:4].hex() or "with nothing"}:'
            ' neither JPEG nor PNG; supported: JPEG, PNG, compressedDepth (PNG)'
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if complete else None
    except cv2.error:  # e.g. a header that asks for more pixels than OpenCV allows
        image = None
    if image is None:
        raise DecodeError(f'{described!r} image of {len(data)} bytes is truncated or damaged')
    return np.asarray(image)


def _png_is_complete(data: bytes) -> bool:
    """Walk the chunks from IHDR to IEND; OpenCV would allocate whatever a damaged length says."""
    start, kind = len(_PNG), b''
    while kind != b'IEND':
        if start + 12 > len(data):
            return False
        length, kind = struct.unpack_from('>I4s', data, start)
        if start == len(_PNG) and (length, kind) != (13, b'IHDR'):
            return False
        start += 12 + length
    return start <= len(data)
