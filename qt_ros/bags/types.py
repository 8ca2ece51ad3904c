"""Decode messages by the definitions that their bag carries, else by ours, else by ROS's own.

Generating the code for a type takes tens of milliseconds, so generated types are kept for the life
of the process and shared by all bags whose definitions agree. Definitions that disagree (an edited
message, a bag from another distribution) never meet: each goes to a type store of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg
from rosbags.typesys import get_typestore as rosbags_store
from rosbags.typesys.store import Typestore

from qt_ros.bags.records import CDR, ENCODINGS, ROS1, TopicInfo
from qt_ros.errors import BagError
from qt_ros.message_types import CAMERA_TYPES, STATE_TYPES
from qt_ros.resources import resource

HEADER = 'std_msgs/msg/Header'
OUR_PACKAGE = 'q_transformer_ros'
NO_FIELD = 'structure_needs_at_least_one_member'  # how an empty message is written
MAX_ENTRIES = 10_000  # of a fixed array of texts or messages
MAX_NESTING = 50
MAX_TAIL = 32  # bytes behind the end of a message that are put up with

Decode = Callable[[bytes], Any]


class MessageTypes:
    """Decoders for the topics of one bag.

    `unknown` lists types that no definition was found for, as sentences; such topics are left
    alone and never fatal.
    """

    def __init__(self, topics: Mapping[str, TopicInfo]) -> None:
        self._topics = dict(topics)

    @property
    def unknown(self) -> list[str]:
        """Return one sentence for each topic that cannot be decoded."""
        found = []
        for name, info in self._topics.items():
            reason = why_unreadable(info)
            if reason:
                found.append(f'{name}: {reason}')
        return found

    def has_header(self, topic: str) -> bool:
        """Return True if messages of the topic begin with a std_msgs/Header."""
        return begins_with_header(self._topics[topic])

    def deserialize(self, topic: str, data: bytes) -> Any:
        """Return the message object; raise `BagError` that says what is wrong."""
        info = self._topics[topic]
        return deserialize(info, data, topic)


def deserialize(info: TopicInfo, data: bytes, topic: str = '') -> Any:
    """Decode one message of a topic; raise `BagError` with the reason if it does not decode."""
    reason = why_unreadable(info)
    if reason:
        raise BagError(f'{topic or info.type}: {reason}')
    decoders = [_decoder(info.type, info.encoding, info.definition, info.definition_format)]
    if info.encoding == CDR and info.definition and info.type in standard_types().fielddefs:
        # Some tools write definitions that do not match their messages; ROS's own may.
        decoders.append(_decoder(info.type, CDR, '', ''))
    problem: Exception | None = None
    decoders += [partial(_without_tail, each) for each in decoders]
    for decode in decoders:
        try:
            return decode(data)
        except Exception as exc:  # noqa: BLE001 - generated code fails in any way on damaged bytes
            problem = problem or exc
    raise BagError(
        f'{topic or info.type}: a message does not decode as {info.type}: {problem}'
    ) from problem


def _without_tail(decode: Decode, data: bytes) -> Any:
    """Decode a message that was serialised into a buffer longer than it needed.

    Some writers overestimate the alignment of empty arrays and leave bytes behind; ROS ignores
    them, rosbags refuses.
    """
    problem: Exception | None = None
    for tail in range(4, min(MAX_TAIL, len(data) - 4) + 1, 4):
        try:
            return decode(data[:-tail])
        except SerdeError as exc:
            problem = exc
    raise problem or SerdeError('the message is too short')


def why_unreadable(info: TopicInfo) -> str:
    """Return why no message of the topic can be decoded, '' if they can."""
    if info.encoding not in ENCODINGS:
        return (
            f'messages are encoded as {info.encoding!r}, expected {CDR!r}; record it again through'
            ' ROS 2 or convert the recording to CDR'
        )
    try:
        _store_of(info.type, info.definition, info.definition_format)
    except BagError as exc:
        return str(exc)
    return ''


def begins_with_header(info: TopicInfo) -> bool:
    """Return True if the type's first field is a std_msgs/Header."""
    if why_unreadable(info):
        return False
    store = _store_of(info.type, info.definition, info.definition_format)
    fields = store.fielddefs[info.type][1]
    return bool(fields) and fields[0][1] == (Nodetype.NAME, HEADER)


@lru_cache(maxsize=512)
def _decoder(kind: str, encoding: str, definition: str, form: str) -> Decode:
    store = _store_of(kind, definition, form)
    if encoding == ROS1:
        return lambda data: store.deserialize_ros1(data, kind)
    return lambda data: store.deserialize_cdr(data, kind)


@lru_cache(maxsize=512)
def _store_of(kind: str, definition: str, form: str) -> Typestore:
    """Return a store that knows `kind`; raise `BagError` if nothing defines it."""
    if definition.strip():
        store = _store_for(kind, definition, form)
        if store is not None:
            return store
    if form == 'ros1msg':
        builtin = rosbags_store(Stores.ROS1_NOETIC)
        if kind in builtin.fielddefs:
            return builtin
    for known in (own_types(), standard_types()):
        if kind in known.fielddefs:
            return known
    raise BagError(
        f'the type {kind or "?"!r} is unknown: the recording carries no usable definition and it'
        ' is not a standard one'
    )


_shared: list[Typestore] = []


def _store_for(kind: str, definition: str, form: str) -> Typestore | None:
    """Register the definition in the first store that it agrees with; None if it is unusable."""
    try:
        if form == 'ros2idl':
            types = get_types_from_idl(definition)
        else:
            types = get_types_from_msg(definition, kind)
        _complete(types)
        _check_size(types, kind)
    except Exception:  # noqa: BLE001 - the parser fails in any way on damaged text
        return None
    if kind not in types or not _holds_fields(types, kind):
        return None
    for store in (*_shared, Typestore()):
        try:
            store.register(types)
        except Exception:  # noqa: BLE001 - disagrees with what is there, or is no Python at all
            continue
        if store not in _shared:
            _shared.append(store)
        return store
    return None


def _check_size(
    types: dict[str, Any], kind: str, around: tuple[str, ...] = (), seen: set[str] | None = None
) -> None:
    """Raise `TypesysError` for definitions whose code would have no end, or millions of lines.

    Code for fixed arrays of texts and messages has lines for each entry.
    """
    seen = set() if seen is None else seen
    if kind in around or len(around) > MAX_NESTING:
        raise TypesysError(f'{kind} is nested without end')
    for _, (node, value) in types[kind][1]:
        nested = _nested((node, value))
        unrolled = node == Nodetype.ARRAY and (nested or value[0][1][0] == 'string')
        if unrolled and value[1] > MAX_ENTRIES:
            raise TypesysError(f'{kind} has an array of {value[1]} entries')
        if nested and nested not in seen:
            _check_size(types, nested, (*around, kind), seen)
    seen.add(kind)


def _holds_fields(types: dict[str, Any], kind: str) -> bool:
    """Return False if a type that the decoders read lacks one of its standard fields.

    A recording may add fields to a type, never take some away: such a definition is damaged.
    """
    standard = standard_types().fielddefs
    waiting, seen = [kind] if kind in (*CAMERA_TYPES, *STATE_TYPES) else [], set()
    if kind.startswith(f'{OUR_PACKAGE}/'):  # these may grow; what they nest is standard
        waiting = [nested for _, field in types[kind][1] if (nested := _nested(field))]
    while waiting:
        each = waiting.pop()
        if each in seen or each not in standard:
            continue
        seen.add(each)
        fields = dict(types[each][1])
        for name, _ in standard[each][1]:
            if name not in fields and name != NO_FIELD:
                return False
        waiting += [nested for field in fields.values() if (nested := _nested(field))]
    return True


def _complete(types: dict[str, Any]) -> None:
    """Add the standard definitions of nested types that the text leaves out."""
    known = standard_types().fielddefs
    waiting = list(types)
    while waiting:
        for _, field in types[waiting.pop()][1]:
            nested = _nested(field)
            if nested and nested not in types:
                types[nested] = known[nested]
                waiting.append(nested)


def _nested(field: tuple[Any, Any]) -> str | None:
    """Return the message type that a field is made of, None for a basic type."""
    node, value = field
    if node == Nodetype.NAME:
        return str(value)
    if node in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return _nested(value[0])
    return None


@lru_cache(maxsize=1)
def standard_types() -> Typestore:
    """Return the message types that ROS 2 comes with."""
    return rosbags_store(Stores.ROS2_JAZZY)


@lru_cache(maxsize=1)
def own_types() -> Typestore:
    """Return the standard types and this package's own messages."""
    store = rosbags_store(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for path in sorted(resource('msg').glob('*.msg')):
        types.update(get_types_from_msg(path.read_text(), f'{OUR_PACKAGE}/msg/{path.stem}'))
    store.register(types)
    return store
