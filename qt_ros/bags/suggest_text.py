"""Names and lists as a contract's YAML wants them."""

from __future__ import annotations

import re
from collections.abc import Sequence

WIDTH = 99


class Names:
    """Names that differ from each other, also where capitals do not count."""

    def __init__(self, *taken: str) -> None:
        self._taken = {name.lower() for name in taken}

    def new(self, name: str) -> str:
        """Return the name, with a number behind it if it is taken."""
        unique, number = name, 2
        while unique.lower() in self._taken:
            unique, number = f'{name}_{number}', number + 1
        self._taken.add(unique.lower())
        return unique


def identifier(text: str) -> str:
    """Return letters, digits and underscores, not beginning with a digit.

    >>> identifier('/arm/joint-1')
    'arm_joint_1'
    """
    name = re.sub(r'[^A-Za-z0-9_]+', '_', text).strip('_') or 'unnamed'
    return f'_{name}' if name[0].isdigit() else name


def quoted(text: str) -> str:
    """Quote what YAML would not read as this very string."""
    if re.fullmatch(r'[A-Za-z/_][A-Za-z0-9_/.\-]*', text) and text.lower() not in _WORDS:
        return text
    escaped = text.replace('\\', '\\\\').replace('"', '\\"')
    return f'"{escaped}"'


_WORDS = {'yes', 'no', 'true', 'false', 'on', 'off', 'null', 'y', 'n'}


def wrapped_list(head: str, groups: Sequence[tuple[Sequence[str], str]]) -> list[str]:
    """Write a list over several lines; each group may have a comment above it.

    wrapped_list('  fields: [', [(['a', 'b'], ''), (['c'], 'not moved')]) gives

        fields: [a, b,
                 # not moved
                 c]
    """
    indent = ' ' * len(head)
    lines, line = [], head
    rest = sum(len(items) for items, _ in groups)
    for items, comment in groups:
        if items and comment:
            lines += [line.rstrip(), f'{indent}# {comment}']
            line = indent
        for item in items:
            rest -= 1
            text = quoted(item) + (', ' if rest else ']')
            if len(line) + len(text.rstrip()) > WIDTH and line.strip() and line != head:
                lines.append(line.rstrip())
                line = indent
            line += text
    return [*lines, line]
