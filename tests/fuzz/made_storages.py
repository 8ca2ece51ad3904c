"""Write one list of messages in every storage that a bag may have; the writers are our own or
those of `mcap` and `rosbags`, so that any detail can be wrong on purpose.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
import zstandard
from made_bags import STORE, Bag
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

ROS1 = get_typestore(Stores.ROS1_NOETIC)
ROS1_LAST_NS = (2**32 - 1) * 10**9
Row = tuple[int, str, bytes]  # log time [ns], topic, serialised message


@dataclass(frozen=True)
class TopicText:
    """What a storage says about a topic; any of it may be wrong."""

    type: str
    definition: str
    form: str = 'ros2msg'
    encoding: str = 'cdr'


@dataclass(frozen=True)
class Recording:
    """Messages and what is said about them."""

    topics: Mapping[str, TopicText]
    rows: Sequence[Row]
    custom: Mapping[str, str] = field(default_factory=dict)


def recording(bag: Bag) -> Recording:
    """Return the messages of a hand-made bag, in the order of log time."""
    topics: dict[str, TopicText] = {}
    rows: list[Row] = []
    for log_ns, topic, kind, data in sorted(bag.rows, key=lambda row: row[0]):
        if topic not in topics:
            topics[topic] = TopicText(kind, STORE.generate_msgdef(kind, ros_version=2)[0])
        rows.append((log_ns, topic, data))
    return Recording(topics, rows)


def squeezed(source: Recording) -> Recording:
    """Compress every message by itself, as rosbag2's message mode does."""
    press = zstandard.ZstdCompressor(level=1).compress
    return replace(source, rows=[(ns, topic, press(data)) for ns, topic, data in source.rows])


def write_mcap(path: Path, source: Recording, **options: Any) -> Path:
    """Write an MCAP file; `options` are those of `mcap.writer.Writer`, and `profile`."""
    profile = options.pop('profile', 'ros2')
    with path.open('wb') as file:
        writer = McapWriter(file, **{'chunk_size': 2048, **options})
        writer.start(profile, 'made')
        channels = {}
        for topic, text in source.topics.items():
            schema = writer.register_schema(text.type, text.form, text.definition.encode())
            channels[topic] = writer.register_channel(topic, text.encoding, schema)
        for number, (log_ns, topic, data) in enumerate(source.rows):
            stamp = log_ns % 2**64
            writer.add_message(channels[topic], stamp, data, stamp, number)
        if source.custom:
            writer.add_metadata('custom', dict(source.custom))
        writer.finish()
    return path


MCAP_OPTIONS: dict[str, dict[str, Any]] = {
    'mcap_zstd': {'compression': CompressionType.ZSTD},
    'mcap_lz4': {'compression': CompressionType.LZ4, 'profile': ''},
    'mcap_plain_chunks': {'compression': CompressionType.NONE, 'enable_crcs': False},
    'mcap_zstd_no_crc': {'compression': CompressionType.ZSTD, 'enable_crcs': False},
    'mcap_unchunked': {'use_chunking': False},
    'mcap_no_index': {
        'index_types': IndexType.NONE,
        'use_statistics': False,
        'use_summary_offsets': False,
        'repeat_channels': False,
        'repeat_schemas': False,
        'enable_crcs': False,
    },
}


def write_db3(path: Path, source: Recording, version: int) -> Path:
    """Write a sqlite3 file with the tables that metadata version 1 to 9 came with."""
    columns = ['id INTEGER PRIMARY KEY', 'name TEXT NOT NULL', 'type TEXT NOT NULL']
    columns.append('serialization_format TEXT NOT NULL')
    columns += ['offered_qos_profiles TEXT NOT NULL'] if version >= 4 else []
    columns += ['type_description_hash TEXT NOT NULL'] if version >= 7 else []
    db = sqlite3.connect(path)
    db.execute(f'CREATE TABLE topics({", ".join(columns)})')
    db.execute(
        'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,'
        ' timestamp INTEGER NOT NULL, data BLOB NOT NULL)'
    )
    if version >= 7:
        db.execute('CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT)')
        db.execute('INSERT INTO schema VALUES (4, "jazzy")')
        db.execute('CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER,'
                   ' metadata TEXT)')  # fmt: skip
        db.execute(
            'CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT,'
            ' encoding TEXT, encoded_message_definition TEXT, type_description_hash TEXT)'
        )
    numbers = {}
    for number, (topic, text) in enumerate(source.topics.items(), start=1):
        kind = text.type if version >= 2 else text.type.replace('/msg/', '/')
        row = [number, topic, kind, text.encoding, '', ''][: len(columns)]
        db.execute(f'INSERT INTO topics VALUES ({",".join("?" * len(row))})', row)
        if version >= 7:
            db.execute(
                'INSERT INTO message_definitions(topic_type, encoding, encoded_message_definition,'
                ' type_description_hash) VALUES (?, ?, ?, "")',
                (kind, text.form, text.definition),
            )
        numbers[topic] = number
    db.executemany(
        'INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)',
        [(numbers[topic], _signed(log_ns), data) for log_ns, topic, data in source.rows],
    )
    db.execute('CREATE INDEX timestamp_idx ON messages (timestamp ASC)')
    db.commit()
    db.close()
    return path


def write_with_wal(path: Path, source: Recording, version: int) -> Path:
    """Write a file whose second half lies in the write-ahead log beside it."""
    half = len(source.rows) // 2
    write_db3(path, replace(source, rows=source.rows[:half]), version)
    db = sqlite3.connect(path)
    db.execute('PRAGMA journal_mode = WAL')
    db.execute('PRAGMA wal_autocheckpoint = 0')
    numbers = {topic: number for number, topic in enumerate(source.topics, start=1)}
    db.executemany(
        'INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)',
        [(numbers[topic], _signed(log_ns), data) for log_ns, topic, data in source.rows[half:]],
    )
    db.commit()
    log = path.with_name(f'{path.name}-wal')
    # Without any message nothing was written to the log, and there is none.
    content = {each: each.read_bytes() for each in (path, log) if each.exists()}
    db.close()  # moves the log into the file; a recorder that was killed does not get that far
    for each, data in content.items():
        each.write_bytes(data)
    return path


def write_ros1(path: Path, source: Recording, compression: str) -> Path:
    """Write a ROS 1 bag of the topics whose types ROS 1 knows."""
    writer = Ros1Writer(path)
    if compression != 'none':
        writer.set_compression(Ros1Writer.CompressionFormat[compression.upper()])
    with writer:
        connections = {
            topic: writer.add_connection(topic, text.type, typestore=ROS1)
            for topic, text in source.topics.items()
            if not text.type.startswith('q_transformer_ros/')
        }
        for log_ns, topic, data in source.rows:
            if topic in connections:
                stamp = min(max(log_ns, 0), ROS1_LAST_NS)
                writer.write(connections[topic], stamp, _as_ros1(source.topics[topic].type, data))
    return path


def _as_ros1(kind: str, data: bytes) -> bytes:
    """Serialise anew; a message that does not decode stays as it is."""
    try:
        return bytes(STORE.cdr_to_ros1(data, kind))
    except Exception:  # noqa: BLE001 - generated code fails in any way on damaged bytes
        return data


def metadata(source: Recording, version: int, files: Sequence[str], **more: Any) -> str:
    """Return metadata.yaml as rosbag2 of this version writes it."""
    topics = []
    for name, text in source.topics.items():
        about = {'name': name, 'type': text.type, 'serialization_format': text.encoding}
        if version >= 4:
            about['offered_qos_profiles'] = '' if version < 9 else []  # type: ignore[assignment]
        if version >= 7:
            about['type_description_hash'] = 'RIHS01_0'
        count = sum(topic == name for _, topic, _ in source.rows)
        topics.append({'topic_metadata': about, 'message_count': count})
    times = [log_ns for log_ns, _, _ in source.rows] or [0]
    content: dict[str, Any] = {
        'version': version,
        'storage_identifier': 'mcap' if files[0].endswith('.mcap') else 'sqlite3',
        'duration': {'nanoseconds': max(times) - min(times)},
        'starting_time': {'nanoseconds_since_epoch': min(times)},
        'message_count': len(source.rows),
        'topics_with_message_count': topics,
        'relative_file_paths': list(files),
    }
    if version >= 3:
        content.update(compression_format='', compression_mode='')
    if version >= 6:
        content['custom_data'] = dict(source.custom)
    if version >= 8:
        content['ros_distro'] = 'jazzy'
    return yaml.safe_dump(
        {'rosbag2_bagfile_information': {**content, **more}}, sort_keys=False, width=10_000
    )


def _signed(log_ns: int) -> int:
    return (log_ns + 2**63) % 2**64 - 2**63


def write_bag(folder: Path, source: Recording, storage: str, version: int = 9) -> Path:
    """Write the bag in the storage named so (one of `STORAGES`) and return its path."""
    if storage.startswith('ros1'):
        return write_ros1(folder / 'made.bag', source, storage.removeprefix('ros1_'))
    bag = folder / 'made'
    bag.mkdir(parents=True)
    more: dict[str, str] = {}
    stored = squeezed(source) if 'messages' in storage else source
    if 'messages' in storage:
        more = {'compression_format': 'zstd', 'compression_mode': 'MESSAGE'}
    if storage.startswith('mcap'):
        options = MCAP_OPTIONS.get(storage, {})
        files = [write_mcap(bag / 'made_0.mcap', stored, **options)]
    elif storage == 'db3_wal':
        files = [write_with_wal(bag / 'made_0.db3', stored, version)]
    else:
        split = 'split' in storage or 'files' in storage
        half = len(stored.rows) // 2 if split else len(stored.rows)
        files = [write_db3(bag / 'made_0.db3', replace(stored, rows=stored.rows[:half]), version)]
        if split:  # the second file numbers its topics the other way round
            back = replace(stored, rows=stored.rows[half:], topics=_reversed(stored.topics))
            files.append(write_db3(bag / 'made_1.db3', back, version))
    if 'files' in storage:
        more = {'compression_format': 'zstd', 'compression_mode': 'FILE'}
        files = [_compressed(path) for path in files]
    if storage != 'mcap_no_index':  # this one does without metadata.yaml, too
        text = metadata(source, version, [path.name for path in files], **more)
        (bag / 'metadata.yaml').write_text(text)
    return bag


def _reversed(topics: Mapping[str, TopicText]) -> dict[str, TopicText]:
    return dict(reversed(list(topics.items())))


def _compressed(path: Path) -> Path:
    target = path.with_name(f'{path.name}.zstd')
    target.write_bytes(zstandard.ZstdCompressor().compress(path.read_bytes()))
    path.unlink()
    return target


STORAGES = (
    *MCAP_OPTIONS,
    'mcap_messages',
    'db3',
    'db3_messages',
    'db3_files',
    'db3_split',
    'db3_wal',
    'ros1_none',
    'ros1_bz2',
    'ros1_lz4',
)
