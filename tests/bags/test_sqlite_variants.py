"""sqlite3 bags of every version of rosbag2, with logs beside them, in folders that are read-only,
and with damaged pages."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from qt_ros.bags.inspect import inspect_bag
from qt_ros.bags.reader import BagReader
from qt_ros.bags.types import deserialize
from qt_ros.errors import BagError

HEAD = b'\x00\x01\x00\x00'
MESSAGES = (
    'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,'
    ' timestamp INTEGER NOT NULL, data BLOB NOT NULL)'
)
# The table of topics as rosbag2 created it in each version of its schema.
TOPICS = {
    1: 'id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,'
    ' serialization_format TEXT NOT NULL',
    2: 'id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,'
    ' serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL',
    4: 'id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,'
    ' serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL,'
    ' type_description_hash TEXT NOT NULL',
}
TOPICS[3] = TOPICS[2]


def number(n: int) -> bytes:
    return HEAD + struct.pack('<i', n)


def write(path: Path, schema: int = 4, count: int = 200, kind: str = 'std_msgs/msg/Int32') -> Path:
    """Write 0 .. count - 1 to /n in the given version of the schema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path)
    db.execute(f'CREATE TABLE topics({TOPICS[schema]})')
    db.execute(MESSAGES)
    db.execute('CREATE INDEX timestamp_idx ON messages (timestamp ASC)')
    row = (1, '/n', kind, 'cdr', '- history: 1', 'RIHS01_00')[: 4 + (schema > 1) + (schema > 3)]
    db.execute(f'INSERT INTO topics VALUES ({",".join("?" * len(row))})', row)
    if schema >= 3:
        db.execute('CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT)')
        db.execute('CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER,'
                   ' metadata TEXT NOT NULL)')  # fmt: skip
        db.execute('INSERT INTO schema VALUES (?, ?)', (schema, 'jazzy'))
        db.execute('INSERT INTO metadata VALUES (1, 5, ?)', ('custom_data: {operator: Jo}',))
    if schema >= 4:
        db.execute(
            'CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT,'
            ' encoding TEXT, encoded_message_definition TEXT, type_description_hash TEXT)'
        )
        db.execute(
            'INSERT INTO message_definitions VALUES (1, ?, ?, ?, ?)',
            (kind, 'ros2msg', 'int32 data\n', 'RIHS01_00'),
        )
    db.executemany(
        'INSERT INTO messages(topic_id, timestamp, data) VALUES (1, ?, ?)',
        [(n * 10**6, number(n)) for n in range(count)],
    )
    db.commit()
    db.close()
    return path


def numbers(path: Path) -> list[int]:
    with BagReader(path) as bag:
        return [int.from_bytes(r.data[4:8], 'little') for r in bag.messages()]


@pytest.mark.parametrize('schema', [1, 2, 3, 4])
@pytest.mark.parametrize('kind', ['std_msgs/msg/Int32', 'std_msgs/Int32'])
def test_every_version_of_the_schema(tmp_path: Path, schema: int, kind: str) -> None:
    path = write(tmp_path / 'bag/bag_0.db3', schema, kind=kind)
    assert numbers(path.parent) == list(range(200))
    with BagReader(path) as bag:
        assert bag.topics['/n'].type == 'std_msgs/msg/Int32'
        assert bag.metadata == ({'operator': 'Jo'} if schema >= 3 else {})
        (record,) = bag.fetch([7])
        assert deserialize(bag.topics['/n'], record.data).data == 6
        assert not bag.partial


METADATA = {
    1: ['bag_0.db3'],
    2: ['bag/bag_0.db3'],  # with the folder's name in front
    3: ['bag/bag_0.db3'],
}


def metadata(version: int) -> str:
    """metadata.yaml as that version of it looks."""
    topic = {
        'name': '/n',
        'type': 'std_msgs/Int32' if version == 1 else 'std_msgs/msg/Int32',
        'serialization_format': 'cdr',
    }
    if 4 <= version <= 8:
        topic['offered_qos_profiles'] = '- history: 3\n  depth: 0\n' if version < 9 else ''
    if version >= 7:
        topic['type_description_hash'] = 'RIHS01_00'
    if version >= 9:
        topic['offered_qos_profiles'] = [{'history': 'unknown', 'depth': 0}]  # type: ignore[assignment]
    paths = METADATA.get(version, ['bag_0.db3'])
    information: dict[str, object] = {
        'version': version,
        'storage_identifier': 'sqlite3',
        'relative_file_paths': paths,
        'duration': {'nanoseconds': 1},
        'starting_time': {'nanoseconds_since_epoch': 5},
        'message_count': 200,
        'topics_with_message_count': [{'topic_metadata': topic, 'message_count': 200}],
    }
    if version >= 3:
        information |= {'compression_format': '', 'compression_mode': ''}
    if version >= 5:
        information['files'] = [
            {
                'path': paths[0],
                'starting_time': {'nanoseconds_since_epoch': 5},
                'duration': {'nanoseconds': 1},
                'message_count': 200,
            }
        ]
    if version >= 6:
        information['custom_data'] = {'operator': 'Jo'}
    if version >= 8:
        information['ros_distro'] = 'jazzy'
    return json.dumps({'rosbag2_bagfile_information': information})  # JSON is YAML


@pytest.mark.parametrize('version', range(1, 10))
def test_every_version_of_the_metadata(tmp_path: Path, version: int) -> None:
    folder = write(tmp_path / 'bag/bag_0.db3', 1).parent
    (folder / 'metadata.yaml').write_text(metadata(version))
    write(folder / 'unlisted.db3', 1)
    found = inspect_bag(folder)
    assert found['messages'] == 200
    assert found['duration_s'] == pytest.approx(0.199)
    assert found['topics']['/n']['decodes']
    assert found['problems'] == ['unlisted.db3 is not listed in metadata.yaml; not read']
    assert not found['partial']
    renamed = folder.rename(tmp_path / 'renamed.bag')
    assert numbers(renamed) == list(range(200))


def test_metadata_with_the_newer_list_of_files_only(tmp_path: Path) -> None:
    folder = write(tmp_path / 'bag/bag_0.db3').parent
    (folder / 'metadata.yaml').write_text(metadata(9).replace('relative_file_paths', 'old'))
    write(folder / 'unlisted.db3', 1)
    assert numbers(folder) == list(range(200))


def test_files_that_were_unpacked_or_packed_since(tmp_path: Path) -> None:
    folder = write(tmp_path / 'bag/bag_0.db3').parent
    listed = metadata(9).replace('bag_0.db3', 'bag_0.db3.zstd')
    (folder / 'metadata.yaml').write_text(listed)
    assert numbers(folder) == list(range(200))
    packed = zstandard.ZstdCompressor().compress((folder / 'bag_0.db3').read_bytes())
    (folder / 'bag_0.db3.zstd').write_bytes(packed)
    assert numbers(folder) == list(range(200)), 'both are there: only one may be read'
    (folder / 'metadata.yaml').unlink()
    assert numbers(folder) == list(range(200))
    (folder / 'metadata.yaml').write_text(metadata(9))
    (folder / 'bag_0.db3').unlink()
    assert numbers(folder) == list(range(200))
    with BagReader(folder) as bag:
        assert not bag.partial


@pytest.mark.parametrize('log', ['wal', 'journal'])
def test_a_log_beside_a_bag_in_a_read_only_folder(tmp_path: Path, log: str) -> None:
    folder = write(tmp_path / 'bag/bag_0.db3').parent
    live = sqlite3.connect(folder / 'bag_0.db3', isolation_level=None)
    live.execute(f'PRAGMA journal_mode={"WAL" if log == "wal" else "DELETE"}')
    live.execute('PRAGMA wal_autocheckpoint=0')
    live.execute('PRAGMA cache_size=1')  # so that pages are written before the end
    live.execute('BEGIN')
    live.execute('UPDATE messages SET data = ?', (number(7) + bytes(500),))
    if log == 'wal':
        live.execute('COMMIT')
    copy = tmp_path / 'copy'
    shutil.copytree(folder, copy)  # as after a crash
    live.close()
    assert (copy / f'bag_0.db3-{log}').stat().st_size
    before = {each.name: each.read_bytes() for each in copy.iterdir()}
    copy.chmod(0o555)
    try:
        # What was committed counts; what was not is rolled back.
        assert numbers(copy) == ([7] * 200 if log == 'wal' else list(range(200)))
    finally:
        copy.chmod(0o755)
    assert {each.name: each.read_bytes() for each in copy.iterdir()} == before


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own may not be."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.getuid() != 0, reason='needs to become another user')
def test_reading_as_a_user_who_may_not_write(open_folder: Path) -> None:
    """Root may write anywhere: a plain user must be able to read what he cannot change."""
    folder = write(open_folder / 'bag/bag_0.db3').parent
    folder.chmod(0o755)
    code = (
        'import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n'
        'from qt_ros.bags.reader import BagReader\n'
        'from qt_ros.errors import BagError\n'
        'try:\n'
        '    with BagReader(sys.argv[1]) as bag: print(len(list(bag.messages())))\n'
        'except BagError as exc: print(exc)\n'
    )

    def read(path: Path) -> str:
        done = subprocess.run(
            [sys.executable, '-c', f'import numpy, qt_ros.bags.inspect\n{code}', str(path)],
            capture_output=True, text=True, check=True, cwd='/',
        )  # fmt: skip
        return done.stdout.strip()

    assert read(folder) == '200'
    (folder / 'bag_0.db3').chmod(0o600)
    assert read(folder).endswith('bag_0.db3 cannot be read: Permission denied')
    folder.chmod(0o700)
    assert 'Permission denied' in read(folder)
    assert 'Permission denied' in read(folder / 'bag_0.db3')


@pytest.mark.parametrize('seed', range(6))
def test_damaged_pages_cost_what_lies_on_them(tmp_path: Path, seed: int) -> None:
    path = write(tmp_path / 'bag_0.db3', count=5000)
    data = bytearray(path.read_bytes())
    page = struct.unpack_from('>H', data, 16)[0]
    chance = random.Random(seed)
    leaves = [at for at in range(2 * page, len(data), page) if data[at] == 0x0D]
    for at in chance.sample(leaves[5:-5], 3):
        data[at : at + page] = bytes(page) if seed % 2 else chance.randbytes(page)
    path.write_bytes(data)
    with BagReader(path) as bag:
        records = list(bag.messages())
        got = [int.from_bytes(r.data[4:8], 'little') for r in records]
        assert bag.partial
        assert bag.count == len(got)
        assert list(bag.fetch(r.ordinal for r in records[::7])) == records[::7]
    assert got == sorted(set(got))
    per_page = 5000 / len(leaves)
    assert len(got) > 5000 - 3 * 1.6 * per_page - 10


def test_odd_rows_are_told_and_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / 'bag_0.db3', 1, count=10)
    db = sqlite3.connect(path)
    db.execute('INSERT INTO messages VALUES (20, 9, 5, ?)', (number(1),))  # no such topic
    db.execute("INSERT INTO messages VALUES (21, 1, 'noon', ?)", (number(1),))
    db.execute("INSERT INTO messages VALUES (22, 1, 5, 'text')")
    db.execute('INSERT INTO messages VALUES (1 << 50, 1, 5, ?)', (number(1),))
    db.commit()
    db.close()
    with BagReader(path) as bag:
        assert [int.from_bytes(r.data[4:8], 'little') for r in bag.messages()] == list(range(10))
        said = ' '.join(bag.problems)
    assert '1 messages name unknown topic 9' in said
    assert 'message 21 is not readable' in said
    assert 'message 22 is not readable' in said


@pytest.mark.parametrize('table', ['topics', 'messages'])
def test_a_database_that_is_no_bag(tmp_path: Path, table: str) -> None:
    path = write(tmp_path / 'bag_0.db3')
    db = sqlite3.connect(path)
    db.execute(f'DROP TABLE {table}')
    db.commit()
    with pytest.raises(BagError, match='topics and messages'), BagReader(path):
        pass
    # A view that never ends.
    db.execute(
        f'CREATE VIEW {table} AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n)'
        " SELECT id, '/n' AS name, 'T' AS type, 1 AS topic_id, 1 AS timestamp, x'' AS data FROM n"
    )
    db.commit()
    db.close()
    with pytest.raises(BagError, match='topics and messages'), BagReader(path):
        pass
