"""sensor_msgs/CompressedImage to pixels: JPEG, PNG and compressedDepth.

The data says what it is; the text in `format` only tells depth from other 16-bit images. Sizes are
read from the file's own header first, so that a damaged one cannot ask for gigabytes, and a
truncated image is an error: OpenCV would fill it up with grey. EXIF rotation is not applied.
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from qt_ros.images.depth import metres_from_inverse, metres_from_mm
from qt_ros.images.picture import BGR, DEPTH, GREY, Picture
from qt_ros.images.raw import eight_bits
from qt_ros.images.rvl import decode_rvl
from qt_ros.message_types import DecodeError

MAX_PIXELS = 2**26  # 8192x8192

_JPEG, _JPEG_END = b'\xff\xd8', b'\xff\xd9'
_JPEG_SCAN, _JPEG_TABLES = 0xDA, 0xC4
_JPEG_NOT_FRAMES = {_JPEG_TABLES, 0xC8, 0xCC}  # among 0xC0..0xCF, which start a frame
_JPEG_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
_PNG = b'\x89PNG\r\n\x1a\n'
_DEPTH_HEADER = struct.Struct('<iff')  # format, quantisation A and B of compressed_depth_transport
_RVL_SIZE = struct.Struct('<II')  # width, height
# Channels and bits as they are, without alpha; EXIF rotation is not applied behind our back.
_FLAGS = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION

Pixels = NDArray[Any]


def read_compressed(msg: Any, as_depth: bool) -> Picture:
    """Decode a sensor_msgs/CompressedImage; with `as_depth` 16-bit grey holds millimetres.

    DecodeError: neither JPEG, PNG nor compressedDepth, truncated, damaged or too large.
    """
    data = bytes(memoryview(msg.data))
    described = str(msg.format)
    if 'compressedDepth' in described:
        return Picture(_read_depth(data, described), DEPTH, described)
    image = _read_file(data, described)
    if image.dtype == np.uint16:
        if image.ndim == 2 and (as_depth or described.startswith('16UC1')):
            return Picture(metres_from_mm(image), DEPTH, described)
        image = eight_bits(image)
    return Picture(image, GREY if image.ndim == 2 else BGR, described)


def _read_depth(data: bytes, described: str) -> NDArray[np.float32]:
    """12 bytes of header, then PNG or RVL: 16-bit millimetres (16UC1) or inverse depth (32FC1)."""
    if len(data) <= _DEPTH_HEADER.size:
        raise DecodeError(f'compressedDepth of {len(data)} bytes; needed: 12 bytes and a picture')
    _, quant_a, quant_b = _DEPTH_HEADER.unpack_from(data)
    if 'compressedDepth rvl' in described:
        raw: Pixels = _read_rvl(data[_DEPTH_HEADER.size :])
    else:
        raw = _read_file(data[_DEPTH_HEADER.size :], described)
    if raw.dtype != np.uint16 or raw.ndim != 2:
        raise DecodeError(f'compressedDepth holds {raw.dtype} {raw.shape}; needed: 16-bit grey')
    if described.startswith('32FC1'):
        return metres_from_inverse(raw, quant_a, quant_b)
    return metres_from_mm(raw)


def _read_rvl(data: bytes) -> NDArray[np.uint16]:
    if len(data) < _RVL_SIZE.size:
        raise DecodeError(f'compressedDepth rvl of {len(data)} bytes; needed: its size, 8 bytes')
    width, height = _RVL_SIZE.unpack_from(data)
    _check_size(width, height, 'compressedDepth rvl')
    return decode_rvl(data[_RVL_SIZE.size :], height, width)


def _read_file(data: bytes, described: str) -> Pixels:
    """Decode a JPEG or PNG: (H, W) grey or (H, W, 3) BGR, uint8 or uint16."""
    if data.startswith(_JPEG):
        size = _jpeg_size(data)
    elif data.startswith(_PNG):
        size = _png_size(data)
    else:
        raise DecodeError(
            f'format {described!r}, {len(data)} bytes starting {data[:4].hex() or "with nothing"}:'
            ' neither JPEG nor PNG; supported: JPEG, PNG, compressedDepth (PNG, RVL)'
        )
    image = None
    if size is not None:
        _check_size(*size, described)
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
        except cv2.error:
            image = None
    if image is None:
        raise DecodeError(f'{described!r} image of {len(data)} bytes is truncated or damaged')
    return np.asarray(image)


def _check_size(width: int, height: int, described: str) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise DecodeError(
            f'{described!r} image announces {width}x{height} pixels; '
            f'allowed: 1 to {MAX_PIXELS} pixels'
        )


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height), None if the file ends before its image does.

    Segments are walked up to the first scan, so an EXIF thumbnail's markers do not count. Within
    a scan the end marker cannot occur; what comes after it does not matter.
    """
    size = None
    start = 2
    while True:
        start = data.find(b'\xff', start)
        if start < 0 or start + 4 > len(data):
            return None
        marker = data[start + 1]
        if marker == 0xFF or marker == 0x00 or marker in _JPEG_ALONE:  # a fill byte, or no segment
            start += 1 if marker == 0xFF else 2
            continue
        if marker == _JPEG_SCAN:
            return size if data.rfind(_JPEG_END, start) >= 0 else None  # from the end: faster
        if 0xC0 <= marker <= 0xCF and marker not in _JPEG_NOT_FRAMES:
            if start + 9 > len(data):
                return None
            height, width = struct.unpack_from('>HH', data, start + 5)
            size = width, height
        start += 2 + int.from_bytes(data[start + 2 : start + 4], 'big')


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height), None if a chunk from IHDR to IEND is cut or missing.

    OpenCV would allocate whatever a damaged length says.
    """
    start, kind = len(_PNG), b''
    size = None
    while kind != b'IEND':
        if start + 12 > len(data):
            return None
        length, kind = struct.unpack_from('>I4s', data, start)
        if size is None:
            if (length, kind) != (13, b'IHDR') or start + 25 > len(data):
                return None
            width, height = struct.unpack_from('>II', data, start + 8)
            size = width, height
        start += 12 + length
    return size if start <= len(data) else None
