"""Storages in every state: compressed, split, damaged, truncated, with wrong metadata."""

from __future__ import annotations

import random
import resource
import shutil
import sqlite3
import struct
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from made_bags import T0, Bag, steady
from mcap.writer import CompressionType, Writer

from qt_ros.bags.finding import find_bags
from qt_ros.bags.header_stamp import peek_cdr, peek_ros1
from qt_ros.bags.index import index_bag
from qt_ros.bags.inspect import inspect_bag
from qt_ros.bags.reader import BagReader
from qt_ros.bags.records import Record
from qt_ros.bags.types import deserialize
from qt_ros.errors import BagError

DEFINITION = b'string data'


def text(value: str) -> bytes:
    """A std_msgs/String as CDR."""
    raw = value.encode() + b'\0'
    return b'\x00\x01\x00\x00' + struct.pack('<I', len(raw)) + raw


def write_mcap(path: Path, count: int = 50, **options: object) -> list[bytes]:
    """Write `count` strings to topic 'chat' (no leading '/'), profile ''."""
    sent = [text(f'message {n} ' + 'x' * 100) for n in range(count)]
    with path.open('wb') as file:
        writer = Writer(file, chunk_size=1000, **options)  # type: ignore[arg-type]
        writer.start(profile='')
        schema = writer.register_schema('std_msgs/String', 'ros2msg', DEFINITION)
        channel = writer.register_channel('chat', 'cdr', schema)
        for n, data in enumerate(sent):
            writer.add_message(channel, T0 + n, data, T0 + n)
        writer.finish()
    return sent


def read(*paths: Path) -> list[Record]:
    with BagReader(*paths) as bag:
        return list(bag.messages())


@pytest.mark.parametrize('compression', list(CompressionType))
@pytest.mark.parametrize('chunking', [True, False])
@pytest.mark.parametrize('statistics', [True, False])
def test_mcap_of_every_build(
    tmp_path: Path, compression: CompressionType, chunking: bool, statistics: bool
) -> None:
    sent = write_mcap(
        tmp_path / 'a.mcap',
        compression=compression,
        use_chunking=chunking,
        use_statistics=statistics,
        use_summary_offsets=statistics,
    )
    with BagReader(tmp_path / 'a.mcap') as bag:
        assert (bag.count, bag.partial, bag.kind) == (50, False, 'mcap')
        assert bag.topics['chat'].type == 'std_msgs/msg/String'
        assert bag.resolve('/chat') == 'chat'
        records = list(bag.messages(['/chat']))
        assert [record.data for record in records] == sent
        assert list(bag.fetch([r.ordinal for r in records[10:13]])) == records[10:13]
        assert list(bag.messages(['/other'])) == []
        assert deserialize(bag.topics['chat'], sent[3]).data.startswith('message 3 ')


@pytest.mark.parametrize('compression', list(CompressionType))
def test_a_truncated_mcap_gives_what_lies_before_the_cut(
    tmp_path: Path, compression: CompressionType
) -> None:
    chunked = compression is not CompressionType.NONE
    sent = write_mcap(tmp_path / 'a.mcap', compression=compression, use_chunking=chunked)
    whole = (tmp_path / 'a.mcap').read_bytes()
    counts = []
    for cut in range(8, len(whole), 97):
        (tmp_path / 'b.mcap').write_bytes(whole[:cut])
        with BagReader(tmp_path / 'b.mcap') as bag:
            got = [record.data for record in bag.messages()]
            assert got == sent[: len(got)]
            assert bag.count == len(got)
            assert len(got) == 50 or (bag.partial and bag.problems)
        counts.append(len(got))
    assert counts == sorted(counts)
    assert counts[-1] == 50


def test_a_flipped_byte_in_a_chunk_costs_that_chunk_only(tmp_path: Path) -> None:
    sent = write_mcap(tmp_path / 'a.mcap', compression=CompressionType.NONE)
    data = bytearray((tmp_path / 'a.mcap').read_bytes())
    place = data.index(b'message 20 ')
    data[place] ^= 1
    (tmp_path / 'a.mcap').write_bytes(data)
    with BagReader(tmp_path / 'a.mcap') as bag:
        got = [record.data for record in bag.messages()]
        assert 35 < len(got) < 50
        assert got == [each for each in sent if each in got]
        assert sent[20] not in got
        assert bag.partial
        assert any('checksum' in problem for problem in bag.problems)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_mutated_bags_never_raise_anything_but_bag_error(tmp_path: Path, storage: str) -> None:
    path = steady(0.5).write(tmp_path / 'bag', storage)
    (file,) = (each for each in path.iterdir() if each.suffix in ('.mcap', '.db3'))
    whole = file.read_bytes()
    chance = random.Random(7)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        file.write_bytes(data)
        with suppress(BagError):
            inspect_bag(path)


def test_messages_compressed_one_by_one(tmp_path: Path) -> None:
    sent = [text('a'), text('b' * 1000)]
    squeeze = zstandard.ZstdCompressor()
    with (tmp_path / 'a.mcap').open('wb') as file:
        writer = Writer(file)
        writer.start(profile='ros2')
        schema = writer.register_schema('std_msgs/msg/String', 'ros2msg', DEFINITION)
        channel = writer.register_channel('/chat', 'cdr', schema)
        for n, data in enumerate(sent):
            writer.add_message(channel, n, squeeze.compress(data), n)
        writer.add_message(channel, 2, squeeze.compress(sent[1])[:-3], 2)
        writer.finish()
    with BagReader(tmp_path / 'a.mcap') as bag:
        assert [record.data for record in bag.messages()] == [*sent, b'']
        assert any('compressed message is damaged' in problem for problem in bag.problems)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_files_compressed_as_a_whole(tmp_path: Path, storage: str) -> None:
    path = steady().write(tmp_path / 'bag', storage)
    expected = [record.data for record in read(path)]
    (file,) = (each for each in path.iterdir() if each.suffix in ('.mcap', '.db3'))
    file.with_name(f'{file.name}.zstd').write_bytes(
        zstandard.ZstdCompressor().compress(file.read_bytes())
    )
    file.unlink()
    (path / 'metadata.yaml').unlink()
    before = sorted(path.iterdir())
    assert [record.data for record in read(path)] == expected
    assert sorted(path.iterdir()) == before


def test_sqlite_with_a_write_ahead_log(tmp_path: Path) -> None:
    path = steady().write(tmp_path / 'bag', 'sqlite3')
    expected = len(read(path))
    (file,) = path.glob('*.db3')
    live = sqlite3.connect(file)
    live.execute('PRAGMA journal_mode=WAL')
    live.execute('PRAGMA wal_autocheckpoint=0')
    live.execute(
        'INSERT INTO messages(topic_id, timestamp, data) VALUES (1, 5, ?)', (b'\0\1\0\0',)
    )
    live.commit()
    copy = tmp_path / 'copy'
    shutil.copytree(path, copy)  # as after a crash: the log holds a message
    live.close()
    before = {each: each.read_bytes() for each in copy.iterdir()}
    assert len(read(copy)) == expected + 1
    assert {each: each.read_bytes() for each in copy.iterdir()} == before


def test_a_truncated_sqlite_file(tmp_path: Path) -> None:
    path = steady(3.0).write(tmp_path / 'bag', 'sqlite3')
    (file,) = path.glob('*.db3')
    sent = [record.data for record in read(path)]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with BagReader(path) as bag:
        got = [record.data for record in bag.messages()]
        assert 0 < len(got) < len(sent)
        assert got == sent[: len(got)]
        assert bag.partial


def test_splits_missing_unlisted_and_in_order(tmp_path: Path) -> None:
    folder = tmp_path / 'bag'
    folder.mkdir()
    for number in (2, 9, 10):
        write_mcap(folder / f'bag_{number}.mcap', count=number)
    write_mcap(folder / 'other.mcap', count=3)
    (folder / 'metadata.yaml').write_text(
        'rosbag2_bagfile_information:\n  version: 9\n'
        '  relative_file_paths: [bag_2.mcap, old_name/bag_9.mcap, bag_3.mcap]\n'
        '  custom_data: {contract: abc}\n'
    )
    with BagReader(folder) as bag:
        assert [storage.path.name for storage in bag.storages] == [
            'bag_2.mcap',
            'bag_9.mcap',
            'bag_10.mcap',
        ]
        assert bag.count == 21
        assert bag.partial
        assert bag.metadata['contract'] == 'abc'
        said = ' '.join(bag.problems)
        assert '1 of 3 files' in said
        assert 'bag_3.mcap' in said
        assert 'other.mcap is not listed' in said
        ordinals = [record.ordinal for record in bag.messages()]
        assert ordinals == sorted(set(ordinals))


def test_more_splits_than_files_may_be_open_at_once(tmp_path: Path) -> None:
    write_mcap(tmp_path / 'bag_0.mcap', count=2)
    for number in range(1, 150):
        shutil.copyfile(tmp_path / 'bag_0.mcap', tmp_path / f'bag_{number}.mcap')
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
    try:
        with BagReader(tmp_path) as bag:
            assert (bag.count, bag.partial) == (300, False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    'content', ['', '{', 'a: 1', 'rosbag2_bagfile_information: 3', '- 1', '\0']
)
def test_metadata_that_is_not(tmp_path: Path, content: str) -> None:
    path = steady().write(tmp_path / 'bag')
    expected = len(read(path))
    (path / 'metadata.yaml').write_text(content)
    with BagReader(path) as bag:
        assert bag.count == expected
        assert any('metadata.yaml' in problem for problem in bag.problems)


def test_custom_data_is_found_without_metadata_yaml(tmp_path: Path) -> None:
    from made_bags import PLUGINS
    from rosbags.rosbag2 import Writer as BagWriter

    with BagWriter(tmp_path / 'bag', version=9, storage_plugin=PLUGINS['mcap']) as writer:
        writer.set_custom_data('qt_contract', 'name: x')
    (tmp_path / 'bag/metadata.yaml').unlink()
    with BagReader(tmp_path / 'bag') as bag:
        assert bag.metadata['qt_contract'] == 'name: x'


def test_what_is_no_bag_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / 'note.txt').write_text('hello, this is a text file')
    (tmp_path / 'empty.mcap').write_text('')
    (tmp_path / 'fake.db3').write_text('not a database at all, but long enough to look')
    (tmp_path / 'folder').mkdir()
    for name in ('note.txt', 'empty.mcap', 'fake.db3', 'folder', 'nothing'):
        with pytest.raises(BagError) as caught, BagReader(tmp_path / name):
            pass
        assert name in str(caught.value)


def test_bags_are_found_below_a_folder(tmp_path: Path) -> None:
    for name in ('run_10', 'run_9', '.recording/run_11'):
        bag = Bag()
        bag.grip(0, 1.0)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        bag.write(tmp_path / name)
    assert [path.name for path in find_bags(tmp_path)] == ['run_9', 'run_10']
    assert find_bags(tmp_path / 'run_9') == [tmp_path / 'run_9']


def test_header_stamps_are_peeked_from_the_bytes(tmp_path: Path) -> None:
    assert peek_cdr(b'\x00\x01\x00\x00' + struct.pack('<iI', 7, 5)) == 7_000_000_005
    assert peek_cdr(b'\x00\x00\x00\x00' + struct.pack('>iI', 7, 5)) == 7_000_000_005
    assert peek_cdr(b'\x00\x01\x00\x00' + struct.pack('<iI', -1, 5)) == -999_999_995
    assert peek_cdr(b'\x00\x01\x00\x00\x01') is None
    assert peek_ros1(struct.pack('<III', 9, 7, 5)) == 7_000_000_005
    with BagReader(steady().write(tmp_path / 'bag')) as bag:
        index = index_bag(bag)
        for topic, entry in index.items():
            records = list(bag.messages([topic]))
            assert [record.ordinal for record in records] == entry.ordinals.tolist()
            for record, peeked in zip(records, entry.header_ns.tolist(), strict=True):
                stamp = getattr(deserialize(bag.topics[topic], record.data), 'header', None)
                if stamp is not None:
                    assert peeked == stamp.stamp.sec * 10**9 + stamp.stamp.nanosec
