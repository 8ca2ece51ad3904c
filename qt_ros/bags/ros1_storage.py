"""Read a ROS 1 `.bag` by a linear walk: the chunk index and the md5 sums are not needed."""

from __future__ import annotations

import bz2
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from qt_ros.bags import compression
from qt_ros.bags.records import ROS1, Record, TopicInfo, merge_topic, three_part_type

MAGIC = b'#ROSBAG V2.0\n'
_LENGTH = struct.Struct('<I')
_MESSAGE, _CHUNK, _CONNECTION = 2, 5, 7


class _Damage(Exception):
    """A record that is cut off or does not parse."""


class Ros1Storage:
    """One ROS 1 bag file; see `records.Storage`."""

    kind = 'ros1'

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self.metadata: dict[str, str] = {}
        self._file: BinaryIO = path.open('rb')
        self._connections: dict[int, tuple[str, TopicInfo]] = {}
        self._counts: Counter[int] = Counter()
        for _ in self.scan(set()):
            pass

    def topics(self) -> dict[str, TopicInfo]:
        """Return the topics; connections of several publishers count together."""
        found: dict[str, TopicInfo] = {}
        for number, (name, info) in self._connections.items():
            counted = TopicInfo(
                info.type,
                self._counts[number],
                info.encoding,
                info.definition,
                info.definition_format,
            )
            found[name] = merge_topic(found.get(name), counted)
        return found

    def scan(self, wanted: set[str] | None) -> Iterator[Record]:
        """Yield the messages of the wanted topics (None: all) in storage order."""
        counts: Counter[int] = Counter()
        for ordinal, (number, log_ns, data) in enumerate(self._messages()):
            counts[number] += 1
            topic = self._connections[number][0]
            if wanted is None or topic in wanted:
                yield Record(topic, log_ns, data, ordinal)
        self._counts = counts

    def fetch(self, ordinals: Iterable[int]) -> Iterator[Record]:
        """Yield the messages with these increasing ordinals; walks the file once."""
        wanted = set(ordinals)
        if wanted:
            yield from (record for record in self.scan(None) if record.ordinal in wanted)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _messages(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield (connection, log time [ns], data); stop where the file is damaged."""
        self._file.seek(len(MAGIC))
        try:
            for header, data in self._records():
                kind = header.get('op', b'\0')[0]
                if kind == _CHUNK:
                    yield from self._in_chunk(header, data)
                else:
                    yield from self._take(kind, header, data)
        except (_Damage, struct.error, KeyError, IndexError) as exc:
            problem = f'{self.path.name} is damaged ({exc}); what lies before it is read'
            if problem not in self.problems:
                self.problems.append(problem)

    def _records(self) -> Iterator[tuple[dict[str, bytes], bytes]]:
        while head := self._file.read(_LENGTH.size):
            header = self._sized(head)
            yield _fields(header), self._sized(self._file.read(_LENGTH.size))

    def _sized(self, head: bytes) -> bytes:
        if len(head) < _LENGTH.size:
            raise _Damage('cut off')
        (length,) = _LENGTH.unpack(head)
        content = self._file.read(length)
        if len(content) < length:
            raise _Damage('cut off')
        return content

    def _in_chunk(self, header: dict[str, bytes], data: bytes) -> Iterator[tuple[int, int, bytes]]:
        method = header.get('compression', b'none').decode('ascii', 'replace')
        problem = ''
        if method == 'bz2':
            try:
                data = bz2.decompress(data)
            except (OSError, ValueError) as exc:
                data, problem = b'', str(exc)
        elif method != 'none':
            data, problem = compression.decompress(data, method)
        if problem:
            self.problems.append(f'{self.path.name}: a chunk is damaged: {problem}')
        position = 0
        while position + _LENGTH.size <= len(data):
            head, position = _slice(data, position)
            body, position = _slice(data, position)
            fields = _fields(head)
            yield from self._take(fields['op'][0], fields, body)

    def _take(
        self, kind: int, header: dict[str, bytes], data: bytes
    ) -> Iterator[tuple[int, int, bytes]]:
        if kind == _CONNECTION:
            about = _fields(data)
            self._connections.setdefault(
                _LENGTH.unpack(header['conn'])[0],
                (
                    header['topic'].decode('utf-8', 'replace'),
                    TopicInfo(
                        type=three_part_type(about['type'].decode('utf-8', 'replace')),
                        count=0,
                        encoding=ROS1,
                        definition=about.get('message_definition', b'').decode('utf-8', 'replace'),
                        definition_format='ros1msg',
                    ),
                ),
            )
        elif kind == _MESSAGE:
            seconds, nanoseconds = struct.unpack('<II', header['time'])
            number = _LENGTH.unpack(header['conn'])[0]
            if number not in self._connections:
                raise _Damage(f'a message names unknown connection {number}')
            yield number, seconds * 10**9 + nanoseconds, data


def _slice(data: bytes, position: int) -> tuple[bytes, int]:
    (length,) = _LENGTH.unpack_from(data, position)
    start = position + _LENGTH.size
    if start + length > len(data):
        raise _Damage('a chunk is cut off')
    return data[start : start + length], start + length


def _fields(header: bytes) -> dict[str, bytes]:
    """Parse `length name=value` fields."""
    found = {}
    position = 0
    while position < len(header):
        field, position = _slice(header, position)
        name, _, value = field.partition(b'=')
        found[name.decode('ascii', 'replace')] = value
    return found
