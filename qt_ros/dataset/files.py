"""Files that appear whole or not at all, and the lock that keeps writers apart."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qt_ros.errors import DatasetError

TEMPORARY = '.tmp'  # suffix of files that are being written; any found later are orphans


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place of `path`.

    After a crash at any moment `path` holds either the old or the new content, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        write(temporary)
        move_durably(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def move_durably(source: Path, target: Path) -> None:
    """Flush `source` to the disk, then rename it to `target` in the same file system."""
    descriptor = os.open(source, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(source, target)


def sync_folder(folder: Path) -> None:
    """Flush the names in `folder`, so that renames survive a power cut."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return  # one may write into folders that one may not list
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class CannotWrite(DatasetError):
    """The disk takes no more, or nothing at all; it is not the fault of what is written."""


REFUSED = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS))  # by any disk


@contextmanager
def plain_errors(path: Path, remedy: str = 'Make room or give another --out') -> Iterator[None]:
    """Turn an OSError into a `CannotWrite` that says what stands and what to do."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise CannotWrite(
            f'{path} cannot be written: {reason}; what was committed before is intact.'
            f' {remedy}, then run it again'
        ) from error


def link_or_copy(source: Path, target: Path) -> None:
    """Let `target` hold what `source` holds, without its bytes where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV):
            raise
        shutil.copyfile(source, target)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by UTF-8 `text`."""
    write_whole(path, lambda temporary: _put(temporary, text))


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding='utf-8', errors='backslashreplace')


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON, indented as LeRobot does."""
    write_text(path, json.dumps(value, indent=4, ensure_ascii=False) + '\n')


class Busy(DatasetError):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`; raise `Busy` if another process holds it.

    The kernel lets go of it when the process ends, however it ends.
    """
    busy = f'{what} is being written by another process; wait until it has finished'
    with open(path, 'ab') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(busy) from None
        if not _same_file(file.fileno(), path):  # another folder was put in place of this one
            raise Busy(busy)
        yield


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
