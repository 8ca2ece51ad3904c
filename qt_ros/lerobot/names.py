"""When a name of ours and a name of theirs mean the same, without guessing.

exactly        joints.position.waist, position.waist, waist
plainly        position.waist = waist.pos = waist (positions), velocity.waist = waist.vel
as identifier  left_arm_x = left_arm.x (names of dimensions may not hold dots)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_KINDS = {
    **dict.fromkeys(('pos', 'position'), 'position'),
    **dict.fromkeys(('vel', 'velocity'), 'velocity'),
    **dict.fromkeys(('eff', 'effort', 'torque'), 'effort'),
}
_BEFORE = re.compile(r'(position|velocity|effort)\.(.+)', re.DOTALL)
_AFTER = re.compile(r'(.+)\.(pos|position|vel|velocity|eff|effort|torque)', re.DOTALL)


def plain(name: str) -> tuple[str, str]:
    """Return (kind, joint): ('position', 'waist') for 'position.waist', 'waist.pos' and 'waist'.

    'main_waist' is how LeRobot once called the joints of its first arm.
    """
    text = name.casefold()
    if found := _BEFORE.fullmatch(text):
        return found[1], found[2]
    if found := _AFTER.fullmatch(text):
        return _KINDS[found[2]], found[1].removeprefix('main_')
    return 'position', text.removeprefix('main_')


def identifier(text: str) -> str:
    """Return `text` as a name that a contract accepts: letters, digits and underscores."""
    found = re.sub(r'[^A-Za-z0-9_]+', '_', text).strip('_') or 'unnamed'
    return f'_{found}' if found[0].isdigit() else found


def find(exact: Sequence[str], wanted: set[tuple[str, str]], names: Sequence[str]) -> list[int]:
    """Return which of `names` are meant: exactly one of `exact`, else plainly one of `wanted`."""
    for text in exact:
        found = [index for index, name in enumerate(names) if name == text]
        if found:
            return found
    found = [index for index, name in enumerate(names) if plain(name) in wanted]
    if found:
        return found
    return [index for index, name in enumerate(names) if identifier(name) in exact]
