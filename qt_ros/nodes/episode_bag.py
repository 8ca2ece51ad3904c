"""One episode's bag while it is written: a queue, a thread that writes, a folder that is renamed.

    OUT/.recording/NAME/   while it is written; what a killed recorder leaves there is found later
    OUT/NAME/              a finished bag
    OUT/NAME.recovered/    what could be saved of one that was not finished

Nothing is dropped: a message is in the queue or in the bag, or the episode ends with the error
that stopped the writing.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError

from qt_ros.errors import BagError
from qt_ros.nodes.definitions import message_definition
from qt_ros.nodes.log_clock import Arrival, SimLogClock, SystemLogClock

PARTIAL = '.recording'
FLUSH_S = 2.0  # a crash costs at most what came in this time
QUEUE_BYTES = 512 * 2**20  # waiting for a disk that is too slow


@dataclass
class TopicCount:
    """What one topic has in the bag; `early`: from before the episode's start."""

    type: str
    messages: int = 0
    bytes: int = 0
    early: int = 0


@dataclass(frozen=True)
class _Item:
    topic: str
    data: bytes
    log_ns: int | None = None  # None: `arrival` decides
    arrival: Arrival | None = None
    early: bool = False


@dataclass
class _Progress:
    """Shared by the two threads; every field is written by one of them only."""

    taken_bytes: int = 0  # out of the queue, by the writer
    error: str = ''  # by the writer
    counts: dict[str, TopicCount] = field(default_factory=dict)  # by the writer


class EpisodeBag:
    """Writes one bag in a thread of its own."""

    def __init__(
        self,
        out: Path,
        name: str,
        topics: Mapping[str, tuple[str, list[Qos]]],
        clock: SystemLogClock | SimLogClock,
    ) -> None:
        """Open a bag for topics {topic: (type, offered qualities)}; raises QtRosError."""
        self.uri = _free(out, name)
        self._partial = out / PARTIAL / self.uri.name
        self._clock = clock
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._put_bytes = 0
        self._final = False
        self._progress = _Progress()
        definitions = {kind: message_definition(kind) for kind, _ in topics.values()}
        try:
            self._writer = Writer(self._partial, version=9, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
            self._connections: dict[str, Connection] = {}
            for topic, (kind, qos) in topics.items():
                self._progress.counts[topic] = TopicCount(kind)
                self._connections[topic] = self._writer.add_connection(
                    topic,
                    kind,
                    msgdef=definitions[kind].text,
                    rihs01=definitions[kind].digest,
                    offered_qos_profiles=qos,
                )
        except (OSError, WriterError) as error:
            raise BagError(f'cannot write {self._partial}: {error}') from error
        self._thread = threading.Thread(target=self._run, name='bag writer', daemon=True)
        self._thread.start()

    @property
    def error(self) -> str:
        """What stopped the writing, '' while it goes well."""
        return self._progress.error

    @property
    def counts(self) -> dict[str, TopicCount]:
        """What is in the bag, by topic; complete once it is closed."""
        return self._progress.counts

    def put(self, topic: str, data: bytes, arrival: Arrival) -> None:
        """Add a message; its log time follows from when it was published and received."""
        self._put(_Item(topic, data, arrival=arrival))

    def put_at(self, topic: str, data: bytes, log_ns: int, early: bool = False) -> None:
        """Add a message with a log time (ns); early: it came before the episode."""
        self._put(_Item(topic, data, log_ns=log_ns, early=early))

    def close(self, custom_data: Mapping[str, str]) -> Path:
        """Write what is left and the metadata, and give the folder its final name.

        Raises BagError when that fails; what was written is kept and the error says where.
        """
        self._final = True
        self._queue.put(None)
        self._thread.join()
        try:
            if self.error:
                raise BagError(self.error)
            for key, value in custom_data.items():
                self._writer.set_custom_data(key, value)
            self._writer.close()
            os.replace(self._partial, self.uri)
        except (OSError, WriterError, BagError) as error:
            self._abort()
            kept = recover(self._partial)
            raise BagError(
                f'{error}; what was written is kept in {kept}; make room and record again'
            ) from error
        return self.uri

    def _put(self, item: _Item) -> None:
        if self.error:
            return
        self._put_bytes += len(item.data)
        if self._put_bytes - self._progress.taken_bytes > QUEUE_BYTES:
            self._progress.error = (
                f'the disk is too slow: {QUEUE_BYTES >> 20} MiB are waiting to be written'
            )
            return
        self._queue.put(item)

    def _run(self) -> None:
        """Write until the queue's end; after an error only empty the queue."""
        flushed_s = time.monotonic()
        while (item := self._queue.get()) is not None:
            self._progress.taken_bytes += len(item.data)
            if self.error:
                continue
            try:
                self._write(item)
                if time.monotonic() - flushed_s > FLUSH_S:
                    self._flush()
                    flushed_s = time.monotonic()
            except (OSError, WriterError) as error:
                self._progress.error = f'cannot write {self._partial}: {error}'

    def _write(self, item: _Item) -> None:
        if item.log_ns is not None:
            log_ns = item.log_ns
        else:
            assert item.arrival is not None  # one of the two is always given
            log_ns = self._clock.log_ns(item.arrival, lambda: self._final)
        self._writer.write(self._connections[item.topic], log_ns, item.data)
        count = self._progress.counts[item.topic]
        count.messages += 1
        count.early += item.early
        count.bytes += len(item.data)

    def _flush(self) -> None:
        """Close the chunk that the storage writer still holds in memory."""
        storage = self._writer.storage
        if storage is not None and storage.chunk.bio.tell():
            storage.close_chunk()
            storage.bio.flush()

    def _abort(self) -> None:
        try:
            self._flush()
            self._writer.abort()
        except (OSError, ValueError):  # the disk is still full; the file ends where it ends
            return


def recover(partial: Path) -> Path:
    """Move an unfinished bag out of the hidden folder, and return where it is now."""
    kept = _free(partial.parent.parent, f'{partial.name}.recovered')
    os.replace(partial, kept)
    return kept


def leftovers(out: Path) -> list[Path]:
    """Return the bags that a recorder left unfinished."""
    return sorted(path for path in (out / PARTIAL).glob('*') if path.is_dir())


def _free(out: Path, name: str) -> Path:
    """Return a path for a bag that takes nobody else's place."""
    number = 0
    while True:
        path = out / (f'{name}_{number}' if number else name)
        if not path.exists() and not (out / PARTIAL / path.name).exists():
            return path
        number += 1
