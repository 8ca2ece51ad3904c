"""Read an MCAP file, whole or damaged: any profile, chunked or not, with or without an index.

The walk is linear over the records and needs neither summary nor footer. The summary is only asked
for the counts, and only if the file has one; a truncated or damaged file is walked to count.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Footer, Metadata, Schema, Statistics

from qt_ros.bags import compression
from qt_ros.bags.records import Record, TopicInfo, merge_topic, three_part_type

MAGIC = b'\x89MCAP0\r\n'
RECENT_BYTES = 8 << 20  # of unpacked chunks are kept
_FOOTER_BYTES = 9 + 20 + len(MAGIC)
_HEAD = struct.Struct('<BQ')
_MESSAGE = struct.Struct('<HIQQ')
_RECORD_ERRORS = (struct.error, McapError, ValueError, IndexError, OverflowError)


class _Raw(NamedTuple):
    """A message before its channel is looked up."""

    channel: int
    log_ns: int
    data: bytes


class _Damage(Exception):
    """The walk cannot go on; the text says where and why."""


class McapStorage:
    """One MCAP file; see `records.Storage`."""

    kind = 'mcap'

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self.metadata: dict[str, str] = {}
        self._file: BinaryIO = path.open('rb')
        self._size = path.stat().st_size
        self._channels: dict[int, Channel] = {}
        self._schemas: dict[int, Schema] = {}
        self._starts: list[tuple[int, int]] = []  # (first ordinal, offset) of chunks and messages
        self._scanned = False
        self._recent: dict[int, list[_Raw]] = {}  # {offset: messages of a chunk}
        self._recent_bytes = 0
        self._counts: Counter[int] = Counter()
        if self._file.read(len(MAGIC)) != MAGIC:
            self.problems.append(f'{path.name} does not begin like an MCAP file')
        if not self._read_summary():
            for _ in self.scan(None):
                pass

    def topics(self) -> dict[str, TopicInfo]:
        """Return the topics; two channels of one topic count together."""
        found: dict[str, TopicInfo] = {}
        for number, channel in self._channels.items():
            schema = self._schemas.get(channel.schema_id)
            info = TopicInfo(
                type=three_part_type(schema.name) if schema else '',
                count=self._counts[number],
                encoding=channel.message_encoding,
                definition=schema.data.decode('utf-8', 'replace') if schema else '',
                definition_format=schema.encoding if schema else '',
            )
            found[channel.topic] = merge_topic(found.get(channel.topic), info)
        return found

    def scan(self, wanted: set[str] | None) -> Iterator[Record]:
        """Walk the whole file; what is unreadable is left out and told in `problems`."""
        first = not self._scanned
        counts: Counter[int] = Counter()
        starts: list[tuple[int, int]] = []
        ordinal = 0
        for offset, messages in self._walk(report=first):
            starts.append((ordinal, offset))
            for channel, log_ns, data in messages:
                known = self._channels.get(channel)
                if known is None:
                    self._report(f'{self.path.name}: a message names unknown channel {channel}')
                    continue
                counts[channel] += 1
                if wanted is None or known.topic in wanted:
                    yield Record(known.topic, log_ns, data, ordinal)
                ordinal += 1
        self._starts, self._scanned = starts, True
        if self._counts and counts != self._counts:
            self._report(
                f'{self.path.name}: its summary counts {self._counts.total()} messages,'
                f' {counts.total()} are readable'
            )
        self._counts = counts

    def fetch(self, ordinals: Iterable[int]) -> Iterator[Record]:
        """Read only the chunks that hold the wanted messages."""
        wanted = list(ordinals)
        if not wanted:
            return
        if not self._scanned:
            for _ in self.scan(set()):
                pass
        firsts = [first for first, _ in self._starts]
        at = 0
        while at < len(wanted):
            piece = bisect_right(firsts, wanted[at]) - 1
            ordinal, offset = self._starts[piece]
            for channel, log_ns, data in self._messages_at(offset):
                if channel not in self._channels:
                    continue
                if at < len(wanted) and wanted[at] == ordinal:
                    yield Record(self._channels[channel].topic, log_ns, data, ordinal)
                    at += 1
                ordinal += 1
            if at < len(wanted) and wanted[at] < ordinal:
                return

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _report(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _read_summary(self) -> bool:
        """Take channels and counts from the summary; False if there is none to rely on."""
        try:
            if self._size < _FOOTER_BYTES + len(MAGIC):
                return False
            self._file.seek(self._size - _FOOTER_BYTES)
            tail = self._file.read()
            opcode, length = _HEAD.unpack_from(tail)
            if not tail.endswith(MAGIC) or opcode != Opcode.FOOTER or length != 20:
                return False
            footer = Footer.read(_stream(tail[9:]))
            if not 0 < footer.summary_start < self._size:
                return False
            statistics, metadata_at = self._summary_records(footer.summary_start)
            for offset in metadata_at:
                self._take_metadata(self._record_at(offset)[1])
        except (*_RECORD_ERRORS, _Damage):
            statistics = None
        if statistics is None:
            self._channels.clear()
            self._schemas.clear()
            return False
        self._counts = Counter(
            {key: count for key, count in statistics.channel_message_counts.items() if count}
        )
        return self._counts.total() == statistics.message_count

    def _summary_records(self, start: int) -> tuple[Statistics | None, list[int]]:
        statistics, metadata_at, offset = None, [], start
        while offset < self._size - _FOOTER_BYTES:
            opcode, content, offset = self._record_at(offset)
            if opcode == Opcode.STATISTICS:
                statistics = Statistics.read(_stream(content))
            elif opcode == Opcode.METADATA_INDEX:
                metadata_at.append(struct.unpack_from('<Q', content)[0])
            else:
                self._take_names(opcode, content)
        return statistics, metadata_at

    def _record_at(self, offset: int) -> tuple[int, bytes, int]:
        """Return (opcode, content, offset of the next record); raise `_Damage` if it is cut."""
        if offset + 9 > self._size:
            raise _Damage(f'{self.path.name} is cut off at byte {self._size}')
        self._file.seek(offset)
        head = self._file.read(9)
        if len(head) < 9:
            raise _Damage(f'{self.path.name} is cut off at byte {self._size}')
        opcode, length = _HEAD.unpack(head)
        if opcode == 0:
            raise _Damage(f'{self.path.name} is damaged at byte {offset}')
        content = self._file.read(min(length, self._size - offset - 9))
        return opcode, content, offset + 9 + length

    def _walk(self, *, report: bool) -> Iterator[tuple[int, list[_Raw]]]:
        """Yield (offset, messages) of each chunk and of each message outside chunks."""
        offset = len(MAGIC)
        ended = False
        try:
            while offset < self._size:
                start = offset
                opcode, content, offset = self._record_at(offset)
                if opcode == Opcode.CHUNK:
                    yield start, self._chunk(start, content, report=report)
                elif opcode == Opcode.MESSAGE and offset <= self._size:
                    yield start, [_message(content)]
                elif opcode == Opcode.METADATA and report:
                    self._take_metadata(content)
                elif opcode in (Opcode.DATA_END, Opcode.FOOTER):
                    ended = True
                    break
                else:
                    self._take_names(opcode, content)
                if offset > self._size:
                    raise _Damage(f'{self.path.name} is cut off at byte {self._size}')
        except (*_RECORD_ERRORS, _Damage) as exc:
            if report:
                text = str(exc) if isinstance(exc, _Damage) else f'{self.path.name}: {exc}'
                self._report(f'{text}; what lies before it is read')
            return
        if not ended and report:
            self._report(f'{self.path.name} has no end (recording was not closed); read as it is')

    def _messages_at(self, offset: int) -> list[_Raw]:
        """Return the messages of the chunk or message record at `offset`."""
        if offset in self._recent:
            return self._recent[offset]
        opcode, content, _ = self._record_at(offset)
        if opcode == Opcode.MESSAGE:
            return [_message(content)]
        return self._chunk(offset, content, report=False)

    def _chunk(self, offset: int, content: bytes, *, report: bool) -> list[_Raw]:
        """Unpack a chunk; its complete messages are returned and remembered for a while.

        A short bag is a chunk or two, read once for each topic that is fetched.
        """
        messages = self._unpack(content, report=report)
        if offset not in self._recent:
            self._recent[offset] = messages
            self._recent_bytes += _size(messages)
        while self._recent_bytes > RECENT_BYTES:
            self._recent_bytes -= _size(self._recent.pop(next(iter(self._recent))))
        return messages

    def _unpack(self, content: bytes, *, report: bool) -> list[_Raw]:
        if len(content) < 32:
            return []
        chunk = Chunk.read(_stream(content))
        data, problem = compression.decompress(
            chunk.data, chunk.compression, chunk.uncompressed_size
        )
        if not problem and chunk.uncompressed_crc not in (0, zlib.crc32(data)):
            data, problem = b'', 'its checksum is wrong; its messages are left out'
        if problem and report:
            self._report(f'{self.path.name}: a chunk is damaged: {problem}')
        return self._split(data)

    def _split(self, data: bytes) -> list[_Raw]:
        """Cut the content of a chunk into messages; schemas and channels are taken on the way."""
        messages = []
        position, end = 0, len(data)
        while position + 9 <= end:
            opcode, length = _HEAD.unpack_from(data, position)
            body = position + 9
            position = body + length
            if position > end:
                break
            if opcode == Opcode.MESSAGE and length >= _MESSAGE.size:
                channel, _, log_ns, _ = _MESSAGE.unpack_from(data, body)
                messages.append(_Raw(channel, log_ns, data[body + _MESSAGE.size : position]))
            else:
                self._take_names(opcode, data[body:position])
        return messages

    def _take_names(self, opcode: int, content: bytes) -> None:
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(_stream(content))
            self._schemas.setdefault(schema.id, schema)
        elif opcode == Opcode.CHANNEL:
            channel = Channel.read(_stream(content))
            self._channels.setdefault(channel.id, channel)

    def _take_metadata(self, content: bytes) -> None:
        record = Metadata.read(_stream(content))
        for key, value in record.metadata.items():
            self.metadata[f'{record.name}/{key}'] = value


def _size(messages: list[_Raw]) -> int:
    return sum(len(message.data) for message in messages)


def _message(content: bytes) -> _Raw:
    channel, _, log_ns, _ = _MESSAGE.unpack_from(content)
    return _Raw(channel, log_ns, content[_MESSAGE.size :])


def _stream(content: bytes) -> Any:
    return ReadDataStream(BytesIO(content))
