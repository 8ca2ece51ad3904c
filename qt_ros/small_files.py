"""Read a file that people write, whole; a recording given in its place is not read into memory."""

from __future__ import annotations

import errno
from pathlib import Path

MAX_BYTES = 1 << 26


def read_small(path: str | Path) -> bytes:
    """Return the bytes of a file or a pipe; raise OSError, also for more than `MAX_BYTES`."""
    with open(path, 'rb') as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise OSError(errno.EFBIG, f'more than {MAX_BYTES >> 20} MiB, so it is none')
    return data
