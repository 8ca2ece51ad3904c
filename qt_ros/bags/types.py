"""Decode messages by the definitions that their bag carries, else by those of the installed ROS,
else by the built-in ones.

Generating the code for a type takes tens of milliseconds, so generated types are kept for the life
of the process and shared by all bags whose definitions agree. Definitions that disagree (an edited
message, a bag from another distribution) never meet: each goes to a type store of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_msg
from rosbags.typesys import get_typestore as rosbags_store
from rosbags.typesys.store import Typestore

from qt_ros.bags.definitions import (
    NO_FIELD,
    DefinitionError,
    complete,
    installed_definition,
    nested_type,
    parse_definition,
)
from qt_ros.bags.records import CDR, ENCODINGS, ROS1, TopicInfo
from qt_ros.errors import BagError
from qt_ros.message_types import CAMERA_TYPES, STATE_TYPES
from qt_ros.resources import resource

HEADER = 'std_msgs/msg/Header'
OUR_PACKAGE = 'q_transformer_ros'
MAX_TAIL = 32  # bytes behind the end of a message that are put up with

_ENCAPSULATIONS = {
    bytes((0, number)): f'{name}, {order} endian'
    for first, name in (
        (0x02, 'PL_CDR'),
        (0x06, 'XCDR2'),
        (0x08, 'XCDR2 with delimiters'),
        (0x0A, 'PL_CDR2'),
        (0x10, 'XCDR2'),
        (0x12, 'PL_CDR2'),
        (0x14, 'XCDR2 with delimiters'),
    )
    for number, order in ((first, 'big'), (first + 1, 'little'))
}

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
    problem: Exception | None = None
    if info.encoding == CDR and bytes(data[:2]) in _ENCAPSULATIONS:
        raise BagError(
            f'{topic or info.type}: messages are serialised as {_ENCAPSULATIONS[bytes(data[:2])]}'
            f' (encapsulation {data[0]:02x} {data[1]:02x}), expected plain CDR (00 00 or 00 01);'
            ' record them with the default settings of the ROS middleware'
        )
    for decode in _decoders(info):
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


@lru_cache(maxsize=512)
def why_unreadable(info: TopicInfo) -> str:
    """Return why no message of the topic can be decoded, '' if they can."""
    if info.encoding not in ENCODINGS:
        return (
            f'messages are encoded as {info.encoding!r}, expected {CDR!r}; record it again through'
            ' ROS 2 or convert the recording to CDR'
        )
    try:
        _store_of(info.type, info.encoding, info.definition, info.definition_format)
    except BagError as exc:
        return str(exc)
    return ''


def begins_with_header(info: TopicInfo) -> bool:
    """Return True if the type's first field is a std_msgs/Header."""
    if why_unreadable(info):
        return False
    store = _store_of(info.type, info.encoding, info.definition, info.definition_format)
    fields = store.fielddefs[info.type][1]
    return bool(fields) and fields[0][1] == (Nodetype.NAME, HEADER)


@lru_cache(maxsize=512)
def _decoders(info: TopicInfo) -> tuple[Decode, ...]:
    """Return what to try on a message, one after the other."""
    found = [_decoder(info.type, info.encoding, info.definition, info.definition_format)]
    if info.encoding == CDR and info.definition and info.type in standard_types().fielddefs:
        # Some tools write definitions that do not match their messages; ROS's own may.
        found.append(_decoder(info.type, CDR, '', ''))
    return (*found, *(partial(_without_tail, each) for each in found))


@lru_cache(maxsize=512)
def _decoder(kind: str, encoding: str, definition: str, form: str) -> Decode:
    store = _store_of(kind, encoding, definition, form)
    if encoding == ROS1:
        return lambda data: store.deserialize_ros1(data, kind)
    return lambda data: store.deserialize_cdr(data, kind)


@lru_cache(maxsize=512)
def _store_of(kind: str, encoding: str, definition: str, form: str) -> Typestore:
    """Return a store that knows `kind`; raise `BagError` if nothing defines it.

    The recording's own definition comes first, then that of the installed ROS, then ours. ROS 1
    has other headers: its messages are never read by a definition of ROS 2.
    """
    ros1 = encoding == ROS1
    reason = 'carries no definition of it'
    if definition.strip():
        try:
            return _store_for(kind, definition, form, ros1)
        except DefinitionError as exc:
            reason = f'carries an unusable definition ({exc})'
    if ros1:
        if kind in ros1_types().fielddefs:
            return ros1_types()
    else:
        installed = installed_definition(kind)
        if installed is not None:
            with suppress(DefinitionError):
                return _store_for(kind, *installed, ros1)
        if kind in own_types().fielddefs:
            return own_types()
    if '/srv/' in kind or '/action/' in kind:
        raise BagError(f'{kind} belongs to a service or an action; such topics are left alone')
    raise BagError(
        f'the type {kind or "?"!r} is unknown: the recording {reason}, and'
        f' {"ROS 1 has" if ros1 else "neither an installed ROS nor the standard types have"} '
        f'{"no such type" if ros1 else "it; source the ROS workspace that defines it"}'
    )


_shared: list[Typestore] = []


def _store_for(kind: str, definition: str, form: str, ros1: bool) -> Typestore:
    """Register the definition in the first store that it agrees with."""
    types = parse_definition(definition, kind, form)
    complete(types, _ros1_content if ros1 else _known_content)
    if not _holds_fields(types, kind, ros1_types() if ros1 else standard_types()):
        raise DefinitionError('fields of the standard type are missing')
    for store in (*_shared, Typestore()):
        try:
            store.register(types)
        except TypesysError:
            continue
        except Exception as exc:  # code made of odd names fails in any way
            raise DefinitionError('no code can be made of it') from exc
        if store not in _shared:
            _shared.append(store)
        return store
    raise DefinitionError('its names contradict each other')


def _known_content(kind: str) -> Any:
    """Return the fields of a type that a definition of ROS 2 nests without defining it."""
    installed = installed_definition(kind)
    if installed is not None:
        with suppress(DefinitionError):
            return parse_definition(installed[0], kind, installed[1])[kind]
    return own_types().fielddefs.get(kind)


def _ros1_content(kind: str) -> Any:
    return ros1_types().fielddefs.get(kind)


def _holds_fields(types: dict[str, Any], kind: str, known: Typestore) -> bool:
    """Return False if a type that the decoders read lacks one of its standard fields.

    A recording may add fields to a type, never take some away: such a definition is damaged.
    """
    standard = known.fielddefs
    waiting, seen = [kind] if kind in (*CAMERA_TYPES, *STATE_TYPES) else [], set()
    if kind.startswith(f'{OUR_PACKAGE}/'):  # these may grow; what they nest is standard
        waiting = [nested for _, field in types[kind][1] if (nested := nested_type(field))]
    while waiting:
        each = waiting.pop()
        if each in seen or each not in standard:
            continue
        seen.add(each)
        fields = dict(types[each][1])
        for name, _ in standard[each][1]:
            if name not in fields and name != NO_FIELD:
                return False
        waiting += [nested for field in fields.values() if (nested := nested_type(field))]
    return True


@lru_cache(maxsize=1)
def standard_types() -> Typestore:
    """Return the message types that ROS 2 comes with."""
    return rosbags_store(Stores.ROS2_JAZZY)


@lru_cache(maxsize=1)
def ros1_types() -> Typestore:
    """Return the message types that ROS 1 comes with."""
    return rosbags_store(Stores.ROS1_NOETIC)


@lru_cache(maxsize=1)
def own_types() -> Typestore:
    """Return the standard types and this package's own messages."""
    store = rosbags_store(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for path in sorted(resource('msg').glob('*.msg')):
        types.update(get_types_from_msg(path.read_text(), f'{OUR_PACKAGE}/msg/{path.stem}'))
    store.register(types)
    return store
