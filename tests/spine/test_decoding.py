"""Decoders on the messages of bags and of live nodes: the same numbers and pixels from both."""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qt_ros import image_decoding
from qt_ros.contract import Camera
from qt_ros.decoding import DecodeError, decode_image, decode_state, fields_of, holds
from qt_ros.message_types import COMPRESSED_IMAGE, IMAGE, JOINT_STATE, JOINT_TRAJECTORY

NewMessage = Callable[[str], Any]
RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)


def set_array(msg: Any, name: str, values: Any) -> None:
    """Fill an array field in the way that this kind of message holds it."""
    old = getattr(msg, name)
    if isinstance(old, np.ndarray):
        setattr(msg, name, np.asarray(values, dtype=old.dtype))
    else:
        setattr(msg, name, values if isinstance(values, list) else values.tolist())


def camera(type: str, size: tuple[int, int], **keys: Any) -> Camera:
    return Camera('front', '/front', type, size, **keys)


def image(
    new: NewMessage, pixels: np.ndarray, encoding: str, pad: int = 0, big: bool = False
) -> Any:
    msg = new(IMAGE)
    msg.height, msg.width = pixels.shape[:2]
    msg.encoding = encoding
    msg.is_bigendian = int(big)
    stored = pixels.astype(pixels.dtype.newbyteorder('>' if big else '<'))
    rows = stored.reshape(len(pixels), -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, pad)), constant_values=0xAB)
    msg.step = padded.shape[1]
    set_array(msg, 'data', padded.reshape(-1))
    return msg


def compressed(new: NewMessage, data: bytes, format: str) -> Any:
    msg = new(COMPRESSED_IMAGE)
    msg.format = format
    set_array(msg, 'data', np.frombuffer(data, np.uint8))
    return msg


def encode(extension: str, pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(extension, pixels)[1])


# --- raw images -------------------------------------------------------------------------------

GREY = RGB[:, :, 0]
ALPHA = np.dstack([RGB, np.full((6, 8), 9, np.uint8)])
COLOURS = {
    'rgb8': (RGB, RGB),
    'bgr8': (RGB[:, :, ::-1], RGB),
    'rgba8': (ALPHA, RGB),
    'bgra8': (ALPHA[:, :, [2, 1, 0, 3]], RGB),
    'mono8': (GREY, np.dstack([GREY] * 3)),
    '8UC1': (GREY, np.dstack([GREY] * 3)),
    '8UC3': (RGB[:, :, ::-1], RGB),
    'mono16': (GREY.astype(np.uint16) * 257, np.dstack([GREY] * 3)),
}


@pytest.mark.parametrize('pad', [0, 1, 5])
@pytest.mark.parametrize('encoding', COLOURS)
def test_colours(new_message: NewMessage, encoding: str, pad: int) -> None:
    pixels, expected = COLOURS[encoding]
    pad *= pixels.dtype.itemsize
    decoded = decode_image(image(new_message, pixels, encoding, pad), camera(IMAGE, (6, 8)))
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable


@pytest.mark.parametrize('pad', [0, 3])
def test_sixteen_bits_in_both_byte_orders(new_message: NewMessage, pad: int) -> None:
    pixels = RNG.integers(0, 65536, (6, 8), dtype=np.uint16)
    expected = np.rint(pixels / 257.0).astype(np.uint8)
    for big in (False, True):
        decoded = decode_image(
            image(new_message, pixels, 'mono16', pad, big), camera(IMAGE, (6, 8))
        )
        np.testing.assert_array_equal(decoded, np.dstack([expected] * 3))


def test_depth_in_millimetres_and_metres_gives_the_same_grey(new_message: NewMessage) -> None:
    millimetres = np.array([[0, 1, 500, 1000], [2000, 4000, 20000, 65535]], np.uint16)
    metres = millimetres.astype(np.float32) / np.float32(1000)
    metres[0, 0] = np.nan
    a = decode_image(image(new_message, millimetres, '16UC1'), camera(IMAGE, (2, 4)))
    b = decode_image(image(new_message, metres, '32FC1', big=True), camera(IMAGE, (2, 4)))
    np.testing.assert_array_equal(a, b)
    assert a[:, :, 0].tolist() == [[0, 255, 170, 128], [85, 51, 12, 4]]
    for unknown in (np.inf, -np.inf, -1.0, 0.0):
        msg = image(new_message, np.full((8, 8), unknown, np.float32), '32FC1')
        assert not decode_image(msg, camera(IMAGE, (8, 8))).any()


# Which colour the pattern's top left 2x2 pixels see.
BAYER = {'rggb': 'RGGB', 'bggr': 'BGGR', 'gbrg': 'GBRG', 'grbg': 'GRBG'}


@pytest.mark.parametrize('pattern', BAYER)
def test_bayer_patterns(new_message: NewMessage, pattern: str) -> None:
    colour = {'R': 200, 'G': 100, 'B': 30}
    tile = np.array([colour[c] for c in BAYER[pattern]], np.uint8).reshape(2, 2)
    msg = image(new_message, np.tile(tile, (6, 7)), f'bayer_{pattern}8', pad=4)
    decoded = decode_image(msg, camera(IMAGE, (12, 14)))
    np.testing.assert_array_equal(decoded[2:-2, 2:-2], np.broadcast_to((200, 100, 30), (8, 10, 3)))


def test_yuv_422(new_message: NewMessage) -> None:
    uyvy = np.tile(np.array([[128, 77], [128, 77]], np.uint8), (6, 4, 1))
    assert (decode_image(image(new_message, uyvy, 'yuv422'), camera(IMAGE, (6, 8))) == 71).all()
    yuyv = uyvy[:, :, ::-1]
    assert (
        decode_image(image(new_message, yuyv, 'yuv422_yuy2'), camera(IMAGE, (6, 8))) == 71
    ).all()


def test_cv_bridge_and_the_table_give_the_same_pixels(
    new_message: NewMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for encoding, (_, channels, _) in image_decoding._ENCODINGS.items():
        kind = image_decoding._ENCODINGS[encoding][0]
        shape = (12, 14) if channels == 1 else (12, 14, channels)
        pixels = RNG.integers(0, 200, shape).astype(kind)
        msg = image(new_message, pixels, encoding, pad=8)
        first = decode_image(msg, camera(IMAGE, (12, 14)))
        with monkeypatch.context() as patch:
            patch.setattr(image_decoding, '_cv_bridge_agrees', lambda encoding: False)
            np.testing.assert_array_equal(decode_image(msg, camera(IMAGE, (12, 14))), first)


def test_cv_bridge_is_used_where_it_is_installed() -> None:
    pytest.importorskip('cv_bridge', reason='cv_bridge is not installed')
    assert image_decoding._cv_bridge_agrees('bgr8')
    assert not image_decoding._cv_bridge_agrees('16UC1')


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
    kind, channels, _ = image_decoding._ENCODINGS[encoding]
    row = width * channels * np.dtype(kind).itemsize
    needed = (step or row) * (height - 1) + row
    if height and width and row <= (step or row) and needed <= length:
        assert decode_image(msg, camera(IMAGE, (8, 8))).shape == (8, 8, 3)
    else:
        with pytest.raises(DecodeError):
            decode_image(msg, camera(IMAGE, (8, 8)))


def test_unknown_encodings_and_types_list_the_known_ones(new_message: NewMessage) -> None:
    with pytest.raises(DecodeError, match=r"'h264'; supported: rgb8, bgr8"):
        decode_image(image(new_message, RGB, 'h264'), camera(IMAGE, (6, 8)))
    with pytest.raises(DecodeError, match='supported: sensor_msgs/msg/Image'):
        decode_image(new_message(JOINT_STATE), camera(JOINT_STATE, (6, 8)))


def test_resize_is_the_mean_of_the_area(new_message: NewMessage) -> None:
    pixels = RNG.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    decoded = decode_image(image(new_message, pixels, 'rgb8'), camera(IMAGE, (8, 12)))
    mean = pixels.reshape(8, 4, 12, 4, 3).mean(axis=(1, 3))
    assert np.abs(decoded - mean).max() <= 0.51
    assert decode_image(image(new_message, pixels, 'rgb8'), camera(IMAGE, (64, 9))).shape == (
        64,
        9,
        3,
    )


# --- compressed images ------------------------------------------------------------------------

SMOOTH = cv2.resize(RGB, (64, 48), interpolation=cv2.INTER_CUBIC)


def test_jpeg_and_png(new_message: NewMessage) -> None:
    for format in ('jpeg', 'rgb8; jpeg compressed bgr8', ''):
        msg = compressed(new_message, encode('.jpg', SMOOTH[:, :, ::-1]), format)
        decoded = decode_image(msg, camera(COMPRESSED_IMAGE, (48, 64)))
        assert np.abs(decoded.astype(int) - SMOOTH).mean() < 8
    msg = compressed(new_message, encode('.png', SMOOTH[:, :, ::-1]), 'png')
    np.testing.assert_array_equal(decode_image(msg, camera(COMPRESSED_IMAGE, (48, 64))), SMOOTH)
    msg = compressed(new_message, encode('.png', GREY), 'mono8; png compressed ')
    np.testing.assert_array_equal(
        decode_image(msg, camera(COMPRESSED_IMAGE, (6, 8))), np.dstack([GREY] * 3)
    )


def test_sixteen_bit_png_is_grey_or_depth_as_its_format_says(new_message: NewMessage) -> None:
    pixels = np.full((8, 8), 1000, np.uint16)
    png = encode('.png', pixels)
    grey = decode_image(compressed(new_message, png, 'mono16; png compressed '),
                        camera(COMPRESSED_IMAGE, (8, 8)))  # fmt: skip
    assert (grey == 4).all()
    depth = decode_image(compressed(new_message, png, '16UC1; png compressed '),
                         camera(COMPRESSED_IMAGE, (8, 8)))  # fmt: skip
    assert (depth == 128).all()


@pytest.mark.parametrize('extension', ['.jpg', '.png'])
def test_truncated_images_are_refused_wherever_they_end(
    new_message: NewMessage, extension: str
) -> None:
    data = encode(extension, SMOOTH)
    for end in [*range(0, len(data) - 10, 37), len(data) - 10]:
        with pytest.raises(DecodeError):
            decode_image(
                compressed(new_message, data[:end], 'x'), camera(COMPRESSED_IMAGE, (48, 64))
            )


def test_bytes_after_the_end_do_not_matter(new_message: NewMessage) -> None:
    data = encode('.jpg', SMOOTH)
    plain = decode_image(compressed(new_message, data, 'jpeg'), camera(COMPRESSED_IMAGE, (48, 64)))
    padded = compressed(new_message, data + bytes(64), 'jpeg')
    np.testing.assert_array_equal(decode_image(padded, camera(COMPRESSED_IMAGE, (48, 64))), plain)


@given(st.binary(max_size=80), st.sampled_from(['', 'jpeg', '16UC1; compressedDepth png']))
def test_garbage_is_a_decode_error(data: bytes, format: str) -> None:
    for head in (b'', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'):
        msg = SimpleNamespace(data=head + data + b'IEND', format=format)
        with pytest.raises(DecodeError):
            decode_image(msg, camera(COMPRESSED_IMAGE, (8, 8)))


def test_a_png_that_asks_for_too_much_is_refused_before_memory_is_taken() -> None:
    png = bytearray(encode('.png', SMOOTH))
    png[16:24] = struct.pack('>II', 2**31 - 1, 2**31 - 1)  # width, height
    chunk = b'\x89PNG\r\n\x1a\n' + struct.pack('>I4s', 2**31 - 1, b'IHDR') + bytes(64)
    for data in (bytes(png), chunk):
        with pytest.raises(DecodeError, match='truncated or damaged'):
            decode_image(
                SimpleNamespace(data=data, format='png'), camera(COMPRESSED_IMAGE, (8, 8))
            )


def test_compressed_depth_has_a_header_of_twelve_bytes(new_message: NewMessage) -> None:
    millimetres = np.array([[0, 500], [1000, 4000]], np.uint16).repeat(4, 0).repeat(4, 1)
    header = struct.pack('<iff', 0, 0.0, 0.0)
    msg = compressed(
        new_message, header + encode('.png', millimetres), '16UC1; compressedDepth png'
    )
    raw = decode_image(image(new_message, millimetres, '16UC1'), camera(IMAGE, (8, 8)))
    np.testing.assert_array_equal(decode_image(msg, camera(COMPRESSED_IMAGE, (8, 8))), raw)

    # 32FC1 is stored as inverse depth A / z + B.
    quant_a, quant_b = 100.0 * 101.0, -100.0
    metres = np.array([[0.5, 1.0], [2.0, 4.0]], np.float32).repeat(4, 0).repeat(4, 1)
    inverse = np.rint(quant_a / metres + quant_b).astype(np.uint16)
    header = struct.pack('<iff', 0, quant_a, quant_b)
    msg = compressed(new_message, header + encode('.png', inverse), '32FC1; compressedDepth png')
    decoded = decode_image(msg, camera(COMPRESSED_IMAGE, (8, 8)))
    assert decoded[::4, ::4, 0].tolist() == [[170, 128], [85, 51]]


def test_compressed_depth_that_cannot_be_read(new_message: NewMessage) -> None:
    colour = struct.pack('<iff', 0, 0.0, 0.0) + encode('.png', SMOOTH)
    for data, format, expected in [
        (b'short', '16UC1; compressedDepth', '12 bytes'),
        (bytes(40), '16UC1; compressedDepth rvl', 'rvl.*png'),
        (colour, '16UC1; compressedDepth', 'needed: 16-bit grey'),
    ]:
        with pytest.raises(DecodeError, match=expected):
            decode_image(compressed(new_message, data, format), camera(COMPRESSED_IMAGE, (8, 8)))


# --- numbers ----------------------------------------------------------------------------------


def joint_state(new: NewMessage, names: list[str], **arrays: list[float]) -> Any:
    msg = new(JOINT_STATE)
    msg.name = names
    for name, values in arrays.items():
        set_array(msg, name, values)
    return msg


def test_joints_are_found_by_name_whatever_their_order(new_message: NewMessage) -> None:
    names = ['left/arm.joint_1', 'a', 'a.b', '0', 'position.x']
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        msg = joint_state(
            new_message, [names[i] for i in order], position=[values[i] for i in order]
        )
        fields = [f'position.{name}' for name in names]
        np.testing.assert_array_equal(decode_state(msg, JOINT_STATE, fields), values)


def test_kinds_of_joint_values(new_message: NewMessage) -> None:
    msg = joint_state(new_message, ['a', 'b'], position=[1.0, 2.0], velocity=[3.0, 4.0],
                      effort=[5.0, 6.0])  # fmt: skip
    fields = ['effort.b', 'velocity.a', 'position.b']
    np.testing.assert_array_equal(decode_state(msg, JOINT_STATE, fields), [6.0, 3.0, 2.0])
    assert fields_of(msg, JOINT_STATE)[:2] == ('position.a', 'position.b')


def test_what_a_joint_state_lacks_is_named_with_what_it_holds(new_message: NewMessage) -> None:
    msg = joint_state(new_message, ['a', 'b'], position=[1.0])
    with pytest.raises(DecodeError, match=r'no position\.b, velocity\.a; it holds: position\.a$'):
        decode_state(msg, JOINT_STATE, ['position.a', 'position.b', 'velocity.a'])
    assert holds(msg, JOINT_STATE, ['position.a'])
    assert not holds(msg, JOINT_STATE, ['position.a', 'position.b'])


def test_unnamed_joints_only_by_index(new_message: NewMessage) -> None:
    msg = joint_state(new_message, [], position=[0.25, 0.5])
    with pytest.raises(DecodeError, match='it holds: none'):
        decode_state(msg, JOINT_STATE, ['position.0'])
    fields = ['position.1', 'position.0']
    np.testing.assert_array_equal(decode_state(msg, JOINT_STATE, fields, True), [0.5, 0.25])
    with pytest.raises(DecodeError, match=r'no position\.2; it holds: position\.0, position\.1'):
        decode_state(msg, JOINT_STATE, ['position.2'], True)


@given(st.lists(st.text(min_size=1, max_size=5), unique=True, min_size=1, max_size=6), st.data())
def test_any_selection_of_any_joints(names: list[str], data: st.DataObject) -> None:
    floats = st.floats(allow_nan=False)
    values = data.draw(st.lists(floats, min_size=len(names), max_size=len(names)))
    chosen = data.draw(st.lists(st.sampled_from(names)))
    msg = SimpleNamespace(name=names, position=values, velocity=[], effort=[])
    decoded = decode_state(msg, JOINT_STATE, [f'position.{name}' for name in chosen])
    assert decoded.tolist() == [values[names.index(name)] for name in chosen]
    assert decoded.dtype == np.float64


def test_the_other_number_types(new_message: NewMessage) -> None:
    twist = new_message('geometry_msgs/msg/TwistStamped')
    twist.twist.linear.x, twist.twist.angular.z = 0.5, -1.5
    fields = ['angular.z', 'linear.x', 'linear.y']
    expected = [-1.5, 0.5, 0.0]
    assert decode_state(twist, 'geometry_msgs/msg/TwistStamped', fields).tolist() == expected
    assert decode_state(twist.twist, 'geometry_msgs/msg/Twist', fields).tolist() == expected
    pose = new_message('geometry_msgs/msg/PoseStamped')
    pose.pose.position.y, pose.pose.orientation.w = 2.0, 0.5
    fields = ['position.y', 'orientation.w']
    assert decode_state(pose, 'geometry_msgs/msg/PoseStamped', fields).tolist() == [2.0, 0.5]
    for kind in ('Float32', 'Float64'):
        scalar = new_message(f'std_msgs/msg/{kind}')
        scalar.data = 0.25
        assert decode_state(scalar, f'std_msgs/msg/{kind}', ['data']).tolist() == [0.25]
        array = new_message(f'std_msgs/msg/{kind}MultiArray')
        set_array(array, 'data', [0.5, 0.25])
        type = f'std_msgs/msg/{kind}MultiArray'
        assert decode_state(array, type, ['1', '0']).tolist() == [0.25, 0.5]
        with pytest.raises(DecodeError, match='no 2; it holds: 0, 1'):
            decode_state(array, type, ['2'])
    flag = new_message('std_msgs/msg/Bool')
    flag.data = True
    assert decode_state(flag, 'std_msgs/msg/Bool', ['data']).tolist() == [1.0]


def test_a_trajectory_is_its_first_point(new_message: NewMessage) -> None:
    msg = new_message(JOINT_TRAJECTORY)
    msg.joint_names = ['b.x', 'a/y', 'short']
    with pytest.raises(DecodeError, match='it holds: none'):
        decode_state(msg, JOINT_TRAJECTORY, ['a/y'])
    for positions in ([1.0, 2.0], [9.0, 9.0]):
        point = new_message('trajectory_msgs/msg/JointTrajectoryPoint')
        set_array(point, 'positions', positions)
        msg.points = [*msg.points, point]
    assert decode_state(msg, JOINT_TRAJECTORY, ['a/y', 'b.x']).tolist() == [2.0, 1.0]
    assert not holds(msg, JOINT_TRAJECTORY, ['short'])


def test_unsupported_types_list_the_supported_ones(new_message: NewMessage) -> None:
    with pytest.raises(DecodeError, match='supported: sensor_msgs/msg/JointState'):
        decode_state(new_message('std_msgs/msg/String'), 'std_msgs/msg/String', ['data'])
