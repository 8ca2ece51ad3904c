"""What every storage hands out: topics, raw messages, and names in one spelling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

CDR = 'cdr'
ROS1 = 'ros1'
ENCODINGS = (CDR, ROS1)


class Record(NamedTuple):
    """One message as it lies in the bag.

    `ordinal` identifies the message within the bag and grows in storage order (file after file);
    it is not a count: a split file starts at a new multiple of `ORDINALS_PER_FILE`.
    """

    topic: str
    log_ns: int
    data: bytes
    ordinal: int


ORDINALS_PER_FILE = 1 << 40


@dataclass(frozen=True)
class TopicInfo:
    """A topic of a bag.

    `type` is spelled with three parts (`sensor_msgs/msg/Image`), `encoding` is how messages are
    serialised (`cdr`, `ros1`, `protobuf`, ...), `definition` is the message definition that the
    bag carries ('' where it carries none) in `definition_format` (`ros2msg`, `ros2idl`,
    `ros1msg`).
    """

    type: str
    count: int
    encoding: str = CDR
    definition: str = ''
    definition_format: str = 'ros2msg'

    @property
    def readable(self) -> bool:
        """True if the encoding is one that this package decodes."""
        return self.encoding in ENCODINGS


class TopicNames:
    """One name for each topic and type: messages of two types cannot be told apart by the topic.

    The first type that comes under a name keeps it; of another one the type is added to the name,
    and `notes` tells.
    """

    def __init__(self, origin: str) -> None:
        self.notes: list[str] = []
        self._origin = origin
        self._kinds: dict[str, tuple[str, str]] = {}

    def name(self, topic: str, info: TopicInfo) -> str:
        """Return the name under which messages of this type on `topic` are handed out."""
        kind = (info.type, info.encoding)
        first = self._kinds.setdefault(topic, kind)
        if first == kind:
            return topic
        other = f'{topic} [{" ".join(part for part in kind if part) or "no type"}]'
        if other not in self._kinds:
            self._kinds[other] = kind
            self.notes.append(
                f'{self._origin}: {topic} comes as {first[0] or "no type"} ({first[1]}) and as'
                f' {kind[0] or "no type"} ({kind[1]}); the latter is listed as {other!r}'
            )
        return other


class Storage(Protocol):
    """One file of a bag; ordinals are local to the file.

    `problems` tell of messages that are missing or damaged, `notes` of what is merely odd.
    """

    kind: str
    path: Path
    problems: list[str]
    metadata: dict[str, str]

    @property
    def notes(self) -> list[str]:
        """What is odd about the file but costs no message."""

    def topics(self) -> dict[str, TopicInfo]:
        """Return the topics with counts as the storage itself states them."""

    def span_ns(self) -> tuple[int, int] | None:
        """Return the first and the last log time [ns], None if there is no message."""

    def scan(self, wanted: set[str] | None) -> Iterator[Record]:
        """Yield the messages of the wanted topics (None: all) in storage order."""

    def fetch(self, ordinals: Iterable[int]) -> Iterator[Record]:
        """Yield the messages with these ordinals, which come in increasing order."""

    def close(self) -> None:
        """Release the file."""


def three_part_type(name: str) -> str:
    """Spell a type as `package/msg/Name`.

    >>> three_part_type('sensor_msgs/Image')
    'sensor_msgs/msg/Image'
    """
    package, slash, last = name.partition('/')
    return f'{package}/msg/{last}' if slash and '/' not in last else name


def merge_topic(have: TopicInfo | None, more: TopicInfo) -> TopicInfo:
    """Add the count of the same topic in another file; the first definition found stays."""
    if have is None:
        return more
    source = have if have.definition else more
    return TopicInfo(
        have.type,
        have.count + more.count,
        have.encoding,
        source.definition,
        source.definition_format,
    )
