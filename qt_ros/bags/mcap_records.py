"""The records of an MCAP file that are read here, taken apart: chunks, messages, the summary."""

from __future__ import annotations

import struct
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Metadata, Schema, Statistics

from qt_ros.bags import compression

HEAD = struct.Struct('<BQ')  # opcode, length
FOOTER = struct.Struct('<BQQQI')  # opcode, length, summary start, summary offsets' start, CRC
_CHUNK = struct.Struct('<QQQII')  # first time, last time, length unpacked, CRC, length of a text
_LENGTH = struct.Struct('<Q')
_MESSAGE = struct.Struct('<BQHIQQ')  # opcode, length, channel, sequence, log time, publish time
_MESSAGE_FIELDS = _MESSAGE.size - HEAD.size
_CHUNK_INDEX = struct.Struct('<QQQQ')  # first time, last time, offset, length
# Records that do not parse fail in these ways, our own and the mcap package's.
RECORD_ERRORS = (struct.error, McapError, ValueError, IndexError, OverflowError)
_NAMED = (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE, Opcode.CHUNK, Opcode.METADATA)
WANTED = (*_NAMED, Opcode.DATA_END, Opcode.FOOTER)  # everything else is skipped unread

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Piece:
    """A chunk's messages, or one outside chunks: where they lie in `data`.

    rows: (4 N,) channel, log time [ns], start and end of each message, in storage order. Plain
    numbers: a hostile chunk may hold millions of empty messages.
    """

    data: Buffer
    rows: array[int]

    def __len__(self) -> int:
        return len(self.rows) // 4

    def __iter__(self) -> Iterator[tuple[int, int, int, int]]:
        values = iter(self.rows)
        return zip(values, values, values, values, strict=True)

    def span_ns(self) -> tuple[int, int] | None:
        """Return the first and the last log time, None without messages."""
        times = self.rows[1::4]
        return (min(times), max(times)) if times else None


@dataclass
class Names:
    """The schemas and channels seen so far; the first of a number stays."""

    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)

    def take(self, opcode: int, content: Buffer) -> bool:
        """Note a schema or a channel, pass over anything else; False if it does not parse."""
        try:
            if opcode == Opcode.SCHEMA:
                schema = Schema.read(stream(content))
                self.schemas.setdefault(schema.id, schema)
            elif opcode == Opcode.CHANNEL:
                channel = Channel.read(stream(content))
                self.channels.setdefault(channel.id, channel)
        except RECORD_ERRORS:
            return False
        return True

    def complete(self, numbers: Counter[int]) -> bool:
        """Return True if these channels and their schemas are all known."""
        known = [self.channels.get(number) for number in numbers]
        return all(c and (not c.schema_id or c.schema_id in self.schemas) for c in known)


@dataclass
class Summary:
    """What the end of a file says about it."""

    names: Names
    counts: Counter[int]  # {channel: messages}
    chunks: list[tuple[int, int]]  # (offset, length) of their records, in file order
    metadata_at: list[int]
    span_ns: tuple[int, int] | None

    @classmethod
    def read(cls, content: bytes) -> Summary | None:
        """Parse the summary section; None if it has no counts or lacks names.

        Raise one of `RECORD_ERRORS` if it is damaged.
        """
        names, metadata_at, statistics = Names(), [], None
        chunks: list[tuple[int, int]] = []
        position = 0
        while position + HEAD.size <= len(content):
            opcode, length = HEAD.unpack_from(content, position)
            start, position = position + HEAD.size, position + HEAD.size + length
            if position > len(content):
                raise ValueError('a record of the summary is cut off')
            body = memoryview(content)[start:position]
            if opcode == Opcode.STATISTICS:
                statistics = Statistics.read(stream(body))
            elif opcode == Opcode.CHUNK_INDEX:
                _, _, offset, size = _CHUNK_INDEX.unpack_from(body)
                chunks.append((offset, size))
            elif opcode == Opcode.METADATA_INDEX:
                metadata_at.append(_LENGTH.unpack_from(body)[0])
            else:
                names.take(opcode, body)
        if statistics is None:
            return None
        counts = Counter({k: n for k, n in statistics.channel_message_counts.items() if n})
        if counts.total() != statistics.message_count or not names.complete(counts):
            return None
        span = (statistics.message_start_time, statistics.message_end_time) if counts else None
        return cls(names, counts, sorted(chunks), metadata_at, span)


def summary_is_sound(content: bytes, footer: bytes, crc: int) -> bool:
    """Compare the summary with its checksum; 0 stands for none."""
    return crc in (0, zlib.crc32(footer[: FOOTER.size - 4], zlib.crc32(content)))


def unpack_chunk(content: bytes, *, checked: bool = False) -> tuple[Buffer, str]:
    """Return the records of a chunk as far as they can be had, and what is wrong with them.

    `checked` says that its checksum was found right before.
    """
    if len(content) < _CHUNK.size:
        return b'', ''
    _, _, size, crc, named = _CHUNK.unpack_from(content)
    start = _CHUNK.size + named + _LENGTH.size
    if start > len(content):
        return b'', 'its head is cut off'
    method = content[_CHUNK.size : _CHUNK.size + named].decode('utf-8', 'replace')
    (length,) = _LENGTH.unpack_from(content, start - _LENGTH.size)
    packed = memoryview(content)[start : start + length]
    data, problem = compression.decompress(packed, method, size)
    if not problem and not checked and crc not in (0, zlib.crc32(data)):
        return b'', 'its checksum is wrong; its messages are left out'
    return data, problem


def split_chunk(data: Buffer, names: Names) -> tuple[Piece, str]:
    """Find the messages in a chunk's records, and what is wrong with these ('' if nothing).

    Schemas and channels are taken on the way.
    """
    rows = array('Q')
    problem = ''
    position, end = 0, len(data)
    message, size, fields = int(Opcode.MESSAGE), _MESSAGE.size, _MESSAGE_FIELDS
    unpack, head, extend = _MESSAGE.unpack_from, HEAD.size, rows.extend
    while position + head <= end:
        if data[position] == message and position + size <= end:
            _, length, channel, _, log_ns, _ = unpack(data, position)
            body, position = position + size, position + head + length
            if position > end:
                problem = 'a message is cut off'
            elif length >= fields:
                extend((channel, log_ns, body, position))
            continue
        opcode, length = HEAD.unpack_from(data, position)
        body, position = position + head, position + head + length
        if (
            opcode == 0
            or position > end
            or not names.take(opcode, memoryview(data)[body:position])
        ):
            problem = 'a record in it makes no sense'
            position = end if opcode == 0 else position
    return Piece(data, rows), problem


def single_message(content: bytes) -> Piece:
    """Return a message record outside chunks; without rows if it is too short to be one."""
    if len(content) < _MESSAGE_FIELDS:
        return Piece(content, array('Q'))
    channel, _, log_ns, _ = struct.unpack_from('<HIQQ', content)
    return Piece(content, array('Q', (channel, log_ns, _MESSAGE_FIELDS, len(content))))


def read_metadata(content: bytes) -> dict[str, str]:
    """Return {record's name/key: value} of a metadata record."""
    record = Metadata.read(stream(content))
    return {f'{record.name}/{key}': value for key, value in record.metadata.items()}


def stream(content: Buffer) -> Any:
    """Wrap bytes for the mcap package's parsers."""
    return ReadDataStream(BytesIO(content))
