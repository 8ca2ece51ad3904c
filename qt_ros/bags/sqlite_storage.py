"""Read a rosbag2 `.db3` file without writing anything beside it.

SQLite creates `-wal` and `-shm` files next to a database that it opens, even for reading. The
`immutable` flag stops that but also ignores a write-ahead log; so a bag with a log that holds data
is copied to a temporary folder, and every other one is opened where it lies.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from qt_ros.bags.records import (
    CDR,
    ORDINALS_PER_FILE,
    Record,
    TopicInfo,
    merge_topic,
    three_part_type,
)
from qt_ros.errors import BagError

MAGIC = b'SQLite format 3\x00'
# Besides its own errors: text, numbers and column names of a damaged file fail in Python.
_ERRORS = (sqlite3.Error, ValueError, OverflowError, LookupError)


class SqliteStorage:
    """One sqlite3 file; see `records.Storage`. Ordinals are the row ids of `messages`."""

    kind = 'sqlite3'

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self.metadata: dict[str, str] = {}
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._db = self._open(path)
        self._db.text_factory = lambda raw: raw.decode('utf-8', 'replace')
        self._topics: dict[int, tuple[str, TopicInfo]] = {}
        try:
            self._read_topics()
        except _ERRORS as exc:
            self.close()
            raise BagError(
                f'{path}: {exc}; expected a rosbag2 sqlite3 file with the tables topics and'
                ' messages'
            ) from exc

    def topics(self) -> dict[str, TopicInfo]:
        """Return the topics; a name listed under two ids counts together."""
        found: dict[str, TopicInfo] = {}
        for name, info in self._topics.values():
            found[name] = merge_topic(found.get(name), info)
        return found

    def scan(self, wanted: set[str] | None) -> Iterator[Record]:
        """Yield messages in the order in which they were written."""
        numbers = [
            number
            for number, (name, _) in self._topics.items()
            if wanted is None or name in wanted
        ]
        marks = ','.join('?' * len(numbers))
        yield from self._records(
            'SELECT id, topic_id, timestamp, data FROM messages'
            f' WHERE topic_id IN ({marks}) ORDER BY id',
            numbers,
        )

    def fetch(self, ordinals: Iterable[int]) -> Iterator[Record]:
        """Yield single rows by their id."""
        for ordinal in ordinals:
            yield from self._records(
                'SELECT id, topic_id, timestamp, data FROM messages WHERE id = ?', [int(ordinal)]
            )

    def close(self) -> None:
        """Close the file and remove the temporary copy, if there was one."""
        self._db.close()
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    def _open(self, path: Path) -> sqlite3.Connection:
        wal = path.with_name(f'{path.name}-wal')
        if wal.is_file() and wal.stat().st_size:
            folder = self._folder()
            shutil.copyfile(wal, folder / wal.name)
            return sqlite3.connect(shutil.copyfile(path, folder / path.name))
        whole = self._whole_bytes(path)
        if whole is not None:
            # Half a page would be read as if filled up with zeros.
            path = Path(shutil.copyfile(path, self._folder() / path.name))
            os.truncate(path, whole)
        uri = f'file:{quote(str(path.resolve()))}?mode=ro&immutable=1'
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

    def _records(self, query: str, values: list[int]) -> Iterator[Record]:
        try:
            for number, topic, log_ns, data in self._db.execute(query, values):
                sound = isinstance(log_ns, int) and isinstance(data, bytes)
                if not sound or not 0 <= number < ORDINALS_PER_FILE:
                    self._report(f'{self.path.name}: message {number} is not readable')
                    continue
                yield Record(self._topics[topic][0], log_ns, data, number)
        except _ERRORS as exc:
            self._report(f'{self.path.name} is damaged ({exc}); what lies before it is read')

    def _report(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _read_topics(self) -> None:
        """Read topics, counts and definitions; the columns differ between rosbag2 versions."""
        definitions = self._definitions()
        counts = self._counts()
        cursor = self._db.execute('SELECT * FROM topics')
        columns = [column[0] for column in cursor.description]
        for row in cursor.fetchall():
            entry = dict(zip(columns, row, strict=True))
            kind = three_part_type(str(entry.get('type', '')))
            form, text = definitions.get(kind, ('ros2msg', ''))
            info = TopicInfo(
                type=kind,
                count=counts.pop(entry['id'], 0),
                encoding=entry.get('serialization_format') or CDR,
                definition=text,
                definition_format=form,
            )
            self._topics[entry['id']] = (str(entry['name']), info)
        for number, count in counts.items():
            self._report(f'{self.path.name}: {count} messages name unknown topic {number}')

    def _counts(self) -> dict[int, int]:
        """Count the rows; a damaged file is counted as far as it reads."""
        counts: dict[int, int] = {}
        try:
            # Aggregated here, not by SQLite, so that a damaged page costs only what is behind it.
            for (topic,) in self._db.execute('SELECT topic_id FROM messages ORDER BY id'):
                counts[topic] = counts.get(topic, 0) + 1
        except _ERRORS as exc:
            self._report(f'{self.path.name} is damaged ({exc}); what lies before it is read')
        return counts

    def _definitions(self) -> dict[str, tuple[str, str]]:
        """Return {type: (format, definition)}; {} for files from before definitions were kept."""
        try:
            rows = self._db.execute(
                'SELECT topic_type, encoding, encoded_message_definition FROM message_definitions'
            ).fetchall()
        except sqlite3.OperationalError:  # no such table
            return {}
        except _ERRORS as exc:
            self._report(f'{self.path.name}: its message definitions are damaged ({exc})')
            return {}
        return {three_part_type(str(kind)): (str(form), str(text)) for kind, form, text in rows}
