"""Put a new folder in the place of a dataset, so that there is always a whole one.

    dataset                what everybody reads
    dataset.replacing/     work of a replacement; junk once nobody is at it
        fresh/             the episodes that come in, a dataset of its own
        set/               the new dataset; after an exchange of names, the old one
        old/               the old dataset, where names cannot be exchanged

Where the system exchanges two names in one step (Linux, local file systems), a reader finds the
old set or the new one and nothing in between. Elsewhere two renames do it, and there is a moment
with no set at `dataset`: whoever opens it next, reader or writer, does the second rename first.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from qt_ros.dataset.files import sync_folder

REPLACING = '.replacing'  # suffix of the folder beside the dataset
FRESH, NEW, OLD = 'fresh', 'set', 'old'
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of <fcntl.h> and <linux/fs.h>
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)


def beside(root: Path) -> Path:
    """Return the folder in which the replacement of dataset `root` is made."""
    real = root.resolve()
    return real.with_name(real.name + REPLACING)


def swap(root: Path) -> None:
    """Put the finished set of `beside(root)` in the place of `root`; raises OSError.

    The old one is left in `beside(root)`.
    """
    real, work = root.resolve(), beside(root)
    if not exchange(real, work / NEW):
        os.rename(real, work / OLD)
        with suppress(FileNotFoundError):  # someone who opened it has done so already
            os.rename(work / NEW, real)
    sync_folder(real.parent)
    sync_folder(work)


def exchange(a: Path, b: Path) -> bool:
    """Exchange two names in one step; False if this system or file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), 'renameat2', None)
    if renameat2 is None:
        return False
    arguments = (_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE)
    if renameat2(*arguments) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(a))


def settle(root: Path) -> None:
    """Finish a swap that was cut off between its two renames."""
    real, work = root.resolve(), beside(root)
    if not real.exists() and (work / OLD).is_dir() and (work / NEW).is_dir():
        with suppress(FileNotFoundError):  # another process was quicker
            os.rename(work / NEW, real)


def remove_leftovers(root: Path) -> None:
    """Remove what a replacement left that ended before or after its swap; needs the lock."""
    work = beside(root)
    if work.is_dir() and not foreign_to(work):
        shutil.rmtree(work, ignore_errors=True)


def foreign_to(work: Path) -> list[str]:
    """Return what lies in such a folder that no replacement puts there."""
    return sorted({entry.name for entry in work.iterdir()} - {FRESH, NEW, OLD})
