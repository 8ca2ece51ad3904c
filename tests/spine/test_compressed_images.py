"""JPEG, PNG and what else arrives under the name of a compressed image."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_images import RGB, RNG, SMOOTH, NewMessage, compressed, decode, encode
from spine_messages import from_rosbags

from qt_ros.decoding import DecodeError

GREY = RGB[:, :, 0]
BGR = SMOOTH[:, :, ::-1]
FORMATS = ['jpeg', 'jpg', 'png', '', 'rgb8; jpeg compressed bgr8', 'no such format', 'h264']


def message(data: bytes, format: str = '') -> Any:
    return SimpleNamespace(data=data, format=format)


def jpeg_with(segment: bytes, data: bytes) -> bytes:
    """Put a segment right behind the start of a JPEG."""
    return data[:2] + segment + data[2:]


def test_the_data_say_what_they_are_whatever_the_format_says(new_message: NewMessage) -> None:
    for format in FORMATS:
        decoded = decode(compressed(new_message, encode('.jpg', BGR), format), (48, 64))
        assert np.abs(decoded.astype(int) - SMOOTH).mean() < 8
        decoded = decode(compressed(new_message, encode('.png', BGR), format), (48, 64))
        np.testing.assert_array_equal(decoded, SMOOTH)


def test_jpeg_is_what_opencv_decodes_resized_by_area(new_message: NewMessage) -> None:
    data = encode('.jpg', BGR)
    plain = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    for height, width in [(48, 64), (12, 16), (17, 23), (96, 70)]:
        expected = cv2.resize(plain, (width, height), interpolation=cv2.INTER_AREA)
        decoded = decode(compressed(new_message, data, 'jpeg'), (height, width))
        np.testing.assert_array_equal(decoded, expected)
        assert decoded.flags.c_contiguous
    expected = cv2.resize(plain[8:40, 4:60], (10, 9), interpolation=cv2.INTER_AREA)
    decoded = decode(compressed(new_message, data, 'jpeg'), (9, 10), crop=(8, 4, 32, 56))
    np.testing.assert_array_equal(decoded, expected)


def test_kinds_of_jpeg() -> None:
    progressive = encode('.jpg', BGR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    restarts = encode('.jpg', BGR, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    for data in (progressive, restarts):
        assert np.abs(decode(message(data), (48, 64)).astype(int) - SMOOTH).mean() < 8
    grey = decode(message(encode('.jpg', SMOOTH[:, :, 0])), (48, 64))
    assert np.abs(grey.astype(int) - SMOOTH[:, :, :1]).mean() < 8
    assert (grey[:, :, 0] == grey[:, :, 2]).all()


def test_cmyk_jpeg() -> None:
    pillow = pytest.importorskip('PIL.Image', reason='Pillow is not installed')
    file = io.BytesIO()
    pillow.fromarray(SMOOTH).convert('CMYK').save(file, 'JPEG', quality=95)
    decoded = decode(message(file.getvalue()), (48, 64))
    assert np.abs(decoded.astype(int) - SMOOTH).mean() < 8


def exif(orientation: int) -> bytes:
    entry = struct.pack('>HHIHH', 0x0112, 3, 1, orientation, 0)
    tiff = b'MM\0*' + struct.pack('>IH', 8, 1) + entry + bytes(4)
    body = b'Exif\0\0' + tiff
    return b'\xff\xe1' + struct.pack('>H', len(body) + 2) + body


def test_exif_rotation_is_not_applied() -> None:
    """A camera on a wrist turns; the picture must not turn back with what a driver wrote."""
    data = encode('.jpg', BGR)
    turned = jpeg_with(exif(6), data)
    rotated = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    assert rotated.shape == (64, 48, 3)  # OpenCV would turn it
    np.testing.assert_array_equal(
        decode(message(turned), (48, 64)), decode(message(data), (48, 64))
    )


def test_png_of_every_kind(new_message: NewMessage) -> None:
    wide = RNG.integers(0, 65536, (6, 8, 4), dtype=np.uint16)
    narrow = np.rint(wide / 257.0).astype(np.uint8)
    alpha = np.dstack([RGB[:, :, ::-1], GREY])
    for pixels, expected in [
        (GREY, np.dstack([GREY] * 3)),
        (alpha, RGB),
        (wide[:, :, 0], np.dstack([narrow[:, :, 0]] * 3)),
        (wide[:, :, :3], narrow[:, :, 2::-1]),
        (wide, narrow[:, :, 2::-1]),
    ]:
        decoded = decode(compressed(new_message, encode('.png', pixels), 'png'), (6, 8))
        np.testing.assert_array_equal(decoded, expected)


def test_sixteen_bit_png_is_grey_or_depth_as_its_format_says(new_message: NewMessage) -> None:
    png = encode('.png', np.full((8, 8), 1000, np.uint16))
    grey = decode(compressed(new_message, png, 'mono16; png compressed '), (8, 8))
    assert (grey == 4).all()
    depth = decode(compressed(new_message, png, '16UC1; png compressed '), (8, 8))
    assert (depth == 128).all()


@pytest.mark.parametrize('extension', ['.jpg', '.png', 'progressive'])
def test_truncated_images_are_refused_wherever_they_end(extension: str) -> None:
    if extension == 'progressive':
        data = encode('.jpg', SMOOTH, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    else:
        data = encode(extension, SMOOTH)
    for end in [*range(0, len(data) - 10, 37), len(data) - 10, len(data) - 2, len(data) - 1]:
        with pytest.raises(DecodeError):
            decode(message(data[:end], 'x'), (48, 64))
    assert decode(message(data), (48, 64)).any()


@given(st.binary(max_size=60))
def test_bytes_after_the_end_do_not_matter(tail: bytes) -> None:
    for extension in ('.jpg', '.png'):
        data = encode(extension, SMOOTH)
        plain = decode(message(data), (48, 64))
        np.testing.assert_array_equal(decode(message(data + tail), (48, 64)), plain)


def test_a_thumbnail_does_not_hide_that_the_image_is_cut() -> None:
    thumbnail = encode('.jpg', SMOOTH[::4, ::4])
    segment = b'\xff\xe1' + struct.pack('>H', len(thumbnail) + 2) + thumbnail
    data = jpeg_with(segment, encode('.jpg', BGR))
    plain = decode(message(encode('.jpg', BGR)), (48, 64))
    np.testing.assert_array_equal(decode(message(data), (48, 64)), plain)
    with pytest.raises(DecodeError, match='truncated or damaged'):
        decode(message(data[:-2]), (48, 64))


@given(st.binary(max_size=80), st.sampled_from(['', 'jpeg', '16UC1; compressedDepth png']))
def test_garbage_is_a_decode_error(data: bytes, format: str) -> None:
    for head in (b'', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'):
        for tail in (b'', b'IEND', b'\xff\xd9'):
            with pytest.raises(DecodeError):
                decode(message(head + data + tail, format), (8, 8))


@given(st.data(), st.sampled_from(['.jpg', '.png']))
def test_damage_is_decoded_or_refused(data: st.DataObject, extension: str) -> None:
    found = bytearray(encode(extension, SMOOTH))
    for _ in range(data.draw(st.integers(1, 4))):
        found[data.draw(st.integers(0, len(found) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DecodeError):
        assert decode(message(bytes(found)), (8, 8)).shape == (8, 8, 3)


# --- headers that ask for too much ------------------------------------------------------------


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))


def png_bomb(width: int, height: int) -> bytes:
    """A PNG that is right in every checksum and holds next to nothing."""
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    chunks = png_chunk(b'IHDR', header) + png_chunk(b'IDAT', body) + png_chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + chunks


def jpeg_bomb(width: int, height: int) -> bytes:
    data = bytearray(encode('.jpg', SMOOTH))
    frame = data.index(b'\xff\xc0')
    struct.pack_into('>HH', data, frame + 5, height, width)
    return bytes(data)


@pytest.mark.parametrize('width', [2**14, 2**16 - 1])
def test_a_header_that_asks_for_too_much_is_refused_before_memory_is_taken(width: int) -> None:
    for data in (png_bomb(width, 2**15), jpeg_bomb(width, 2**15)):
        with pytest.raises(DecodeError, match=f'announces {width}x32768 pixels; allowed'):
            decode(message(data), (8, 8))
    with pytest.raises(DecodeError, match='announces'):
        decode(message(png_bomb(2**31 - 1, 2**31 - 1)), (8, 8))
    chunk = b'\x89PNG\r\n\x1a\n' + struct.pack('>I4s', 2**31 - 1, b'IHDR') + bytes(64)
    with pytest.raises(DecodeError, match='truncated or damaged'):
        decode(message(chunk), (8, 8))


def test_images_of_no_size_are_refused() -> None:
    for data in (png_bomb(0, 8), png_bomb(8, 0), jpeg_bomb(0, 8), jpeg_bomb(8, 0)):
        with pytest.raises(DecodeError, match='announces'):
            decode(message(data), (8, 8))


def test_what_is_no_image_names_what_it_starts_with() -> None:
    for data, shown in ((b'RIFF1234WEBP', '52494646'), (b'', 'with nothing')):
        with pytest.raises(DecodeError, match=f'{shown}.*supported: JPEG, PNG, compressedDepth'):
            decode(compressed(from_rosbags, data, 'webp'), (8, 8))
