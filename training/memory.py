"""Keep the memory that one training step frees for the next one.

A step on a CPU takes and frees hundreds of megabytes in large blocks. glibc gives such blocks back
to the kernel, and the next step gets them anew page by page: up to a fifth of its time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# From <malloc.h>: options of mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
# While training: blocks of any size come from the heap, and the heap never shrinks.
_KEEP = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
# Afterwards: as glibc adapts itself once a program has freed large blocks.
_USUAL = ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 64 << 20))


@contextmanager
def kept_memory() -> Iterator[None]:
    """Give no memory back to the kernel within this context; without glibc do nothing."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, 'mallopt'):  # musl, macOS
        yield
        return
    for option, value in _KEEP:
        libc.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _USUAL:
            libc.mallopt(option, value)
        libc.malloc_trim(0)
