"""Open a recording, whatever state it is in, and hand out its raw messages."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from types import TracebackType

import numpy as np
import yaml

from qt_ros.bags import compression, mcap_storage, ros1_storage, sqlite_storage
from qt_ros.bags.files import BagFiles, collect, plain_texts
from qt_ros.bags.records import (
    CDR,
    ORDINALS_PER_FILE,
    Record,
    Storage,
    TopicInfo,
    TopicNames,
    merge_topic,
)
from qt_ros.contract_text.yaml_limits import load_yaml
from qt_ros.errors import BagError

_MAGICS: tuple[tuple[bytes, type], ...] = (
    (mcap_storage.MAGIC, mcap_storage.McapStorage),
    (sqlite_storage.MAGIC, sqlite_storage.SqliteStorage),
    (ros1_storage.MAGIC, ros1_storage.Ros1Storage),
)
# Times beyond this (year 2116) come from damaged files; arithmetic on them would overflow.
MAX_NS = 1 << 62
_FETCHED = 8192  # ordinals held as Python's integers at a time
SPARE_FILES = 256  # that the rest of the process may have open
# A file goes on where another one ends if this long lies between them at most, or they overlap by
# so much: splits do, recordings made one after the other do not.
SPLIT_GAP_NS, SPLIT_OVERLAP_NS = 5_000_000_000, 1_000_000_000
_PACKED = (compression.ZSTD_MAGIC, compression.LZ4_MAGIC)
_SUFFIXES = {'.mcap': mcap_storage.McapStorage, '.db3': sqlite_storage.SqliteStorage}
_FOREIGN = {  # what lies about under the names of recordings
    b'PK\x03\x04': 'is a zip archive; unpack it first',
    b'\x1f\x8b': 'is compressed with gzip; unpack it first',
    b'BZh': 'is compressed with bzip2; unpack it first',
    b'\xfd7zXZ': 'is compressed with xz; unpack it first',
    b'7z\xbc\xaf': 'is a 7z archive; unpack it first',
    b'version https://git-lfs': 'is a pointer of Git LFS; fetch the file itself with git lfs pull',
    b'#ROSBAG V1': 'is a ROS 1 bag of version 1, which only ROS itself reads: rosbag fix',
}


class BagReader:
    """A recording: one folder, one file, or several files that belong together.

    Reading is forgiving: what is readable is read, `problems` says in sentences what is not, and
    `partial` is true if messages are missing that the recording once had. Only a path without any
    storage raises `BagError`. Nothing is ever written beside the recording.

    Example:
        with BagReader('attempt_7') as bag:
            for topic, log_ns, data, ordinal in bag.messages(['/joint_states']):
                ...
    """

    def __init__(self, *paths: Path | str) -> None:
        if not paths:
            raise BagError('no recording given; give a folder or a file')
        self.paths = tuple(Path(path) for path in paths)
        self.problems: list[str] = []
        self.partial = False
        self.topics: dict[str, TopicInfo] = {}
        self.metadata: dict[str, str] = {}
        self.storages: list[Storage] = []
        self._names: list[dict[str, str]] = []  # of each storage: {its topic: the bag's topic}
        self._declared: dict[str, str] = {}  # {topic: encoding} as metadata.yaml says
        self._topic_names = TopicNames('the recording')
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> BagReader:
        try:
            for path in self.paths:
                self._open_bag(collect(path))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def kind(self) -> str:
        """Name of the storage: 'mcap', 'sqlite3' or 'ros1'."""
        return '+'.join(dict.fromkeys(storage.kind for storage in self.storages))

    @property
    def count(self) -> int:
        """Number of messages, all topics together."""
        return sum(info.count for info in self.topics.values())

    def breaks(self) -> list[str]:
        """Return the names of the files that do not go on where the one before them ends."""
        found = []
        last_ns: int | None = None
        for storage in self.storages:
            span = storage.span_ns()
            if span is None:
                continue
            if last_ns is not None:
                between = span[0] - last_ns
                if not -SPLIT_OVERLAP_NS <= between <= SPLIT_GAP_NS:
                    found.append(storage.path.name)
            last_ns = span[1]
        return found

    def resolve(self, topic: str) -> str | None:
        """Return the name that the bag uses for a topic, with or without leading '/'."""
        for name in (topic, f'/{topic}', topic.removeprefix('/')):
            if name in self.topics:
                return name
        return None

    def messages(self, topics: Iterable[str] | None = None) -> Iterator[Record]:
        """Yield raw messages in storage order; `topics` None means all.

        Names match with or without leading '/'; unknown names yield nothing. A message whose
        compression is damaged comes with empty data.
        """
        wanted = None if topics is None else {n for t in topics if (n := self.resolve(t))}
        for number, storage in enumerate(self.storages):
            base = number * ORDINALS_PER_FILE
            names = self._names[number]
            local = None if wanted is None else {own for own, n in names.items() if n in wanted}
            for record in storage.scan(local):
                if record.topic not in names:  # missing in a damaged summary
                    self._merge_topics()
                    names = self._names[number]
                yield self._plain(record, names[record.topic], base)
        self._merge_topics()  # now counted, not only stated
        self._gather_problems()

    def fetch(self, ordinals: Iterable[int]) -> Iterator[Record]:
        """Yield the messages with these ordinals, in storage order."""
        wanted = ordinals if isinstance(ordinals, np.ndarray) else list(ordinals)
        unique = np.unique(np.asarray(wanted, dtype=np.int64))
        for start in range(0, len(unique), _FETCHED):
            block = unique[start : start + _FETCHED].tolist()
            for number, group in groupby(block, key=lambda value: value // ORDINALS_PER_FILE):
                base = number * ORDINALS_PER_FILE
                local = [ordinal - base for ordinal in group]
                for record in self.storages[number].fetch(local):
                    yield self._plain(record, self._names[number][record.topic], base)

    def close(self) -> None:
        """Close all files and remove what was unpacked."""
        for storage in self.storages:
            storage.close()
        self.storages = []
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def _plain(self, record: Record, topic: str, base: int) -> Record:
        _, log_ns, data, ordinal = record
        # CDR begins with a zero byte; what ROS 1 writes may begin with anything.
        if data[:4] in _PACKED and self.topics[topic].encoding == CDR:
            try:
                data = compression.decompress_message(data)
            except compression.DamagedError as exc:
                self._problem(f'{topic}: a compressed message is damaged ({exc})')
                self.partial = True
                data = b''
        if not -MAX_NS <= log_ns <= MAX_NS:
            log_ns = min(max(log_ns, -MAX_NS), MAX_NS)
        return Record(topic, log_ns, data, ordinal + base)

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)

    def _open_bag(self, bag: BagFiles) -> None:
        for text in bag.problems:
            self._problem(text)
        self.metadata.update(bag.custom_data)
        failures = []
        before = self.count
        _allow_open_files(len(self.storages) + len(bag.files))
        for path in bag.files:
            try:
                storage = self._open_storage(path)
            except BagError as exc:
                failures.append(str(exc))
                continue
            except OSError as exc:
                failures.append(f'{path} cannot be read: {exc.strerror or exc}')
                continue
            self.storages.append(storage)
            self.metadata.update(_metadata_of(storage))
        if failures and not self.storages:
            raise BagError(failures)
        for text in failures:
            self._problem(text)
            self.partial = True
        self._declared.update(bag.encodings)
        self._merge_topics()
        stated = bag.information.get('message_count')
        if bag.missing and stated != self.count - before:  # else: the files were renamed
            self.partial = True
        self._gather_problems()

    def _open_storage(self, path: Path) -> Storage:
        head = _head(path)
        if compression.method_of(head):
            path = self._unpack(path)
            head = _head(path)
        kind = next((kind for magic, kind in _MAGICS if head.startswith(magic)), None)
        foreign = next((text for magic, text in _FOREIGN.items() if head.startswith(magic)), None)
        if kind is None and head and foreign is None:
            kind = _SUFFIXES.get(path.suffix)
            storage = _if_sound(kind, path) if kind else None
            if storage is not None:
                return storage
        elif kind is not None:
            return kind(path)
        reason = foreign or ('is not a recording' if head else 'is empty')
        raise BagError(
            f'{path} {reason}; expected an MCAP file, a rosbag2 sqlite3 file or a ROS 1 bag'
        )

    def _unpack(self, path: Path) -> Path:
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix='qt-ros-bag-')
        target = Path(self._temporary.name) / f'{len(self.storages)}_{path.stem}'
        problem = compression.decompress_file(path, target)
        if problem:
            self._problem(problem)
            self.partial = True
        return target

    def _merge_topics(self) -> None:
        """Add up the files.

        metadata.yaml is believed about the encoding only, and only where it says something else
        than CDR: some tools write CDR there whatever they record.
        """
        self.topics, self._names = {}, []
        names = self._topic_names
        for storage in self.storages:
            own = {}
            for name, info in storage.topics().items():
                declared = self._declared.get(name, CDR)
                if declared != CDR and info.encoding == CDR:
                    info = replace(info, encoding=declared)
                own[name] = names.name(name, info)
                self.topics[own[name]] = merge_topic(self.topics.get(own[name]), info)
            self._names.append(own)
        for text in names.notes:
            self._problem(text)

    def _gather_problems(self) -> None:
        for storage in self.storages:
            for text in storage.problems:
                self._problem(text)
                self.partial = True
            for text in storage.notes:
                self._problem(text)


def _allow_open_files(count: int) -> None:
    """Ask the system for as many open files as a recording of many splits needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(allowed, soft), hard))


def _head(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(32)


def _if_sound(kind: type, path: Path) -> Storage | None:
    """Open a file that has the name of a recording but not its first bytes, if there is one."""
    try:
        storage: Storage = kind(path)
    except BagError:
        return None
    if storage.topics():
        return storage
    storage.close()
    return None


def _metadata_of(storage: Storage) -> dict[str, str]:
    """Return the custom data that lies in the file itself, without rosbag2's own record."""
    found = {}
    for key, value in storage.metadata.items():
        if key != 'rosbag2/serialized_metadata':
            found[key] = value
            continue
        if 'custom_data' not in value:
            continue
        try:
            custom = (load_yaml(value) or {}).get('custom_data')
        except (yaml.YAMLError, AttributeError, ValueError, RecursionError):
            continue
        found.update(plain_texts(custom))
    return found
