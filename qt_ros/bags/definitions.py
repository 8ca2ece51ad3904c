"""Message definitions as text, from a recording or an installed ROS, and the types they make.

Definitions come from other people's files, and rosbags turns them into Python code. So they are
read line by line here: only names, types and sizes within reason go on to it; constants, defaults
and comments, which decoding does not need, do not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import get_types_from_idl, get_types_from_msg

from qt_ros.bags.records import three_part_type

NO_FIELD = 'structure_needs_at_least_one_member'  # how an empty message is written
MAX_TEXT = 1 << 20  # of a definition with everything that it nests
MAX_TYPES = 500
MAX_DEPTH = 50
MAX_LENGTH = 4096  # of an array of texts or messages: code is written out for each element
_SECTION = re.compile(r'(?:^|\n)={10,}[ \t]*\n(MSG|IDL):[ \t]*([^\s]+)[ \t]*(?:\n|$)')
_FIELD = re.compile(
    r'[ \t]*(?P<type>[A-Za-z][A-Za-z0-9_/]*(?:<=[0-9]+)?(?:\[(?:<=)?[0-9]*\])?)[ \t]+'
    r'(?P<name>[A-Za-z][A-Za-z0-9_]*)(?![A-Za-z0-9_])[ \t]*(?P<constant>=?)'
)
_IGNORED = re.compile(r'[ \t]*(?:#.*|@.*)?')
_INCLUDE = re.compile(r'^[ \t]*#.*$', re.MULTILINE)
_TYPE_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*(?:/[A-Za-z][A-Za-z0-9_]*)+')
_INSTALLED_NAME = re.compile(r'([a-z][a-z0-9_]*)/msg/([A-Z][A-Za-z0-9]*)')

Types = dict[str, Any]  # {type: (constants, fields)} as rosbags has them


class DefinitionError(Exception):
    """A definition that cannot be used; the text says why."""


def parse_definition(text: str, kind: str, form: str) -> Types:
    """Return the types in the definition of `kind`, which may be followed by those it nests.

    `form`: 'ros2msg', 'ros1msg' or 'ros2idl'. Raise `DefinitionError`.
    """
    if len(text) > MAX_TEXT:
        raise DefinitionError(f'it is longer than {MAX_TEXT} characters')
    parts = _SECTION.split(text.replace('\r\n', '\n'))
    sections = [('IDL' if form == 'ros2idl' else 'MSG', kind, parts[0])]
    sections += list(zip(parts[1::3], parts[2::3], parts[3::3], strict=True))
    types: Types = {}
    for marker, name, body in sections:
        name = three_part_type(name)
        try:
            if marker == 'IDL':
                body = _INCLUDE.sub('', body)
                found = get_types_from_idl(body) if body.strip() else {}
            else:
                (content,) = get_types_from_msg(_fields_only(body), name).values()
                found = {name: content}
        except DefinitionError:
            raise
        except Exception as exc:  # the parsers fail in any way on damaged text
            raise DefinitionError(f'{name} does not parse') from exc
        for each, content in found.items():
            types.setdefault(each, content)
    if kind not in types:
        raise DefinitionError(f'it does not define {kind}')
    return types


def complete(types: Types, known: Callable[[str], Any]) -> None:
    """Add the types that are nested but not defined, from `known(name)`; check all of them.

    Raise `DefinitionError` if one is unknown or unreasonable.
    """
    waiting = list(types)
    while waiting:
        for _, described in types[waiting.pop()][1]:
            nested = nested_type(described)
            if nested is not None and nested not in types:
                content = known(nested)
                if content is None:
                    raise DefinitionError(f'nothing defines {nested}, which it holds')
                types[nested] = content
                waiting.append(nested)
    if len(types) > MAX_TYPES:
        raise DefinitionError(f'it nests more than {MAX_TYPES} types')
    for name in types:
        _check(name, types)
    _check_depth(types)


def nested_type(described: tuple[Any, Any]) -> str | None:
    """Return the message type that a field is made of, None for a basic type."""
    node, value = described
    if node == Nodetype.NAME:
        return str(value)
    if node in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return nested_type(value[0])
    return None


def installed_definition(kind: str) -> tuple[str, str] | None:
    """Return (text, form) of a type that the sourced ROS has, None if it has none.

    The files below `share/PACKAGE/msg` of each AMENT_PREFIX_PATH are read; no ROS is imported.
    """
    return _installed(kind, os.environ.get('AMENT_PREFIX_PATH', ''))


@lru_cache(maxsize=1024)
def _installed(kind: str, prefixes: str) -> tuple[str, str] | None:
    match = _INSTALLED_NAME.fullmatch(kind)  # a recording's names lead nowhere else
    if match is None:
        return None
    package, name = match.groups()
    for prefix in filter(None, prefixes.split(os.pathsep)):
        for suffix, form in (('.msg', 'ros2msg'), ('.idl', 'ros2idl')):
            path = Path(prefix) / 'share' / package / 'msg' / f'{name}{suffix}'
            try:
                if path.is_file() and path.stat().st_size <= MAX_TEXT:
                    return path.read_text(encoding='utf-8', errors='replace'), form
            except OSError:
                continue
    return None


def _fields_only(text: str) -> str:
    """Return the fields of a .msg text, a line each, without constants, defaults and comments.

    >>> _fields_only('int8 kLeft = 0\\nfloat32[3] xyz [1, 2, 3]  # [m]')
    'float32[3] xyz\\n'
    """
    lines = []
    for line in text.split('\n'):
        if _IGNORED.fullmatch(line.rstrip()):
            continue
        match = _FIELD.match(line)
        if match is None:
            raise DefinitionError(f'{line.strip()[:60]!r} is no field')
        if not match['constant']:
            lines.append(f'{match["type"]} {match["name"]}\n')
    return ''.join(lines)


def _check(name: str, types: Types) -> None:
    if not _TYPE_NAME.fullmatch(name):
        raise DefinitionError(f'{name[:80]!r} is no name of a type')
    for field, (node, value) in types[name][1]:
        if node not in (Nodetype.ARRAY, Nodetype.SEQUENCE):
            continue
        (inner, detail), length = value
        written_out = inner == Nodetype.NAME or detail[0] in ('string', 'wstring')
        if node == Nodetype.ARRAY and written_out and length > MAX_LENGTH:
            raise DefinitionError(f'{name}: {field} has {length} elements')
        if inner == Nodetype.NAME and _is_empty(types[detail]):
            raise DefinitionError(f'{name}: {field} repeats a message without fields')


def _is_empty(content: Any) -> bool:
    return all(field == NO_FIELD for field, _ in content[1])


def _check_depth(types: Types) -> None:
    """Raise `DefinitionError` if a type holds itself, or others to no end."""
    left = {
        name: {nested for _, field in content[1] if (nested := nested_type(field))}
        for name, content in types.items()
    }
    for _ in range(MAX_DEPTH):
        done = {name for name, nested in left.items() if not nested & left.keys()}
        left = {name: nested for name, nested in left.items() if name not in done}
        if not left:
            return
    raise DefinitionError(f'{", ".join(sorted(left)[:5])} nest without end')
