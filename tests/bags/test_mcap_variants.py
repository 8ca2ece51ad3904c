"""MCAP files of other writers, and files damaged in ways that must cost the damaged part only."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.records import Footer
from mcap.writer import CompressionType, IndexType, Writer

from qt_ros.bags.inspect import inspect_bag
from qt_ros.bags.reader import BagReader
from qt_ros.bags.types import deserialize
from qt_ros.errors import BagError

HEAD = b'\x00\x01\x00\x00'
INT = ('std_msgs/msg/Int32', 'ros2msg', b'int32 data')
FLOAT = ('std_msgs/msg/Float32', 'ros2msg', b'float32 data')


def numbers(path: Path) -> list[int]:
    """What was sent on /n, as far as it can be read."""
    with BagReader(path) as bag:
        return [int.from_bytes(r.data[4:8], 'little') for r in bag.messages(['/n'])]


def write(path: Path, count: int = 200, each: int = 10, **options: object) -> Path:
    """Write 0 .. count - 1 to /n, about `each` messages a chunk."""
    with path.open('wb') as file:
        writer = Writer(file, chunk_size=each * 40, **options)  # type: ignore[arg-type]
        writer.start()
        channel = writer.register_channel('/n', 'cdr', writer.register_schema(*INT))
        for n in range(count):
            writer.add_message(channel, n * 10**6, HEAD + struct.pack('<i', n), n * 10**6)
        writer.finish()
    return path


def test_other_encodings_beside_cdr_are_listed_and_left_alone(tmp_path: Path) -> None:
    with (tmp_path / 'a.mcap').open('wb') as file:
        writer = Writer(file)
        writer.start(profile='', library='somebody else')
        json_schema = writer.register_schema('foxglove.Pose', 'jsonschema', b'{}')
        proto_schema = writer.register_schema('foxglove.Image', 'protobuf', b'\x0a\x00')
        channels = [
            writer.register_channel('/pose', 'json', json_schema),
            writer.register_channel('/image', 'protobuf', proto_schema),
            writer.register_channel('/bare', 'json', 0),  # without a schema
            writer.register_channel('/n', 'cdr', writer.register_schema(*INT)),
        ]
        for n, channel in enumerate(channels * 3):
            writer.add_message(channel, n, HEAD + struct.pack('<i', n), n)
            writer.add_attachment(n, n, 'calibration.yaml', 'text/yaml', b'x' * 100)
            writer.add_metadata(f'note {n}', {'operator': 'Jo'})
        writer.finish()
    found = inspect_bag(tmp_path / 'a.mcap')
    assert {name: entry['count'] for name, entry in found['topics'].items()} == dict.fromkeys(
        ('/pose', '/image', '/bare', '/n'), 3
    )
    decodes = [name for name, entry in found['topics'].items() if entry['decodes']]
    assert decodes == ['/n']
    said = ' '.join(found['problems'])
    assert "encoded as 'json'" in said
    assert "encoded as 'protobuf'" in said
    assert not found['partial']
    assert numbers(tmp_path / 'a.mcap') == [3, 7, 11]
    with BagReader(tmp_path / 'a.mcap') as bag:
        assert bag.metadata['note 0/operator'] == 'Jo'


def test_two_channels_of_one_topic_count_together(tmp_path: Path) -> None:
    with (tmp_path / 'a.mcap').open('wb') as file:
        writer = Writer(file)
        writer.start()
        schemas = [
            writer.register_schema(*INT),
            writer.register_schema('std_msgs/Int32', *INT[1:]),
        ]
        channels = [writer.register_channel('/n', 'cdr', schema) for schema in schemas]
        for n in range(10):
            writer.add_message(channels[n % 2], n, HEAD + struct.pack('<i', n), n)
        writer.finish()
    assert numbers(tmp_path / 'a.mcap') == list(range(10))
    assert inspect_bag(tmp_path / 'a.mcap')['problems'] == []


def test_two_types_on_one_topic_are_two_topics(tmp_path: Path) -> None:
    with (tmp_path / 'a.mcap').open('wb') as file:
        writer = Writer(file)
        writer.start()
        channels = [
            writer.register_channel('/n', 'cdr', writer.register_schema(*kind))
            for kind in (INT, FLOAT)
        ]
        for n in range(10):
            data = struct.pack('<f', n / 2) if n % 2 else struct.pack('<i', n)
            writer.add_message(channels[n % 2], n, HEAD + data, n)
        writer.finish()
    other = '/n [std_msgs/msg/Float32 cdr]'
    with BagReader(tmp_path / 'a.mcap') as bag:
        assert {name: info.count for name, info in bag.topics.items()} == {'/n': 5, other: 5}
        values = [deserialize(bag.topics[r.topic], r.data).data for r in bag.messages()]
        assert values == [0, 0.5, 2, 1.5, 4, 2.5, 6, 3.5, 8, 4.5]
        fetched = list(bag.fetch(range(10)))
        assert [r.topic for r in fetched] == ['/n', other] * 5
        assert not bag.partial
        assert any('/n comes as' in problem for problem in bag.problems)


@pytest.mark.parametrize('compress', [zstandard.ZstdCompressor().compress, lz4.frame.compress])
def test_messages_compressed_one_by_one_within_chunks(tmp_path: Path, compress) -> None:
    with (tmp_path / 'a.mcap').open('wb') as file:
        writer = Writer(file)
        writer.start()
        channel = writer.register_channel('/n', 'cdr', writer.register_schema(*INT))
        for n in range(10):
            writer.add_message(channel, n, compress(HEAD + struct.pack('<i', n)), n)
        writer.finish()
    assert numbers(tmp_path / 'a.mcap') == list(range(10))


@pytest.mark.parametrize('index', [IndexType.NONE, IndexType.ALL])
@pytest.mark.parametrize('repeat', [True, False])
def test_a_summary_without_names_or_indices(
    tmp_path: Path, index: IndexType, repeat: bool
) -> None:
    path = write(
        tmp_path / 'a.mcap',
        index_types=index,
        repeat_channels=repeat,
        repeat_schemas=repeat,
        compression=CompressionType.LZ4,
    )
    with BagReader(path) as bag:
        assert bag.resolve('/n') == '/n'
        assert bag.topics['/n'].type == INT[0]
        assert not bag.problems
    assert numbers(path) == list(range(200))


def chunk_starts(data: bytes) -> list[int]:
    starts, at = [], 8
    while at < len(data) - 8:
        opcode, length = struct.unpack_from('<BQ', data, at)
        starts += [at] if opcode == 6 else []
        at += 9 + length
    return starts


@pytest.mark.parametrize('place', [0, 1, 3, 8])  # opcode; low, middle and high byte of the length
@pytest.mark.parametrize('bit', [1, 0x40, 0x80])
def test_a_damaged_record_head_costs_one_chunk(tmp_path: Path, place: int, bit: int) -> None:
    path = write(tmp_path / 'a.mcap', compression=CompressionType.NONE)
    data = bytearray(path.read_bytes())
    starts = chunk_starts(data)
    assert len(starts) > 10
    data[starts[5] + place] ^= bit
    path.write_bytes(data)
    got = numbers(path)
    lost = sorted(set(range(200)) - set(got))
    assert got == sorted(got)
    assert len(lost) <= 12, 'one chunk'
    with BagReader(path) as bag:
        assert list(bag.fetch(r.ordinal for r in bag.messages())) == list(bag.messages())
        assert bag.partial == bool(lost)


def test_a_summary_that_lies_is_corrected(tmp_path: Path) -> None:
    path = write(tmp_path / 'a.mcap', enable_crcs=False)
    data = path.read_bytes()
    at = data.rindex(struct.pack('<HQ', 1, 200))  # the count of channel 1 in the statistics
    total = data.rindex(struct.pack('<Q', 200), 0, at)
    changed = bytearray(data)
    changed[at + 2 : at + 10] = changed[total : total + 8] = struct.pack('<Q', 500)
    path.write_bytes(changed)
    with BagReader(path) as bag:
        assert len(list(bag.messages())) == 200
        assert bag.count == 200
        assert any('500' in problem and '200' in problem for problem in bag.problems)


def test_a_summary_with_a_wrong_checksum_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path / 'a.mcap')
    data = bytearray(path.read_bytes())
    footer = Footer.read(_stream(data[-28:-8]))
    name = data.index(b'/n', footer.summary_start)
    data[name + 1 : name + 2] = b'm'
    path.write_bytes(data)
    assert numbers(path) == list(range(200))


def test_a_topic_that_only_the_data_knows(tmp_path: Path) -> None:
    path = write(tmp_path / 'a.mcap', enable_crcs=False)
    data = bytearray(path.read_bytes())
    footer = Footer.read(_stream(data[-28:-8]))
    name = data.index(b'/n', footer.summary_start)
    data[name + 1 : name + 2] = b'm'  # the summary and the data disagree, and nobody can tell
    path.write_bytes(data)
    with BagReader(path) as bag:
        assert len(list(bag.messages())) == bag.count == 200


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_record_cut_out_or_doubled_leaves_the_rest(data: st.DataObject) -> None:
    """Records of another recorder's file may come in any order, twice or not at all."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / 'a.mcap', count=40, compression=CompressionType.NONE)
        whole = path.read_bytes()
        records, at = [], 8
        while at < len(whole) - 8:
            _, length = struct.unpack_from('<BQ', whole, at)
            records.append(whole[at : at + 9 + length])
            at += 9 + length
        picked = data.draw(st.lists(st.integers(0, len(records) - 1), max_size=len(records)))
        path.write_bytes(whole[:8] + b''.join(records[n] for n in picked) + whole[-8:])
        try:
            with BagReader(path) as bag:
                got = list(bag.messages())
                assert bag.count == len(got)
                assert list(bag.fetch(r.ordinal for r in got)) == got
        except BagError:
            assert not any(records[n][0] in (3, 4, 5, 6) for n in picked)


@pytest.mark.parametrize(
    ('encapsulation', 'name'),
    [(0x02, 'PL_CDR'), (0x03, 'PL_CDR'), (0x07, 'XCDR2'), (0x11, 'XCDR2'), (0x0B, 'PL_CDR2')],
)
def test_other_encapsulations_are_named(tmp_path: Path, encapsulation: int, name: str) -> None:
    with (tmp_path / 'a.mcap').open('wb') as file:
        writer = Writer(file)
        writer.start()
        channel = writer.register_channel('/n', 'cdr', writer.register_schema(*INT))
        writer.add_message(channel, 1, bytes((0, encapsulation, 0, 0)) + b'\1\0\0\0', 1)
        writer.finish()
    found = inspect_bag(tmp_path / 'a.mcap')
    assert not found['topics']['/n']['decodes']
    assert any(f'as {name}' in problem for problem in found['problems'])


def test_big_endian_messages(tmp_path: Path) -> None:
    from made_bags import JOINTS, STORE, header, make

    message = make(JOINTS, header=header(7 * 10**9), name=['a'], position=[1.5], effort=[-2.5])
    big = bytes(STORE.serialize_cdr(message, JOINTS, little_endian=False))
    with (tmp_path / 'a.mcap').open('wb') as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema(JOINTS, 'ros2msg', b'')
        writer.add_message(writer.register_channel('/j', 'cdr', schema), 1, big, 1)
        writer.finish()
    with BagReader(tmp_path / 'a.mcap') as bag:
        (record,) = bag.messages()
        got = deserialize(bag.topics['/j'], record.data)
    assert (got.position.tolist(), got.effort.tolist(), got.name) == ([1.5], [-2.5], ['a'])
    offset = inspect_bag(tmp_path / 'a.mcap')['topics']['/j']['header_minus_log_ms']
    assert offset['median'] == pytest.approx(7000.0)


def test_ros1_messages_in_mcap(tmp_path: Path, real_bags: Path) -> None:
    """As `mcap convert` makes them of a ROS 1 bag."""
    with BagReader(real_bags / 'teleop_rigs/rig_18_ros1_depth.bag') as bag:
        before = list(bag.messages())
        with (tmp_path / 'a.mcap').open('wb') as file:
            writer = Writer(file)
            writer.start(profile='ros1')
            channels = {}
            for name, info in bag.topics.items():
                kind = info.type.replace('/msg/', '/')
                schema = writer.register_schema(kind, 'ros1msg', info.definition.encode())
                channels[name] = writer.register_channel(name, 'ros1', schema)
            for topic, log_ns, data, _ in before:
                writer.add_message(channels[topic], log_ns, data, log_ns)
            writer.finish()
    with BagReader(tmp_path / 'a.mcap') as bag:
        assert [record[:3] for record in bag.messages()] == [record[:3] for record in before]
    found = inspect_bag(tmp_path / 'a.mcap')
    assert all(entry['decodes'] for entry in found['topics'].values())
    assert found['topics']['/kuavo_arm_traj']['header_minus_log_ms']['median'] == pytest.approx(
        14.7, abs=0.1
    )


def _stream(data: bytes):
    from mcap.data_stream import ReadDataStream

    return ReadDataStream(io.BytesIO(bytes(data)))
