"""Read a rosbag2 `.db3` file without writing anything beside it.

SQLite creates `-wal` and `-shm` files next to a database that it opens, even for reading. The
`immutable` flag stops that but also ignores what a recorder left in a write-ahead log or a
rollback journal; so a bag beside which one of these holds data is copied to a temporary folder,
and every other one is opened where it lies.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qt_ros.bags.records import (
    CDR,
    ORDINALS_PER_FILE,
    Record,
    TopicInfo,
    TopicNames,
    merge_topic,
    three_part_type,
)
from qt_ros.errors import BagError

MAGIC = b'SQLite format 3\x00'
MAX_DAMAGE = 1000  # damaged places in one file that are hopped over
# Besides its own errors: text, numbers and column names of a damaged file fail in Python.
_ERRORS = (sqlite3.Error, ValueError, OverflowError, LookupError)
_TABLES = ('topics', 'messages', 'message_definitions', 'metadata')
_COMPUTED = re.compile(r'^\s*CREATE\s+VIRTUAL|\bAS\s*\(', re.I)
_LOGS = ('-wal', '-journal')
_METADATA = 'rosbag2/serialized_metadata'  # the name that it has in MCAP files


class SqliteStorage:
    """One sqlite3 file; see `records.Storage`. Ordinals are the row ids of `messages`."""

    kind = 'sqlite3'

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self.metadata: dict[str, str] = {}
        self._names = TopicNames(path.name)
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._topics: dict[int, tuple[str, TopicInfo]] = {}
        try:
            self._db = self._open(path)
            self._db.text_factory = lambda raw: raw.decode('utf-8', 'replace')
            self._check_tables()
            self._read_topics()
            self._read_metadata()
        except _ERRORS as exc:
            self.close()
            raise BagError(
                f'{path}: {exc}; expected a rosbag2 sqlite3 file with the tables topics and'
                ' messages'
            ) from exc
        except BaseException:
            self.close()
            raise

    @property
    def notes(self) -> list[str]:
        """What is odd about the file but costs no message."""
        return self._names.notes

    def topics(self) -> dict[str, TopicInfo]:
        """Return the topics; a name listed under two ids counts together."""
        found: dict[str, TopicInfo] = {}
        for name, info in self._topics.values():
            found[name] = merge_topic(found.get(name), info)
        return found

    def span_ns(self) -> tuple[int, int] | None:
        """Return the first and the last log time [ns], None if there is no message."""
        rows = self._optional('SELECT min(timestamp), max(timestamp) FROM messages')
        low, high = rows[0] if rows else (None, None)
        return (low, high) if isinstance(low, int) and isinstance(high, int) else None

    def scan(self, wanted: set[str] | None) -> Iterator[Record]:
        """Yield messages in the order in which they were written."""
        numbers = [
            number
            for number, (name, _) in self._topics.items()
            if wanted is None or name in wanted
        ]
        marks = ','.join('?' * len(numbers))
        rows = self._rows('rowid, topic_id, timestamp, data', f'topic_id IN ({marks})', numbers)
        yield from self._records(rows)

    def fetch(self, ordinals: Iterable[int]) -> Iterator[Record]:
        """Yield single rows by their id."""
        query = 'SELECT rowid, topic_id, timestamp, data FROM messages WHERE rowid = ?'
        for ordinal in ordinals:
            try:
                row = self._db.execute(query, [int(ordinal)]).fetchone()
            except _ERRORS as exc:
                self._report_damage(exc)
                continue
            if row is not None:
                yield from self._records([row])

    def close(self) -> None:
        """Close the file and remove the temporary copy, if there was one."""
        if hasattr(self, '_db'):
            self._db.close()
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    def _open(self, path: Path) -> sqlite3.Connection:
        logs = [path.with_name(path.name + ending) for ending in _LOGS]
        logs = [log for log in logs if log.is_file() and log.stat().st_size]
        if logs:
            folder = self._folder()
            for log in logs:
                shutil.copyfile(log, folder / log.name)
            return sqlite3.connect(shutil.copyfile(path, folder / path.name))
        whole = self._whole_bytes(path)
        if whole is not None:
            # Half a page would be read as if filled up with zeros.
            path = Path(shutil.copyfile(path, self._folder() / path.name))
            os.truncate(path, whole)
        uri = f'file:{quote(os.fsencode(path.resolve()))}?mode=ro&immutable=1'
        db = sqlite3.connect(uri, uri=True)
        if whole is not None:
            # With this flag SQLite opens a file without its last pages, and fails at these only.
            db.execute('PRAGMA writable_schema = ON')
        return db

    def _folder(self) -> Path:
        self._copy = tempfile.TemporaryDirectory(prefix='qt-ros-bag-')
        return Path(self._copy.name)

    def _whole_bytes(self, path: Path) -> int | None:
        """Return the length of the complete pages if the file is cut off, else None."""
        size = path.stat().st_size
        with path.open('rb') as file:
            head = file.read(32)
        if len(head) < 32:
            return None
        page, pages = struct.unpack_from('>H', head, 16)[0], struct.unpack_from('>I', head, 28)[0]
        page = 65536 if page == 1 else page
        if page < 512 or size >= page * pages:
            return None
        self._report(
            f'{path.name} is cut off: {size} of {page * pages} bytes are there; what is readable'
            ' is read'
        )
        return size // page * page

    def _records(self, rows: Iterable[Sequence[Any]]) -> Iterator[Record]:
        for number, topic, log_ns, data in rows:
            sound = isinstance(log_ns, int) and isinstance(data, bytes)
            if not sound or not 0 <= number < ORDINALS_PER_FILE or topic not in self._topics:
                self._report(f'{self.path.name}: message {number} is not readable')
                continue
            yield Record(self._topics[topic][0], log_ns, data, number)

    def _rows(
        self, columns: str, condition: str = '1', values: Sequence[int] = ()
    ) -> Iterator[Sequence[Any]]:
        """Yield rows of `messages` in the order of their ids, hopping over damaged places."""
        query = f'SELECT {columns} FROM messages WHERE rowid > ? AND {condition} ORDER BY rowid'
        at = -1
        for _ in range(MAX_DAMAGE):
            try:
                for row in self._db.execute(query, [at, *values]):
                    if row[0] <= at:  # pages that refer to each other in circles
                        raise sqlite3.DatabaseError('its rows are out of order')
                    at = row[0]
                    yield row
                return
            except _ERRORS as exc:
                self._report_damage(exc)
            behind = self._behind_damage(at)
            if behind is None:
                return
            at = behind

    def _behind_damage(self, at: int) -> int | None:
        """Return the id behind which a row is readable again, None if there is none.

        The row behind `at` is not. Doubling strides find a place behind the damage, halving ones
        where it ends.
        """
        stride = 1
        while not self._readable_behind(at + stride):
            stride *= 2
            if at + stride > ORDINALS_PER_FILE:
                return None
        low, high = at + stride // 2, at + stride
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._readable_behind(middle) else (middle, high)
        return high

    def _readable_behind(self, number: int) -> bool:
        query = (
            'SELECT rowid, topic_id, timestamp, data FROM messages WHERE rowid > ?'
            ' ORDER BY rowid LIMIT 1'
        )
        try:
            row = self._db.execute(query, [number]).fetchone()
        except _ERRORS:
            return False
        return row is not None and row[0] > number

    def _report_damage(self, exc: Exception) -> None:
        self._report(f'{self.path.name} is damaged ({exc}); what is readable is read')

    def _report(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _check_tables(self) -> None:
        """Refuse queries in the place of tables: reading one may never end."""
        there = set()
        for name, kind, made in self._db.execute('SELECT name, type, sql FROM sqlite_master'):
            if _text(name).lower() not in _TABLES or kind == 'index':
                continue
            if kind != 'table' or _COMPUTED.search(_text(made)):
                raise ValueError(f'{name} is no plain table')
            there.add(_text(name).lower())
        if not there.issuperset(('topics', 'messages')):
            raise ValueError('it lacks them')

    def _read_topics(self) -> None:
        """Read topics, counts and definitions; the columns differ between rosbag2 versions."""
        definitions = self._definitions()
        counts: dict[int, int] = {}
        # Counted here, not by SQLite, so that a damaged page costs only what lies on it.
        for _, topic in self._rows('rowid, topic_id'):
            counts[topic] = counts.get(topic, 0) + 1
        cursor = self._db.execute('SELECT * FROM topics')
        columns = [column[0] for column in cursor.description]
        for row in cursor.fetchall():
            entry = dict(zip(columns, row, strict=True))
            kind = three_part_type(_text(entry.get('type')))
            form, text = definitions.get(kind, ('ros2msg', ''))
            info = TopicInfo(
                type=kind,
                count=counts.pop(entry['id'], 0),
                encoding=_text(entry.get('serialization_format')) or CDR,
                definition=text,
                definition_format=form,
            )
            self._topics[entry['id']] = (self._names.name(_text(entry['name']), info), info)
        for number, count in counts.items():
            self._report(f'{self.path.name}: {count} messages name unknown topic {number}')

    def _definitions(self) -> dict[str, tuple[str, str]]:
        """Return {type: (format, definition)}; {} for files from before definitions were kept."""
        rows = self._optional(
            'SELECT topic_type, encoding, encoded_message_definition FROM message_definitions'
        )
        return {
            three_part_type(_text(kind)): (_text(form), _text(text)) for kind, form, text in rows
        }

    def _read_metadata(self) -> None:
        """Take the newest copy of metadata.yaml that later versions keep in the file."""
        for (text,) in self._optional('SELECT metadata FROM metadata ORDER BY rowid'):
            self.metadata[_METADATA] = str(text)

    def _optional(self, query: str) -> list[Sequence[Any]]:
        """Return the rows of a table that older files lack."""
        try:
            return self._db.execute(query).fetchall()
        except sqlite3.OperationalError:  # no such table
            return []
        except _ERRORS as exc:
            self._report(f'{self.path.name} is damaged ({exc}); what is readable is read')
            return []


def _text(value: Any) -> str:
    """Return what a column holds as text; a damaged one may hold anything."""
    if isinstance(value, bytes):
        return value.decode('utf-8', 'replace')
    return '' if value is None else str(value)
