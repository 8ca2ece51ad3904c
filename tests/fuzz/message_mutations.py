"""Damage what messages say, inside a storage that is whole: these inputs get past every checksum.

Each way takes the rows of a hand-made bag and changes some: payloads, pictures, stamps, joints,
events, declared steps; `damage_texts` changes what the storage says about topics and types.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from byte_mutations import damage, huge_number
from made_bags import (
    ARRAY,
    EVENT,
    JOINTS,
    JPEG,
    MS,
    STEP,
    STORE,
    T0,
    TRAJECTORY,
    Bag,
    header,
    jpeg,
    make,
    time,
)
from made_storages import Recording, TopicText
from numpy.random import Generator
from text_mutations import ODD_WORDS
from text_mutations import WAYS as TEXT_WAYS

IMAGE = 'sensor_msgs/msg/Image'
FLOATS = (np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-320, 1e39, -0.0, 1e9)
STAMPS_NS = (0, 1, -1, -(2**31) * 10**9, (2**31 - 1) * 10**9 + 999_999_999, 10**9, T0 - 10**18)
LOGS_NS = (0, 1, 2**62, 2**63 - 1, 2**64 - 1, T0 - 10**15, T0 + 10**17, T0 + 3600 * 10**9)
WORDS = (*ODD_WORDS, '', 'e', 'made', 'success', 'failure', 'teleop', 'x' * 70_000, '.', '..')
SIDES = (0, 1, 2, 15, 17, 255, 65_535, 2**31 - 1, 2**32 - 1)
ENCODINGS = (
    *(
        'rgb8',
        'bgr8',
        'rgba8',
        'bgra8',
        'mono8',
        'mono16',
        '16UC1',
        '32FC1',
        'bayer_rggb8',
        '8UC3',
    ),
    *('bayer_gbrg8', 'yuv422', 'yuyv', 'uyvy', '64FC4', 'nv12', 'RGB8', '', 'rgb8 ', '\x00'),
)
FORMATS = (
    *('jpeg', 'png', '', 'rgb8; jpeg compressed bgr8', '16UC1; compressedDepth png', 'h264'),
    *(
        '32FC1; compressedDepth png',
        '16UC1; compressedDepth rvl',
        '16UC1; png compressed ',
        'tiff',
    ),
)


def _header(log_ns: int) -> Any:
    """Return a header with the stamp `log_ns`, or the nearest that its 32 bits can say."""
    return header(min(max(log_ns, -(2**31) * 10**9), (2**31 - 1) * 10**9))


def _word(rng: Generator) -> str:
    # CDR strings are UTF-8; what is no text at all comes from damaged bytes instead.
    return WORDS[int(rng.integers(len(WORDS)))].encode('utf-8', 'replace').decode()


def _any(rng: Generator, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def _some(bag: Bag, rng: Generator, topic: str = '') -> list[int]:
    """Return the numbers of some rows: one, a few, or all, of one topic if it is named."""
    rows = [n for n, row in enumerate(bag.rows) if not topic or row[1] == topic]
    if not rows:
        return []
    share = _any(rng, (0.0, 0.1, 0.5, 1.0))
    chosen = [n for n in rows if rng.random() < share]
    return chosen or [rows[int(rng.integers(len(rows)))]]


def payloads(bag: Bag, rng: Generator) -> None:
    """Damage serialised messages."""
    for number in _some(bag, rng):
        log_ns, topic, kind, data = bag.rows[number]
        how = int(rng.integers(5))
        if how == 0:
            data = damage(data, rng, [row[3] for row in bag.rows[:20]], most=2)
        elif how == 1:
            data = data[:4] + huge_number(data[4:], rng, ())
        elif how == 2:
            data = data[: int(rng.integers(0, len(data) + 1))]
        elif how == 3:
            data = data + rng.bytes(int(rng.integers(1, 50)))
        else:
            data = _any(
                rng, (b'', b'\0', b'\0\1', b'\0\1\0\0', bytes(8), b'\x28\xb5\x2f\xfd', data)
            )
        bag.rows[number] = (log_ns, topic, kind, data)


def order(bag: Bag, rng: Generator) -> None:
    """Drop, double and exchange messages; leave out topics."""
    how = int(rng.integers(4))
    chosen = set(_some(bag, rng))
    if how == 0:
        bag.rows = [row for n, row in enumerate(bag.rows) if n not in chosen]
    elif how == 1:
        bag.rows += [bag.rows[n] for n in sorted(chosen)]
    elif how == 2:
        topic = _any(rng, sorted({row[1] for row in bag.rows}))
        bag.rows = [row for row in bag.rows if row[1] != topic]
    else:  # one topic's messages under another one's name
        source, target = (bag.rows[int(rng.integers(len(bag.rows)))] for _ in range(2))
        bag.rows = [
            (row[0], target[1], target[2], row[3]) if row[1] == source[1] else row
            for row in bag.rows
        ]


def log_times(bag: Bag, rng: Generator) -> None:
    """Change when messages were recorded."""
    shift = _any(rng, (0, 10**9, -(10**9), 10**17, 10**13))
    for number in _some(bag, rng):
        log_ns, *rest = bag.rows[number]
        bag.rows[number] = (log_ns + shift if shift else _any(rng, LOGS_NS), *rest)


def stamps(bag: Bag, rng: Generator) -> None:
    """Change header stamps in place (they follow the 4 bytes of CDR's own header)."""
    shift = _any(rng, (0, 1, 10**9, -(10**9), 10**17, -(10**17), 3600 * 10**9))
    nanoseconds = _any(rng, (None, None, 10**9, 2**32 - 1))
    for number in _some(bag, rng):
        log_ns, topic, kind, data = bag.rows[number]
        if len(data) < 12:
            continue
        seconds, rest = divmod(log_ns + shift if shift else _any(rng, STAMPS_NS), 10**9)
        seconds = max(-(2**31), min(seconds, 2**31 - 1))
        stamp = struct.pack('<iI', seconds, rest if nanoseconds is None else nanoseconds)
        bag.rows[number] = (log_ns, topic, kind, data[:4] + stamp + data[12:])


def joints(bag: Bag, rng: Generator) -> None:
    """Change the names and the number of joints, and their values."""
    names = [_word(rng) for _ in range(int(rng.integers(0, 5)))]
    names += ['a', 'b', 'a', 'b'][: int(rng.integers(0, 5))]
    for number in _some(bag, rng, '/joint_states'):
        log_ns, topic, _, _ = bag.rows[number]
        position = rng.normal(size=int(rng.integers(0, len(names) + 2)))
        if len(position) and rng.integers(2):
            position[int(rng.integers(len(position)))] = _any(rng, FLOATS)
        message = make(JOINTS, header=_header(log_ns), name=names, position=position)
        bag.rows[number] = (log_ns, topic, JOINTS, bytes(STORE.serialize_cdr(message, JOINTS)))


def commands(bag: Bag, rng: Generator) -> None:
    """Change commands: names, lengths, values, no point at all."""
    for number in _some(bag, rng, _any(rng, ('/arm', '/gripper'))):
        log_ns, topic, kind, _ = bag.rows[number]
        values = np.array([_any(rng, FLOATS) for _ in range(int(rng.integers(0, 4)))])
        if kind == TRAJECTORY:
            point = make('trajectory_msgs/msg/JointTrajectoryPoint', positions=values)
            names = [_any(rng, ('a', 'b', _word(rng))) for _ in range(int(rng.integers(0, 4)))]
            points = [point] * int(rng.integers(0, 3))
            message = make(kind, header=_header(log_ns), joint_names=names, points=points)
        elif kind == ARRAY:
            message = make(ARRAY, data=values)
        else:
            continue
        bag.rows[number] = (log_ns, topic, kind, bytes(STORE.serialize_cdr(message, kind)))


def events(bag: Bag, rng: Generator) -> None:
    """Add and change events: kinds, ids, texts, and those that overlap or never end."""
    if rng.integers(2):
        bag.rows = [row for row in bag.rows if row[2] != EVENT]
    for _ in range(int(rng.integers(1, 8))):
        texts = {n: _word(rng) for n in ('instruction', 'outcome', 'source', 'policy_id', 'note')}
        texts['outcome'] = _any(rng, (texts['outcome'], 'success', 'aborted', 'failure'))
        texts['source'] = _any(rng, (texts['source'], 'teleop', 'policy', ''))
        kind = int(_any(rng, (0, 1, 2, 3, 4, 5, 255)))
        name = _any(rng, ('e', 'e', 'f', _word(rng)))
        bag.event(float(rng.integers(-200, 900)), kind, name, **texts)


def steps(bag: Bag, rng: Generator) -> None:
    """Add declared steps that name samples which may not be there."""
    for number in range(int(rng.integers(1, 8))):
        count = int(rng.integers(0, 3))
        message = make(
            STEP,
            header=header(T0),
            episode_id=_any(rng, ('e', '', _word(rng))),
            step=int(_any(rng, (number, 0, 2**32 - 1, 10**6))),
            tick=time(int(_any(rng, (T0 + number * 100 * MS, 0, T0 + 10**17, T0 - 10**15)))),
            streams=['front', 'joints', _word(rng)][: count + int(rng.integers(2))],
            stream_stamps=[time(T0 + int(rng.integers(0, 500)) * MS) for _ in range(count)],
            stream_valid=np.ones(count, np.uint8),
            dims=['a', 'grip', _word(rng)][:count],
            requested=[float(_any(rng, FLOATS)) for _ in range(count)],
        )
        bag.add('/policy/step', STEP, message, number * 100 + 20)


def pictures(bag: Bag, rng: Generator) -> None:
    """Damage compressed images: their bytes, their size, their format."""
    for number in _some(bag, rng, '/front'):
        log_ns, topic, _, _ = bag.rows[number]
        data = _picture(rng)
        how = int(rng.integers(3))
        if how == 0:
            data = damage(data, rng, (jpeg(9),))
        elif how == 1:
            data = _resized(data, rng)
        words = _any(rng, (*FORMATS, _word(rng)))
        message = make(
            JPEG, header=_header(log_ns), format=words, data=np.frombuffer(data, np.uint8)
        )
        bag.rows[number] = (log_ns, topic, JPEG, bytes(STORE.serialize_cdr(message, JPEG)))


def _picture(rng: Generator) -> bytes:
    side = int(_any(rng, (1, 7, 16, 64)))
    dtype = np.dtype(_any(rng, ('u1', 'u2')))
    shape = (side, side + 1, 3) if rng.integers(2) else (side, side)
    image = rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    form = _any(rng, ('.png', '.tiff', '.webp', '.bmp')) if rng.integers(3) == 0 else '.png'
    ok, data = cv2.imencode(form if dtype == np.uint16 or rng.integers(2) else '.jpg', image)
    found = data.tobytes() if ok else b''
    return struct.pack('<iff', 0, 10.0, 1.0) + found if rng.integers(4) == 0 else found


def _resized(data: bytes, rng: Generator) -> bytes:
    """Let a PNG or JPEG claim another size."""
    side = struct.pack('>I', int(_any(rng, (*SIDES, 30_000, 20_000))))
    png, frame = data.find(b'IHDR'), data.find(b'\xff\xc0')
    if png >= 0:
        at = png + 4 + 4 * int(rng.integers(2))
        return data[:at] + side + data[at + 4 :]
    if frame >= 0:
        at = frame + 5
        return data[:at] + side[2:] + (side[2:] if rng.integers(2) else b'') + data[at + 4 :]
    return data


def raw_images(bag: Bag, rng: Generator) -> None:
    """Replace the camera by one of raw images whose size, step and encoding may be wrong."""
    encoding = _any(rng, (*ENCODINGS, 'rgb8', 'rgb8', 'rgb8'))
    wrong = _any(rng, ('', '', 'height', 'width', 'step'))
    for number, (log_ns, topic, _, _) in enumerate(bag.rows):
        if topic != '/front':
            continue
        values = {wrong: int(_any(rng, SIDES))} if wrong else {}
        size = int(_any(rng, (768, 768, 768, 767, 0, 10_000)))
        values['is_bigendian'] = int(rng.integers(2))
        bag.rows[number] = raw_image(log_ns, encoding, rng.bytes(size), **values)


def raw_image(log_ns: int, encoding: str, data: bytes, **values: int) -> tuple:
    """Return the row of a 16x16 image; `values` are fields that are something else."""
    message = make(
        IMAGE,
        header=_header(log_ns),
        encoding=encoding.encode('utf-8', 'replace').decode(),
        data=np.frombuffer(data, np.uint8),
        **{'height': 16, 'width': 16, 'step': 48, **values},
    )
    return log_ns, '/front', IMAGE, bytes(STORE.serialize_cdr(message, IMAGE))


MessageMutation = Callable[[Bag, Generator], None]
WAYS: tuple[MessageMutation, ...] = (
    *(payloads, payloads, order, log_times, stamps, stamps, joints, commands, events, events),
    *(steps, steps, pictures, pictures, pictures, raw_images),
)


def damage_messages(bag: Bag, rng: Generator, most: int = 3) -> None:
    """Apply one to `most` ways of damage to the rows of a bag, in place."""
    for _ in range(int(rng.integers(1, most + 1))):
        if bag.rows:
            WAYS[int(rng.integers(len(WAYS)))](bag, rng)


def damage_texts(source: Recording, rng: Generator) -> Recording:
    """Change what the storage says about one to all of its topics: type, definition, encoding."""
    topics = dict(source.topics)
    for name in list(topics):
        if rng.integers(3) == 0:
            topics[name] = _other_text(topics[name], list(topics.values()), rng)
    return replace(source, topics=topics)


def _other_text(text: TopicText, known: list[TopicText], rng: Generator) -> TopicText:
    other = _any(rng, known)
    how = int(rng.integers(7))
    if how == 0:
        return replace(text, type=_any(rng, (other.type, _word(rng)[:1000])))
    if how == 1:
        return replace(text, encoding=_any(rng, ('ros1', 'protobuf', 'json', 'CDR', '', 'cbor')))
    if how == 2:
        return replace(text, definition=other.definition)
    if how == 3:
        return replace(text, form=_any(rng, ('ros2idl', 'ros1msg', 'jsonschema', '', 'protobuf')))
    if how == 4:
        return replace(text, definition=_any(rng, DEFINITIONS))
    definition = text.definition
    for _ in range(int(rng.integers(1, 4))):
        definition = _any(rng, TEXT_WAYS)(definition, rng)
    return replace(text, definition=definition.encode('utf-8', 'replace').decode())


DEFINITIONS = (
    '',
    'float64[2000000000] position',
    'string<=4 name\nbool[<=3] b\nwstring w',
    'a/msg/B b\n'
    + '=' * 80
    + '\nMSG: a/msg/B\na/msg/C c\n'
    + '=' * 80
    + '\nMSG: a/msg/C\na/msg/B b',
    'std_msgs/Header header\n' * 400,
    'uint8 X=99999999999\nstring Y="a\nuint8 z',
    'int32 class\nint32 def\nint32 None\nint32 __init__\nint32 self',
    'import os\nint32 x',
    'int32 x = __import__("os").system("true")',
    'byte[' + '9' * 300 + '] x',
)
