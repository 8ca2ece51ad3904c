"""Open a recording, whatever state it is in, and hand out its raw messages."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from types import TracebackType

import yaml

from qt_ros.bags import compression, mcap_storage, ros1_storage, sqlite_storage
from qt_ros.bags.files import BagFiles, collect, load_yaml
from qt_ros.bags.records import ORDINALS_PER_FILE, Record, Storage, TopicInfo, merge_topic
from qt_ros.errors import BagError

_MAGICS: tuple[tuple[bytes, type], ...] = (
    (mcap_storage.MAGIC, mcap_storage.McapStorage),
    (sqlite_storage.MAGIC, sqlite_storage.SqliteStorage),
    (ros1_storage.MAGIC, ros1_storage.Ros1Storage),
)
# Times beyond this (year 2116) come from damaged files; arithmetic on them would overflow.
MAX_NS = 1 << 62
_SUFFIXES = {'.mcap': mcap_storage.McapStorage, '.db3': sqlite_storage.SqliteStorage}


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
        self._declared: dict[str, str] = {}  # {topic: encoding} as metadata.yaml says
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
            for record in storage.scan(wanted):
                if record.topic not in self.topics:  # missing in a damaged summary
                    self._merge_topics()
                yield self._plain(record, base)
        self._merge_topics()  # now counted, not only stated
        self._gather_problems()

    def fetch(self, ordinals: Iterable[int]) -> Iterator[Record]:
        """Yield the messages with these ordinals, in storage order."""
        unique = sorted({int(ordinal) for ordinal in ordinals})
        for number, group in groupby(unique, key=lambda value: value // ORDINALS_PER_FILE):
            base = number * ORDINALS_PER_FILE
            local = [ordinal - base for ordinal in group]
            for record in self.storages[number].fetch(local):
                yield self._plain(record, base)

    def close(self) -> None:
        """Close all files and remove what was unpacked."""
        for storage in self.storages:
            storage.close()
        self.storages = []
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def _plain(self, record: Record, base: int) -> Record:
        data = record.data
        if data[:4] == compression.ZSTD_MAGIC:
            try:
                data = compression.decompress_message(data)
            except compression.DamagedError as exc:
                self._problem(f'{record.topic}: a compressed message is damaged ({exc})')
                data = b''
        log_ns = min(max(record.log_ns, -MAX_NS), MAX_NS)
        return Record(record.topic, log_ns, data, record.ordinal + base)

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)

    def _open_bag(self, bag: BagFiles) -> None:
        for text in bag.problems:
            self._problem(text)
        self.partial = self.partial or bool(bag.missing)
        self.metadata.update(bag.custom_data)
        failures = []
        for path in bag.files:
            try:
                storage = self._open_storage(path)
            except (BagError, OSError) as exc:
                failures.append(str(exc))
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
        self._gather_problems()

    def _open_storage(self, path: Path) -> Storage:
        if path.name.endswith('.zstd'):
            path = self._unpack(path)
        with path.open('rb') as file:
            head = file.read(16)
        kind = next((kind for magic, kind in _MAGICS if head.startswith(magic)), None)
        kind = kind or _SUFFIXES.get(path.suffix)
        if not head or kind is None:
            reason = 'is empty' if not head else 'is not a recording'
            raise BagError(
                f'{path} {reason}; expected an MCAP file, a rosbag2 sqlite3 file or a ROS 1 bag'
            )
        return kind(path)

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
        """Add up the files; metadata.yaml is believed about the encoding only."""
        self.topics = {}
        for storage in self.storages:
            for name, info in storage.topics().items():
                encoding = self._declared.get(name, info.encoding) or info.encoding
                self.topics[name] = merge_topic(
                    self.topics.get(name), replace(info, encoding=encoding)
                )

    def _gather_problems(self) -> None:
        for storage in self.storages:
            for text in storage.problems:
                self._problem(text)
                self.partial = True


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
        except (yaml.YAMLError, AttributeError):
            continue
        if isinstance(custom, dict):
            found.update({str(name): str(text) for name, text in custom.items()})
    return found
