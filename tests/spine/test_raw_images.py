"""Raw images: every encoding, padding and byte order, crop and resize."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_images import RGB, RNG, NewMessage, camera, decode, image
from spine_messages import from_rosbags

from qt_ros.decoding import DecodeError, decode_image
from qt_ros.images import raw
from qt_ros.images.raw import ENCODINGS
from qt_ros.message_types import IMAGE, JOINT_STATE

GREY = RGB[:, :, 0]
ALPHA = np.dstack([RGB, np.full((6, 8), 9, np.uint8)])
WIDE = RNG.integers(0, 65536, (6, 8, 4), dtype=np.uint16)
NARROW = np.rint(WIDE / 257.0).astype(np.uint8)
COLOURS = {
    'rgb8': (RGB, RGB),
    'bgr8': (RGB[:, :, ::-1], RGB),
    'rgba8': (ALPHA, RGB),
    'bgra8': (ALPHA[:, :, [2, 1, 0, 3]], RGB),
    'mono8': (GREY, np.dstack([GREY] * 3)),
    '8UC1': (GREY, np.dstack([GREY] * 3)),
    '8UC3': (RGB[:, :, ::-1], RGB),
    '8UC4': (ALPHA[:, :, [2, 1, 0, 3]], RGB),
    'rgb16': (WIDE[:, :, :3], NARROW[:, :, :3]),
    'bgr16': (WIDE[:, :, :3], NARROW[:, :, 2::-1]),
    'rgba16': (WIDE, NARROW[:, :, :3]),
    'bgra16': (WIDE, NARROW[:, :, 2::-1]),
    'mono16': (WIDE[:, :, 0], np.dstack([NARROW[:, :, 0]] * 3)),
}


@pytest.mark.parametrize('pad', [0, 1, 5])
@pytest.mark.parametrize('encoding', COLOURS)
def test_colours(new_message: NewMessage, encoding: str, pad: int) -> None:
    pixels, expected = COLOURS[encoding]
    for big in (False, True):
        decoded = decode(image(new_message, pixels, encoding, pad, big), (6, 8))
        np.testing.assert_array_equal(decoded, expected)
        assert decoded.dtype == np.uint8
        assert decoded.flags.c_contiguous
        assert decoded.flags.writeable


def test_all_sixteen_bit_values_are_rounded_to_the_nearest() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = decode(image(from_rosbags, values, 'mono16'), (256, 256))[:, :, 0]
    np.testing.assert_array_equal(decoded, np.rint(values / 257.0))


# Which colour the pattern's top left 2x2 pixels see.
BAYER = {'rggb': 'RGGB', 'bggr': 'BGGR', 'gbrg': 'GBRG', 'grbg': 'GRBG'}


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('pattern', BAYER)
def test_bayer_patterns(new_message: NewMessage, pattern: str, bits: int) -> None:
    colour = {'R': 200, 'G': 100, 'B': 30}
    tile = np.array([colour[c] for c in BAYER[pattern]], np.uint8).reshape(2, 2)
    mosaic = np.tile(tile, (6, 7))
    if bits == 16:
        mosaic = mosaic.astype(np.uint16) * 257
    for big in (False, True):
        msg = image(new_message, mosaic, f'bayer_{pattern}{bits}', pad=4, big=big)
        decoded = decode(msg, (12, 14))
        expected = np.broadcast_to((200, 100, 30), (8, 10, 3))
        np.testing.assert_array_equal(decoded[2:-2, 2:-2], expected)


def test_yuv_422(new_message: NewMessage) -> None:
    # Y U Y V for red: luma 76, BT.601 limited range as cameras send it.
    red = np.tile(np.array([90, 81, 240, 81], np.uint8), (6, 4)).reshape(6, 8, 2)  # U Y V Y
    for encoding, pixels in {
        'yuv422': red,
        'uyvy': red,
        'yuv422_yuy2': red[:, :, ::-1],
        'yuyv': red[:, :, ::-1],
    }.items():
        decoded = decode(image(new_message, pixels, encoding), (6, 8)).astype(int)
        assert np.abs(decoded - (254, 0, 0)).max() <= 2, encoding


def every_encoding(msg_type: NewMessage) -> dict[str, object]:
    found = {}
    for name, encoding in ENCODINGS.items():
        shape = (12, 14) if encoding.channels == 1 else (12, 14, encoding.channels)
        found[name] = image(msg_type, RNG.integers(0, 200, shape).astype(encoding.dtype), name, 8)
    return found


def test_cv_bridge_and_the_table_give_the_same_pixels(
    new_message: NewMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for msg in every_encoding(new_message).values():
        first = decode(msg, (12, 14)), decode(msg, (5, 9), crop=(1, 2, 11, 10))
        with monkeypatch.context() as patch:
            patch.setattr(raw, '_cv_bridge_agrees', lambda name: False)
            np.testing.assert_array_equal(decode(msg, (12, 14)), first[0])
            np.testing.assert_array_equal(decode(msg, (5, 9), crop=(1, 2, 11, 10)), first[1])


def test_cv_bridge_is_used_where_it_is_installed() -> None:
    pytest.importorskip('cv_bridge', reason='cv_bridge is not installed')
    assert raw._cv_bridge_agrees('bgr8')
    assert not raw._cv_bridge_agrees('16UC1')


@given(
    st.sampled_from(['rgb8', 'mono16', '32FC1']),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 40),
    st.integers(0, 200),
)
def test_no_size_makes_a_raw_image_read_past_its_data(
    encoding: str, height: int, width: int, step: int, length: int
) -> None:
    msg = SimpleNamespace(
        height=height, width=width, step=step, encoding=encoding, is_bigendian=0,
        data=bytes(range(length)),
    )  # fmt: skip
    row = width * ENCODINGS[encoding].channels * np.dtype(ENCODINGS[encoding].dtype).itemsize
    needed = (step or row) * (height - 1) + row
    if height and width and row <= (step or row) and needed <= length:
        assert decode(msg, (8, 8)).shape == (8, 8, 3)
    else:
        with pytest.raises(DecodeError):
            decode(msg, (8, 8))


@given(st.sampled_from([*ENCODINGS]), st.integers(1, 7), st.integers(1, 7), st.booleans())
def test_tiny_images_decode_or_are_refused(name: str, height: int, width: int, big: bool) -> None:
    encoding = ENCODINGS[name]
    pixels = np.ones((height, width, encoding.channels), np.dtype(encoding.dtype))
    needs_pairs = name.startswith(('bayer', 'yu', 'uy'))
    with contextlib.suppress(DecodeError) if needs_pairs else contextlib.nullcontext():
        assert decode(image(from_rosbags, pixels, name, big=big), (8, 8)).shape == (8, 8, 3)


def test_sizes_that_lie_take_no_memory() -> None:
    for height, width, step in [(2**32 - 1, 2**32 - 1, 0), (2**31, 1, 2**32 - 1), (1, 2**32, 1)]:
        msg = SimpleNamespace(height=height, width=width, step=step, encoding='rgb8',
                              is_bigendian=0, data=bytes(100))  # fmt: skip
        with pytest.raises(DecodeError, match='has 100 bytes; needed'):
            decode(msg, (8, 8))


def test_unknown_encodings_and_types_list_the_known_ones(new_message: NewMessage) -> None:
    with pytest.raises(DecodeError, match=r"'h264'; supported: rgb8, bgr8"):
        decode(image(new_message, RGB, 'h264'), (6, 8))
    with pytest.raises(DecodeError, match='supported: sensor_msgs/msg/Image'):
        decode_image(new_message(JOINT_STATE), camera(JOINT_STATE, (6, 8)))


# --- crop and resize --------------------------------------------------------------------------


def test_resize_is_the_mean_of_the_area(new_message: NewMessage) -> None:
    pixels = RNG.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    decoded = decode(image(new_message, pixels, 'rgb8'), (8, 12))
    mean = pixels.reshape(8, 4, 12, 4, 3).mean(axis=(1, 3))
    assert np.abs(decoded - mean).max() <= 0.51
    assert decode(image(new_message, pixels, 'rgb8'), (64, 9)).shape == (64, 9, 3)


@given(st.data(), st.sampled_from(['rgb8', 'bgr8', 'mono8', 'rgba8', 'mono16', '16UC1']))
def test_a_crop_is_what_a_camera_with_that_view_would_have_sent(
    data: st.DataObject, name: str
) -> None:
    """Cropping and then resizing equals resizing a picture of the cropped part alone."""
    encoding = ENCODINGS[name]
    pixels = RNG.integers(0, 200, (20, 30, encoding.channels)).astype(encoding.dtype)
    top, left = data.draw(st.integers(0, 19)), data.draw(st.integers(0, 29))
    height, width = data.draw(st.integers(1, 20 - top)), data.draw(st.integers(1, 30 - left))
    size = data.draw(st.tuples(st.integers(8, 24), st.integers(8, 24)))
    part = np.ascontiguousarray(pixels[top : top + height, left : left + width])
    cropped = decode(image(from_rosbags, pixels, name, 6), size, crop=(top, left, height, width))
    np.testing.assert_array_equal(cropped, decode(image(from_rosbags, part, name), size))
    assert cropped.flags.c_contiguous
    assert cropped.flags.writeable


@given(st.integers(8, 40), st.integers(8, 40))
def test_the_order_of_channels_does_not_change_the_resize(height: int, width: int) -> None:
    pixels = RNG.integers(0, 256, (23, 31, 3), dtype=np.uint8)
    rgb = decode(image(from_rosbags, pixels, 'rgb8'), (height, width))
    bgr = decode(image(from_rosbags, pixels[:, :, ::-1], 'bgr8'), (height, width))
    np.testing.assert_array_equal(rgb, bgr)
    if (height, width) != (23, 31):
        plain = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(rgb, plain)


@pytest.mark.parametrize('crop', [(0, 0, 7, 8), (0, 0, 6, 9), (5, 0, 2, 8), (0, 60000, 1, 1)])
def test_a_crop_outside_of_the_image_says_both_sizes(
    new_message: NewMessage, crop: tuple[int, int, int, int]
) -> None:
    top, left, height, width = crop
    needed = f'image is 6x8 .*crop needs {top + height}x{left + width}'
    with pytest.raises(DecodeError, match=needed):
        decode(image(new_message, RGB, 'rgb8'), (8, 8), crop=crop)
    assert decode(image(new_message, RGB, 'rgb8'), (8, 8), crop=(0, 0, 6, 8)).any()


def test_the_decoded_image_is_no_view_of_the_message(new_message: NewMessage) -> None:
    msg = image(new_message, RGB, 'rgb8')
    first = decode(msg, (6, 8))
    first[:] = 0
    np.testing.assert_array_equal(decode_image(msg, camera(IMAGE, (6, 8))), RGB)
