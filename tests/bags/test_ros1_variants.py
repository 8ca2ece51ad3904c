"""ROS 1 bags: compressed, cut off, without an index, of a recorder that crashed."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from rosbags.rosbag1 import Writer
from rosbags.typesys import Stores, get_typestore

from qt_ros.bags.inspect import inspect_bag
from qt_ros.bags.reader import BagReader
from qt_ros.bags.records import ROS1, TopicInfo
from qt_ros.bags.types import deserialize

STORE = get_typestore(Stores.ROS1_NOETIC)
KIND = 'std_msgs/msg/Int32'
CHUNK = 5  # the operation code of a chunk's record


def write(path: Path, compression: str = '', count: int = 300) -> Path:
    unopened = Writer(path)
    unopened.chunk_threshold = 1000
    if compression:
        unopened.set_compression(Writer.CompressionFormat[compression])
    with unopened as writer:
        connection = writer.add_connection('/n', KIND, typestore=STORE)
        for n in range(count):
            writer.write(connection, 10**18 + n * 10**6, struct.pack('<i', n))
    return path


def numbers(path: Path) -> list[int]:
    with BagReader(path) as bag:
        records = list(bag.messages())
        assert list(bag.fetch(r.ordinal for r in records[::3])) == records[::3]
        assert bag.count == len(records)
        return [int.from_bytes(r.data, 'little') for r in records]


def records_of(data: bytes) -> list[tuple[int, int, int]]:
    """(offset, operation, end) of each top-level record."""
    found, at = [], data.index(b'\n') + 1
    while at < len(data):
        (head,) = struct.unpack_from('<I', data, at)
        (length,) = struct.unpack_from('<I', data, at + 4 + head)
        operation = data[data.index(b'op=', at) + 3]
        end = at + 8 + head + length
        found.append((at, operation, end))
        at = end
    return found


@pytest.mark.parametrize('compression', ['', 'LZ4', 'BZ2'])
def test_every_compression(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / 'a.bag', compression)
    assert sum(op == CHUNK for _, op, _ in records_of(path.read_bytes())) > 3
    assert numbers(path) == list(range(300))
    found = inspect_bag(path)
    assert (found['storage'], found['partial'], found['problems']) == ('ros1', False, [])
    assert found['topics']['/n']['decodes']
    assert found['duration_s'] == pytest.approx(0.299)


@pytest.mark.parametrize('compression', ['', 'LZ4', 'BZ2'])
def test_cut_off_anywhere(tmp_path: Path, compression: str) -> None:
    whole = write(tmp_path / 'a.bag', compression).read_bytes()
    counts = []
    for cut in range(20, len(whole), 211):
        path = tmp_path / 'b.bag'
        path.write_bytes(whole[:cut])
        got = numbers(path)
        assert got == list(range(len(got)))
        counts.append(len(got))
    assert counts == sorted(counts)
    assert counts[-1] == 300
    assert len(set(counts)) > 4


def test_a_recorder_that_crashed_leaves_an_active_file_without_an_index(tmp_path: Path) -> None:
    """Its last chunk's head still claims no bytes, and the messages lie bare behind it."""
    data = write(tmp_path / 'a.bag').read_bytes()
    chunks = [(at, end) for at, op, end in records_of(data) if op == CHUNK]
    start, end = chunks[-1]
    cut = bytearray(data[:end])
    (head,) = struct.unpack_from('<I', cut, start)
    struct.pack_into('<I', cut, start + 4 + head, 0)
    size = cut.index(b'size=', start) + 5
    struct.pack_into('<I', cut, size, 0)
    folder = tmp_path / 'takes'
    folder.mkdir()
    (folder / 'take_1.bag.active').write_bytes(cut)
    assert numbers(folder) == list(range(300))
    assert numbers(folder / 'take_1.bag.active') == list(range(300))


def test_a_damaged_chunk_costs_itself_only(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / 'a.bag', 'LZ4').read_bytes())
    start, end = [(at, end) for at, op, end in records_of(data) if op == CHUNK][2]
    data[(start + end) // 2 + 30 : end - 5] = bytes(end - 5 - (start + end) // 2 - 30)
    (tmp_path / 'b.bag').write_bytes(data)
    got = numbers(tmp_path / 'b.bag')
    assert got == sorted(set(got))
    assert 200 < len(got) < 300
    assert got[-1] == 299
    with BagReader(tmp_path / 'b.bag') as bag:
        assert bag.partial


def test_a_message_may_begin_like_a_compressed_frame(tmp_path: Path) -> None:
    with Writer(tmp_path / 'a.bag') as writer:
        connection = writer.add_connection('/n', KIND, typestore=STORE)
        for magic in (b'\x28\xb5\x2f\xfd', b'\x04\x22\x4d\x18'):
            writer.write(connection, 10**18, magic)
    with BagReader(tmp_path / 'a.bag') as bag:
        assert [r.data for r in bag.messages()] == [b'\x28\xb5\x2f\xfd', b'\x04\x22\x4d\x18']
        assert not bag.problems


def test_constants_of_any_case_are_no_fields(real_bags: Path) -> None:
    """ROS 1 allows `int8 kUnknown = 0`; taken for a field it shifts everything behind it."""
    path = real_bags / 'teleop_rigs/rig_18_ros1_depth.bag'
    with BagReader(path) as bag:
        (record,) = bag.messages(['/leju_claw_state'])
        message = deserialize(bag.topics['/leju_claw_state'], record.data)
    assert message.header.frame_id == 'leju_claw'
    assert message.state.tolist() == [1, 1]
    assert message.data.name == ['left_claw', 'right_claw']
    assert message.data.position.tolist() == pytest.approx([4.8470, 4.7006], abs=1e-3)
    found = inspect_bag(path)
    assert all(entry['decodes'] for entry in found['topics'].values())
    assert found['problems'] == []


def test_ros1_messages_are_not_read_by_definitions_of_ros2() -> None:
    """Headers of ROS 1 begin with a count: what nests one must not be completed from ROS 2."""
    text = 'std_msgs/Header header\nint32 x\n'  # the header's own definition is left out
    info = TopicInfo('my_msgs/msg/Stamped', 1, ROS1, text, 'ros1msg')
    data = struct.pack('<IIII', 9, 7, 5, 1) + b'f' + struct.pack('<i', -3)
    message = deserialize(info, data)
    assert (message.header.seq, message.header.stamp.sec, message.x) == (9, 7, -3)
    bare = TopicInfo('geometry_msgs/msg/PointStamped', 1, ROS1, '', 'ros1msg')
    data = struct.pack('<IIII', 9, 7, 5, 0) + struct.pack('<ddd', 1, 2, 3)
    assert deserialize(bare, data).point.z == 3
