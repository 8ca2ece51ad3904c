"""Message definitions as recordings carry them, from whatever packages are installed.

A definition is the `.msg` file of the type followed by those of every type that it uses, as
`ros2 bag` writes it, so that a bag explains itself on any machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from qt_ros.errors import QtRosError

SEPARATOR = '=' * 80
_FIELD = re.compile(r'^\s*([A-Za-z][\w/]*)(?:<=\d+)?(?:\[[^\]]*\])?\s+[A-Za-z]\w*')
_PRIMITIVES = re.compile(r'bool|byte|char|float(32|64)|u?int(8|16|32|64)|w?string')


@dataclass(frozen=True)
class Definition:
    """What a bag stores about a message type."""

    text: str  # the .msg files of the type and of all that it uses
    digest: str  # RIHS01 hash of the type


@cache
def message_definition(type_name: str) -> Definition:
    """Return the definition of an installed 'package/msg/Name'.

    Raises QtRosError when the package, or one that it uses, has no such .msg file.
    """
    texts: dict[str, str] = {}
    queue = [type_name]
    while queue:
        name = queue.pop(0)
        if name not in texts:
            texts[name] = _msg_file(name).read_text(encoding='utf-8')
            queue += _used_types(name, texts[name])
    parts = [texts[type_name]]
    for name in list(texts)[1:]:
        package, _, short = name.split('/')
        parts.append(f'{SEPARATOR}\nMSG: {package}/{short}\n{texts[name]}')
    return Definition('\n'.join(parts), _digest(type_name, texts))


def _msg_file(type_name: str) -> Path:
    package, _, short = type_name.split('/')
    try:
        share = Path(get_package_share_directory(package))
    except (PackageNotFoundError, ValueError):
        raise QtRosError(
            f"message type '{type_name}': package {package} is not installed or not sourced"
        ) from None
    path = share / 'msg' / f'{short}.msg'
    if not path.is_file():
        raise QtRosError(f"message type '{type_name}': there is no {path}; it cannot be recorded")
    return path


def _used_types(type_name: str, text: str) -> list[str]:
    """Return the full names of the types that the fields of a .msg file have."""
    package = type_name.split('/')[0]
    found = []
    for line in text.splitlines():
        match = _FIELD.match(line.split('#', 1)[0])
        name = match.group(1) if match else ''
        if not name or _PRIMITIVES.fullmatch(name):
            continue
        if name == 'Header':
            name = 'std_msgs/Header'
        parts = name.split('/')
        found.append(f'{parts[0] if len(parts) > 1 else package}/msg/{parts[-1]}')
    return found


def _digest(type_name: str, texts: dict[str, str]) -> str:
    store = get_typestore(Stores.EMPTY)
    for name, text in texts.items():
        store.register(get_types_from_msg(text, name))
    return store.hash_rihs01(type_name)
