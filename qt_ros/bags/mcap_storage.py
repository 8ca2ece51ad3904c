"""Read an MCAP file, whole or damaged: any profile, chunked or not, with or without an index.

The walk is linear over the records and needs neither summary nor footer. The summary is asked for
the counts and, where a record is damaged, for the next chunk from which the walk can go on; a file
without one is walked once more to count.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from mcap.opcode import Opcode

from qt_ros.bags.compression import MAX_BYTES
from qt_ros.bags.mcap_records import (
    FOOTER,
    HEAD,
    RECORD_ERRORS,
    WANTED,
    Names,
    Piece,
    Summary,
    read_metadata,
    single_message,
    split_chunk,
    summary_is_sound,
    unpack_chunk,
)
from qt_ros.bags.records import CDR, Record, TopicInfo, TopicNames, merge_topic, three_part_type

MAGIC = b'\x89MCAP0\r\n'
RECENT_BYTES = 8 << 20  # of unpacked chunks are kept
_ROS2_SCHEMAS = ('ros2msg', 'ros2idl')


class _Damage(Exception):
    """The walk cannot go on here; the text says where and why."""


class McapStorage:
    """One MCAP file; see `records.Storage`."""

    kind = 'mcap'

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self.metadata: dict[str, str] = {}
        self._file: BinaryIO = path.open('rb')
        self._size = path.stat().st_size
        self._names = Names()
        self._topic_names = TopicNames(path.name)
        self._topic_of: dict[int, str] = {}  # {channel: topic}
        self._chunk_starts = array('q')  # where the summary says that chunks begin
        self._firsts, self._offsets = array('q'), array('q')  # of pieces: ordinal, place
        self._scanned = False
        self._recent: dict[int, Piece] = {}  # {offset: chunk}
        self._recent_bytes = 0
        self._counts: Counter[int] = Counter()
        self._span_ns: tuple[int, int] | None = None
        if self._file.read(len(MAGIC)) != MAGIC:
            self.problems.append(f'{path.name} does not begin like an MCAP file')
        if not self._read_summary():
            for _ in self.scan(set()):
                pass

    @property
    def notes(self) -> list[str]:
        """What is odd about the file but costs no message."""
        return self._topic_names.notes

    def topics(self) -> dict[str, TopicInfo]:
        """Return the topics; two channels of one topic and type count together."""
        found: dict[str, TopicInfo] = {}
        for number, channel in self._names.channels.items():
            schema = self._names.schemas.get(channel.schema_id)
            form = schema.encoding if schema else ''
            encoding = channel.message_encoding or (CDR if form in _ROS2_SCHEMAS else '')
            info = TopicInfo(
                type=three_part_type(schema.name) if schema else '',
                count=self._counts[number],
                encoding=encoding,
                definition=schema.data.decode('utf-8', 'replace') if schema else '',
                definition_format=form,
            )
            name = self._topic_names.name(channel.topic, info)
            self._topic_of[number] = name
            found[name] = merge_topic(found.get(name), info)
        return found

    def span_ns(self) -> tuple[int, int] | None:
        """Return the first and the last log time [ns], None if there is no message."""
        return self._span_ns

    def scan(self, wanted: set[str] | None) -> Iterator[Record]:
        """Walk the whole file; what is unreadable is left out and told in `problems`."""
        first = not self._scanned
        counts: dict[int, int] = {}
        firsts, offsets = array('q'), array('q')
        ordinal = 0
        for offset, piece in self._walk(report=first):
            firsts.append(ordinal)
            offsets.append(offset)
            if first:
                self._widen_span(piece)
            data = piece.data
            for channel, log_ns, start, end in piece:
                topic = self._topic_of.get(channel) or self._topic(channel)
                if topic is not None:
                    counts[channel] = counts.get(channel, 0) + 1
                    if wanted is None or topic in wanted:
                        yield Record(topic, log_ns, bytes(data[start:end]), ordinal)
                ordinal += 1
        self._firsts, self._offsets, self._scanned = firsts, offsets, True
        if self._counts and counts != self._counts:
            self._report(
                f'{self.path.name}: its summary counts {self._counts.total()} messages,'
                f' {sum(counts.values())} are readable'
            )
        self._counts = Counter(counts)

    def fetch(self, ordinals: Iterable[int]) -> Iterator[Record]:
        """Read only the chunks that hold the wanted messages."""
        wanted = list(ordinals)
        if wanted and not self._scanned:
            for _ in self.scan(set()):
                pass
        at = 0
        while at < len(wanted):
            number = bisect_right(self._firsts, wanted[at]) - 1
            if number < 0:
                return
            first = self._firsts[number]
            piece = self._piece_at(self._offsets[number])
            if wanted[at] - first >= len(piece):
                return  # behind the last message
            while at < len(wanted) and (row := 4 * (wanted[at] - first)) < len(piece.rows):
                channel, log_ns, start, end = piece.rows[row : row + 4]
                topic = self._topic_of.get(channel)
                if topic is not None:
                    yield Record(topic, log_ns, bytes(piece.data[start:end]), wanted[at])
                at += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _widen_span(self, piece: Piece) -> None:
        span = piece.span_ns()
        if span is not None:
            low, high = self._span_ns or span
            self._span_ns = (min(low, span[0]), max(high, span[1]))

    def _topic(self, channel: int) -> str | None:
        """Return the topic of a channel that was met for the first time."""
        if channel in self._names.channels:
            self.topics()
            return self._topic_of[channel]
        self._report(f'{self.path.name}: a message names unknown channel {channel}')
        return None

    def _report(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _read_summary(self) -> bool:
        """Take names, counts and chunks from the summary; False if there is none to rely on."""
        end = self._size - len(MAGIC) - FOOTER.size
        if end < len(MAGIC):
            return False
        try:
            self._file.seek(end)
            footer = self._file.read(FOOTER.size)
            opcode, length, start, _, crc = FOOTER.unpack(footer)
            ended = self._file.read() == MAGIC and opcode == Opcode.FOOTER and length == 20
            if not ended or not 0 < start <= end or end - start > MAX_BYTES:
                return False
            self._file.seek(start)
            content = self._file.read(end - start)
            if not summary_is_sound(content, footer, crc):
                return False
            summary = Summary.read(content)
            if summary is None:
                return False
            for offset in summary.metadata_at:
                self.metadata.update(read_metadata(self._record_at(offset)[1]))
        except (*RECORD_ERRORS, _Damage):
            return False
        self._names, self._counts = summary.names, summary.counts
        self._span_ns = summary.span_ns
        for offset, length in summary.chunks:
            if 0 < offset <= self._size - HEAD.size:
                self._file.seek(offset)
                if HEAD.unpack(self._file.read(HEAD.size)) == (Opcode.CHUNK, length - HEAD.size):
                    self._chunk_starts.append(offset)
        return True

    def _next_chunk(self, offset: int) -> int | None:
        """Return where the first chunk behind `offset` begins, as far as the summary knows."""
        at = bisect_right(self._chunk_starts, offset)
        return self._chunk_starts[at] if at < len(self._chunk_starts) else None

    def _record_at(self, offset: int) -> tuple[int, bytes, int]:
        """Return (opcode, content, offset of the next record); raise `_Damage` if it is cut.

        A record that reaches into a chunk known from the summary has a damaged length.
        """
        if offset + HEAD.size > self._size:
            raise _Damage(f'{self.path.name} is cut off at byte {self._size}')
        self._file.seek(offset)
        opcode, length = HEAD.unpack(self._file.read(HEAD.size))
        following = offset + HEAD.size + length
        wanted = opcode in WANTED
        overlong = following > (self._next_chunk(offset) or following)
        if opcode == 0 or overlong or (wanted and length > MAX_BYTES):
            raise _Damage(f'{self.path.name} is damaged at byte {offset}')
        room = self._size - offset - HEAD.size
        return opcode, self._file.read(min(length, room)) if wanted else b'', following

    def _walk(self, *, report: bool) -> Iterator[tuple[int, Piece]]:
        """Yield (offset, messages) of each chunk and of each message outside chunks."""
        offset: int | None = len(MAGIC)
        while offset is not None:
            problem = f'{self.path.name} has no end (recording was not closed)'
            start = at = offset
            try:
                while at < self._size:
                    start = at
                    opcode, content, at = self._record_at(start)
                    if opcode == Opcode.CHUNK:
                        yield start, self._chunk(start, content, report=report)
                    elif opcode == Opcode.MESSAGE and at <= self._size:
                        yield start, single_message(content)
                    elif opcode in (Opcode.DATA_END, Opcode.FOOTER):
                        if self._next_chunk(start) is None:
                            return
                        raise _Damage(f'{self.path.name} is damaged at byte {start}')
                    elif report:
                        self._take(start, opcode, content)
                    if at > self._size:
                        raise _Damage(f'{self.path.name} is cut off at byte {self._size}')
            except _Damage as exc:
                problem = str(exc)
            offset = self._next_chunk(start)
            if report:
                rest = 'is read' if offset is None else f'and from byte {offset} on is read'
                self._report(f'{problem}; what lies before it {rest}')

    def _take(self, offset: int, opcode: int, content: bytes) -> None:
        """Take names and metadata that lie outside chunks."""
        sound = self._names.take(opcode, content)
        if opcode == Opcode.METADATA:
            try:
                self.metadata.update(read_metadata(content))
            except RECORD_ERRORS:
                sound = False
        if not sound:
            self._report(f'{self.path.name}: the record at byte {offset} is damaged and left out')

    def _piece_at(self, offset: int) -> Piece:
        """Return the messages of the chunk or message record at `offset`."""
        if offset in self._recent:
            return self._recent[offset]
        opcode, content, _ = self._record_at(offset)
        if opcode == Opcode.MESSAGE:
            return single_message(content)
        # A scan has found where messages are: in chunks whose checksums are right.
        return self._chunk(offset, content, report=False, checked=True)

    def _chunk(self, offset: int, content: bytes, *, report: bool, checked: bool = False) -> Piece:
        """Unpack a chunk; its complete messages are returned and remembered for a while.

        A short bag is a chunk or two, read once for each topic that is fetched.
        """
        data, problem = unpack_chunk(content, checked=checked)
        piece, wrong = split_chunk(data, self._names)
        if (problem or wrong) and report:
            self._report(f'{self.path.name}: a chunk is damaged: {problem or wrong}')
        if offset not in self._recent:
            self._recent[offset] = piece
            self._recent_bytes += len(piece.data)
        while self._recent_bytes > RECENT_BYTES:
            self._recent_bytes -= len(self._recent.pop(next(iter(self._recent))).data)
        return piece
