"""Text that any file and any terminal takes, from names that strangers gave."""

from __future__ import annotations

import os
from pathlib import Path

# A terminal obeys control characters, and those that turn the direction of writing hide words.
_CONTROLS = (*range(0x00, 0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0))
_TURNS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SHOWN_AS = {code: '\ufffd' for code in (*_CONTROLS, *_TURNS, *range(0xD800, 0xE000))}


def spelled(path: str | Path) -> str:
    """Return a path as text; bytes of it that are no UTF-8 are spelled out.

    Old file systems have names in other encodings: the folder `caf\\xe9` is a Python string that
    can be opened, but not written to a file.
    """
    return os.fspath(path).encode('utf-8', 'backslashreplace').decode('utf-8')


def printable(text: str) -> str:
    """Return the text without what a terminal would obey, all on the lines that it had."""
    return text.translate(_SHOWN_AS)
