"""Read a ROS 1 `.bag` by a linear walk: the chunk index and the md5 sums are not needed."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from qt_ros.bags import compression
from qt_ros.bags.records import (
    ROS1,
    Record,
    TopicInfo,
    TopicNames,
    merge_topic,
    three_part_type,
)

MAGIC = b'#ROSBAG V2.0\n'
_LENGTH = struct.Struct('<I')
_MESSAGE, _CHUNK, _CONNECTION = 2, 5, 7
_ERRORS = (struct.error, KeyError, IndexError)

Buffer = bytes | bytearray | memoryview
Message = tuple[int, int, Buffer]  # connection, log time [ns], data


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
        self._size = path.stat().st_size
        self._names = TopicNames(path.name)
        self._connections: dict[int, tuple[str, TopicInfo]] = {}
        self._counts: Counter[int] = Counter()
        # Where each chunk or message outside chunks begins, and its first ordinal.
        self._firsts, self._offsets = array('q'), array('q')
        self._span_ns: tuple[int, int] | None = None
        for _ in self.scan(set()):
            pass

    @property
    def notes(self) -> list[str]:
        """What is odd about the file but costs no message."""
        return self._names.notes

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

    def span_ns(self) -> tuple[int, int] | None:
        """Return the first and the last log time [ns], None if there is no message."""
        return self._span_ns

    def scan(self, wanted: set[str] | None) -> Iterator[Record]:
        """Yield the messages of the wanted topics (None: all) in storage order."""
        counts: Counter[int] = Counter()
        firsts, offsets = array('q'), array('q')
        ordinal = 0
        for offset, messages in self._walk():
            firsts.append(ordinal)
            offsets.append(offset)
            for number, log_ns, data in messages:
                counts[number] += 1
                low, high = self._span_ns or (log_ns, log_ns)
                if not low < log_ns < high:
                    self._span_ns = (min(low, log_ns), max(high, log_ns))
                topic = self._connections[number][0]
                if wanted is None or topic in wanted:
                    yield Record(topic, log_ns, bytes(data), ordinal)
                ordinal += 1
        self._counts, self._firsts, self._offsets = counts, firsts, offsets

    def fetch(self, ordinals: Iterable[int]) -> Iterator[Record]:
        """Yield the messages with these increasing ordinals; only their chunks are read."""
        wanted = list(ordinals)
        at = 0
        while at < len(wanted):
            piece = bisect_right(self._firsts, wanted[at]) - 1
            if piece < 0:
                return
            self._file.seek(self._offsets[piece])
            ordinal, before = self._firsts[piece], at
            for number, log_ns, data in self._messages(*self._record()):
                if at < len(wanted) and wanted[at] == ordinal:
                    yield Record(self._connections[number][0], log_ns, bytes(data), ordinal)
                    at += 1
                ordinal += 1
            if at == before:
                return  # behind the last message

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _report(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _walk(self) -> Iterator[tuple[int, Iterator[Message]]]:
        """Yield (offset, messages) of each record that holds any; stop where the file is damaged.

        The messages must be taken before the next record is asked for.
        """
        offset = len(MAGIC)
        try:
            while offset < self._size:
                self._file.seek(offset)
                record = self._record()
                following = self._file.tell()
                yield offset, self._messages(*record)
                if not record[-1]:
                    raise _Damage('cut off')
                offset = following
        except (_Damage, *_ERRORS) as exc:
            self._report(f'{self.path.name} is damaged ({exc}); what lies before it is read')

    def _record(self) -> tuple[dict[str, bytes], bytes, bool]:
        """Return (header, data, whether the data is whole)."""
        header, whole = self._sized()
        if not whole:
            raise _Damage('cut off')
        return _fields(header), *self._sized()

    def _sized(self) -> tuple[bytes, bool]:
        head = self._file.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            raise _Damage('cut off')
        (length,) = _LENGTH.unpack(head)
        if length > compression.MAX_BYTES:
            raise _Damage(f'a record claims {length} bytes')
        content = self._file.read(min(length, self._size - self._file.tell()))
        return content, len(content) == length

    def _messages(self, header: dict[str, bytes], data: bytes, whole: bool) -> Iterator[Message]:
        """Yield the messages of a chunk or of a single record, and take the connections."""
        kind = header.get('op', b'\0')[0]
        if kind == _CHUNK:
            yield from self._in_chunk(header, data)
        elif whole:
            try:
                yield from self._take(kind, header, data)
            except (_Damage, *_ERRORS) as exc:
                self._report(f'{self.path.name}: a record is damaged: {exc}')

    def _in_chunk(self, header: dict[str, bytes], data: bytes) -> Iterator[Message]:
        method = header.get('compression', b'none').decode('ascii', 'replace')
        size = _LENGTH.unpack(header['size'])[0] if 'size' in header else None
        plain, problem = compression.decompress(data, '' if method == 'none' else method, size)
        position, view = 0, memoryview(plain)
        try:
            while position + _LENGTH.size <= len(view):
                head, position = _slice(view, position)
                body, position = _slice(view, position)
                fields = _fields(bytes(head))
                yield from self._take(fields['op'][0], fields, body)
        except (_Damage, *_ERRORS) as exc:
            problem = problem or str(exc)
        if problem:
            self._report(f'{self.path.name}: a chunk is damaged: {problem}')

    def _take(self, kind: int, header: dict[str, bytes], data: Buffer) -> Iterator[Message]:
        if kind == _CONNECTION:
            number = _LENGTH.unpack(header['conn'])[0]
            if number not in self._connections:
                self._connections[number] = self._connection(header, _fields(bytes(data)))
        elif kind == _MESSAGE:
            seconds, nanoseconds = struct.unpack('<II', header['time'])
            number = _LENGTH.unpack(header['conn'])[0]
            if number not in self._connections:
                raise _Damage(f'a message names unknown connection {number}')
            yield number, seconds * 10**9 + nanoseconds, data

    def _connection(
        self, header: dict[str, bytes], about: dict[str, bytes]
    ) -> tuple[str, TopicInfo]:
        """Return (topic, its type and definition) of a connection record."""
        info = TopicInfo(
            type=three_part_type(about['type'].decode('utf-8', 'replace')),
            count=0,
            encoding=ROS1,
            definition=about.get('message_definition', b'').decode('utf-8', 'replace'),
            definition_format='ros1msg',
        )
        return self._names.name(header['topic'].decode('utf-8', 'replace'), info), info


def _slice(data: memoryview, position: int) -> tuple[memoryview, int]:
    (length,) = _LENGTH.unpack_from(data, position)
    start = position + _LENGTH.size
    if start + length > len(data):
        raise _Damage('it is cut off')
    return data[start : start + length], start + length


def _fields(header: bytes) -> dict[str, bytes]:
    """Parse `length name=value` fields."""
    found = {}
    position, view = 0, memoryview(header)
    while position < len(view):
        field, position = _slice(view, position)
        name, _, value = bytes(field).partition(b'=')
        found[name.decode('ascii', 'replace')] = value
    return found
