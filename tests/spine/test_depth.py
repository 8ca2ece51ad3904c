"""Depth: metres from every kind of message, the resize over what is known, grey and back."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_images import RGB, SMOOTH, NewMessage, camera, compressed, decode, encode, image
from spine_messages import from_rosbags

from qt_ros.decoding import DecodeError, decode_depth
from qt_ros.images.depth import grey_from_metres, metres_from_grey, resize_depth
from qt_ros.images.rvl import decode_rvl
from qt_ros.message_types import COMPRESSED_IMAGE, IMAGE

NAN = np.nan
MILLIMETRES = np.array([[0, 1, 500, 1000], [2000, 4000, 20000, 65535]], np.uint16)
METRES = np.array([[NAN, 0.001, 0.5, 1.0], [2.0, 4.0, 20.0, 65.535]], np.float32)


def metres(msg: Any, size: tuple[int, int], **keys: Any) -> np.ndarray:
    kind = COMPRESSED_IMAGE if hasattr(msg, 'format') else IMAGE
    found = decode_depth(msg, camera(kind, size, **keys))
    assert found.dtype == np.float32
    assert found.shape == size
    return found


def depth_header(a: float = 0.0, b: float = 0.0) -> bytes:
    return struct.pack('<iff', 0, a, b)


def encode_rvl(pixels: np.ndarray) -> bytes:
    """Write RVL as the paper describes it, number by number."""
    nibbles: list[int] = []

    def put(value: int) -> None:
        while True:
            value, low = value >> 3, value & 7
            nibbles.append(low | (8 if value else 0))
            if not value:
                return

    flat = pixels.reshape(-1).tolist()
    at = previous = 0
    while at < len(flat):
        start = at
        while at < len(flat) and not flat[at]:
            at += 1
        put(at - start)
        start = at
        while at < len(flat) and flat[at]:
            at += 1
        put(at - start)
        for value in flat[start:at]:
            change = value - previous
            put(2 * change if change >= 0 else -2 * change - 1)
            previous = value
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        int(''.join(f'{n:x}' for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)
    ]
    return struct.pack(f'<{len(words)}I', *words)


# --- metres -----------------------------------------------------------------------------------


def test_raw_depth_in_metres(new_message: NewMessage) -> None:
    for big in (False, True):
        for encoding in ('16UC1', 'mono16'):
            msg = image(new_message, MILLIMETRES, encoding, pad=6, big=big)
            np.testing.assert_allclose(metres(msg, (2, 4)), METRES, rtol=1e-6)
        msg = image(new_message, METRES, '32FC1', pad=4, big=big)
        np.testing.assert_array_equal(metres(msg, (2, 4)), METRES)


@pytest.mark.parametrize('unknown', [0.0, -0.0, -1.0, NAN, np.inf, -np.inf])
def test_what_is_unknown(new_message: NewMessage, unknown: float) -> None:
    msg = image(new_message, np.full((8, 8), unknown, np.float32), '32FC1')
    assert np.isnan(metres(msg, (8, 8))).all()
    assert np.isnan(metres(msg, (3, 5))).all()
    assert not decode(msg, (8, 8)).any()
    assert not decode(msg, (3, 5), depth_m=(0.0, 1.0)).any()


@pytest.mark.parametrize('code', ['png', 'rvl'])
def test_compressed_depth(new_message: NewMessage, code: str) -> None:
    def pack(pixels: np.ndarray) -> bytes:
        if code == 'png':
            return encode('.png', pixels)
        return struct.pack('<II', pixels.shape[1], pixels.shape[0]) + encode_rvl(pixels)

    msg = compressed(
        new_message, depth_header() + pack(MILLIMETRES), f'16UC1; compressedDepth {code}'
    )
    np.testing.assert_allclose(metres(msg, (2, 4)), METRES, rtol=1e-6)
    raw = image(new_message, MILLIMETRES, '16UC1')
    np.testing.assert_array_equal(decode(msg, (8, 8)), decode(raw, (8, 8)))

    # 32FC1 is stored as inverse depth A / z + B, with 0 for what is unknown.
    depth_max, depth_quantization = 10.0, 100.0
    a = depth_quantization * (depth_quantization + 1)
    b = 1 - a / depth_max
    z = np.array([[0.2, 0.5, 1.0, 2.0], [4.0, 9.9, 10.5, NAN]], np.float32)
    known = z < depth_max
    stored = np.where(known, a / z + b, 0).astype(np.uint16)
    msg = compressed(
        new_message, depth_header(a, b) + pack(stored), f'32FC1; compressedDepth {code}'
    )
    found = metres(msg, (2, 4))
    np.testing.assert_array_equal(np.isnan(found), ~known)
    # One step of the inverse is z^2 / A.
    assert (np.abs(found - z)[known] <= 1.01 * z[known] ** 2 / a).all()


def test_older_compressed_depth_does_not_name_its_code(new_message: NewMessage) -> None:
    data = depth_header() + encode('.png', MILLIMETRES)
    msg = compressed(new_message, data, '16UC1; compressedDepth')
    np.testing.assert_allclose(metres(msg, (2, 4)), METRES, rtol=1e-6)


def test_sixteen_bit_png_is_depth_where_the_contract_says_so(new_message: NewMessage) -> None:
    msg = compressed(new_message, encode('.png', MILLIMETRES), 'png')
    np.testing.assert_allclose(metres(msg, (2, 4)), METRES, rtol=1e-6)
    assert decode(msg, (2, 4), depth_m=(0.0, 4.0))[0, 3, 0] == round(1 + 254 * 1 / 4)


def test_what_holds_no_depth_is_refused(new_message: NewMessage) -> None:
    for msg in (
        image(new_message, RGB, 'rgb8'),
        image(new_message, RGB[:, :, 0], 'mono8'),
        compressed(new_message, encode('.jpg', SMOOTH), 'jpeg'),
        compressed(new_message, encode('.png', SMOOTH.astype(np.uint16)), 'png'),
    ):
        for read in (metres, decode):
            with pytest.raises(DecodeError, match=r'camera front: .* holds no depth; supported'):
                read(msg, (8, 8), depth_m=(0.1, 2.0))


def test_compressed_depth_that_cannot_be_read(new_message: NewMessage) -> None:
    colour = depth_header() + encode('.png', SMOOTH)
    for data, format, expected in [
        (b'short', '16UC1; compressedDepth', '12 bytes'),
        (bytes(13), '16UC1; compressedDepth rvl', 'its size, 8 bytes'),
        (bytes(40), '16UC1; compressedDepth rvl', 'announces 0x0'),
        (bytes(12) + struct.pack('<II', 2**31, 2**31), '16UC1; compressedDepth rvl', 'announces'),
        (bytes(12) + struct.pack('<II', 8, 8), '16UC1; compressedDepth rvl', 'not hold the 8x8'),
        (colour, '16UC1; compressedDepth', 'needed: 16-bit grey'),
        (colour, '16UC1; compressedDepth zstd', 'needed: 16-bit grey'),
    ]:
        with pytest.raises(DecodeError, match=expected):
            decode(compressed(new_message, data, format), (8, 8))


# --- RVL --------------------------------------------------------------------------------------

RUNS = st.lists(
    st.one_of(
        st.integers(1, 40).map(lambda n: [0] * n),
        st.lists(st.integers(1, 65535), min_size=1, max_size=20),
    ),
    min_size=1,
    max_size=8,
).map(lambda runs: np.array([v for run in runs for v in run], np.uint16))


@given(RUNS)
def test_rvl_is_lossless(pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_rvl(encode_rvl(pixels), 1, len(pixels))[0], pixels)


@given(RUNS, st.integers(1, 30))
def test_rvl_that_is_cut_is_refused(pixels: np.ndarray, more: int) -> None:
    data = encode_rvl(pixels)
    with pytest.raises(DecodeError, match='do not hold'):
        decode_rvl(data[:-4], 1, len(pixels))
    with pytest.raises(DecodeError, match='do not hold'):
        # One that announces more than it holds; padding may read as empty runs, never as pixels.
        decode_rvl(data, 1, len(pixels) + more)


@given(st.binary(max_size=64), st.integers(1, 40), st.integers(1, 40))
def test_rvl_garbage_is_decoded_or_refused(data: bytes, height: int, width: int) -> None:
    try:
        assert decode_rvl(data, height, width).shape == (height, width)
    except DecodeError:
        return


def test_rvl_by_hand() -> None:
    """Two zeros, then 5 and 3: numbers 2, 2, +5 -> 10, -2 -> 3; nibbles 2, 2, A, 1, 3."""
    assert encode_rvl(np.array([0, 0, 5, 3], np.uint16)) == struct.pack('<I', 0x22A13000)
    assert decode_rvl(struct.pack('<I', 0x22A13000), 2, 2).tolist() == [[0, 0], [5, 3]]


# --- resize over what is known ----------------------------------------------------------------


def test_unknown_pixels_do_not_drag_the_mean() -> None:
    tile = np.array([[1.0, 3.0, NAN, 2.0, NAN, NAN], [1.0, 3.0, 4.0, 2.0, NAN, 5.0]], np.float32)
    found = resize_depth(tile, (1, 3))
    # Means of {1, 3, 1, 3}, {2, 4, 2}, and of {5} alone: three quarters are unknown.
    np.testing.assert_allclose(found, [[2.0, 8 / 3, NAN]], rtol=1e-6)


def test_half_known_is_known() -> None:
    tile = np.array([[1.0, NAN], [2.0, NAN]], np.float32)
    assert resize_depth(tile, (1, 1)).tolist() == [[1.5]]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.randoms())
def test_resized_depth_is_the_mean_of_the_known(
    height: int, width: int, tall: int, wide: int, random: Any
) -> None:
    values = [
        random.choice([NAN, random.uniform(0.1, 9)]) for _ in range(height * tall * width * wide)
    ]
    full = np.array(values, np.float32).reshape(height * tall, width * wide)
    found = resize_depth(full, (height, width))
    for row in range(height):
        for column in range(width):
            part = full[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide]
            known = part[~np.isnan(part)]
            if 2 * len(known) >= part.size:
                assert found[row, column] == pytest.approx(known.mean(), rel=1e-5)
            else:
                assert np.isnan(found[row, column])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_constant_depth_stays_constant_at_any_size(h: int, w: int, to_h: int, to_w: int) -> None:
    full = np.full((h, w), 1.25, np.float32)
    np.testing.assert_allclose(resize_depth(full, (to_h, to_w)), 1.25, rtol=1e-6)
    full[: h // 2] = NAN
    found = resize_depth(full, (to_h, to_w))
    assert np.allclose(found[~np.isnan(found)], 1.25, rtol=1e-5)


def test_crop_and_resize_of_depth(new_message: NewMessage) -> None:
    field = np.arange(1, 49, dtype=np.uint16).reshape(6, 8) * 100
    field[0] = 0
    msg = image(new_message, field, '16UC1')
    found = metres(msg, (2, 2), crop=(2, 4, 4, 4))
    expected = field[2:6, 4:8].reshape(2, 2, 2, 2).mean(axis=(1, 3)) / 1000
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(DecodeError, match='image is 6x8'):
        metres(msg, (2, 2), crop=(2, 4, 4, 5))


# --- grey and back ----------------------------------------------------------------------------


def test_the_mapping_without_a_range(new_message: NewMessage) -> None:
    for msg in (
        image(new_message, MILLIMETRES, '16UC1'),
        image(new_message, METRES, '32FC1', big=True),
    ):
        grey = decode(msg, (2, 4))
        assert grey[:, :, 0].tolist() == [[0, 255, 170, 128], [85, 51, 12, 4]]
        assert (grey == grey[:, :, :1]).all()


def test_the_mapping_with_a_range(new_message: NewMessage) -> None:
    # 0.5 to 4.5 m on 1 to 255: 1 m is 1 + 254 / 8 = 32.75, 2 m 1 + 254 * 3 / 8 = 96.25.
    grey = decode(image(new_message, MILLIMETRES, '16UC1'), (2, 4), depth_m=(0.5, 4.5))
    assert grey[:, :, 0].tolist() == [[0, 1, 1, 33], [96, 223, 255, 255]]


RANGES = st.tuples(st.floats(0.0, 5.0), st.floats(0.01, 20.0)).map(lambda r: (r[0], r[0] + r[1]))
DEPTHS = st.lists(st.floats(0.001, 100.0) | st.just(NAN), min_size=1, max_size=50)


@given(RANGES, DEPTHS)
def test_metres_read_back_are_right_to_half_a_step(
    depth_m: tuple[float, float], values: list[float]
) -> None:
    near, far = depth_m
    z = np.array([values], np.float32)
    grey = grey_from_metres(z, depth_m)
    back = metres_from_grey(np.dstack([grey] * 3), depth_m)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(z))
    known = ~np.isnan(z)
    allowed = (far - near) / 254 / 2 + 1e-5 * far
    assert (np.abs(back - np.clip(z, near, far))[known] <= allowed).all()
    # Nearer never looks farther.
    order = np.argsort(z[known])
    assert (np.diff(grey[known][order].astype(int)) >= 0).all()


@given(DEPTHS)
def test_metres_read_back_without_a_range(values: list[float]) -> None:
    z = np.array([values], np.float32)
    grey = grey_from_metres(z, None)
    back = metres_from_grey(np.dstack([grey] * 3), None)
    np.testing.assert_array_equal(grey == 0, np.isnan(z))
    known = ~np.isnan(z)
    # Half a step of grey at depth z is (1 + z)^2 / 510 to first order.
    step = 255 / np.maximum(grey - 0.5, 0.5) - 255 / (grey + 0.5)
    assert (np.abs(back - z)[known] <= step[known] + 1e-4).all()


@pytest.mark.parametrize('depth_m', [None, (0.0, 1.0), (0.2, 2.2)])
def test_every_grey_value_comes_back(depth_m: tuple[float, float] | None) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    if depth_m is None:
        grey[15, 15] = 254  # 255 is depth 0, which no camera measures
    back = metres_from_grey(np.dstack([grey] * 3), depth_m)
    np.testing.assert_array_equal(grey_from_metres(back, depth_m), grey)


def test_a_depth_camera_that_sends_nothing_known() -> None:
    msg = SimpleNamespace(
        height=4, width=4, step=8, encoding='16UC1', is_bigendian=0, data=bytes(32)
    )
    assert not decode(msg, (8, 8)).any()
    assert np.isnan(
        metres(image(from_rosbags, np.zeros((4, 4), np.uint16), '16UC1'), (2, 2))
    ).all()
