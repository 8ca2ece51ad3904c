"""Find the recordings below a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qt_ros.bags.files import (
    METADATA,
    PACKED,
    PLAIN,
    entries_of,
    path_kind,
    storage_files,
)
from qt_ros.bags.reader import BagReader
from qt_ros.errors import BagError


def find_bags(path: Path) -> list[Path]:
    """Return the recordings at or below `path`: a file, a folder that is one, or many of them.

    A folder with a rosbag2 metadata.yaml is one recording. Without it, its files are one if they
    follow each other in time, as splits do; otherwise each file is a recording of its own. Hidden
    folders are left out: a recorder may still be writing there.
    """
    if path_kind(path) == 'file':
        return [path]
    found = list(_below(path, set()))
    if not found:
        raise BagError(
            f'{path} holds no recording; expected {METADATA} or files ending in {", ".join(PLAIN)}'
        )
    return found


def _below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    if folder.resolve() in seen:  # a link that leads back
        return
    seen.add(folder.resolve())
    files = storage_files(folder)
    if _has_metadata(folder, bool(files)) or len(files) == 1 or _is_one_recording(files):
        yield folder
    else:
        yield from files
    if not _has_metadata(folder, bool(files)):
        for each in entries_of(folder):
            if each.is_dir() and not each.name.startswith('.'):
                yield from _below(each, seen)


def _has_metadata(folder: Path, has_files: bool) -> bool:
    """Return True if metadata.yaml lies there and is a bag's: other tools use the name too."""
    path = folder / METADATA
    if not path.is_file():
        return False
    try:
        with path.open('rb') as file:
            return has_files or b'rosbag2_bagfile_information' in file.read(4096)
    except OSError:
        return has_files


def _is_one_recording(files: list[Path]) -> bool:
    """Return True if the files follow each other in time."""
    if not files:
        return False
    if any(path.suffix in PACKED for path in files):
        return True  # only rosbag2 makes these, and unpacking them to look takes long
    try:
        with BagReader(*files) as bag:
            return not bag.breaks()
    except BagError:
        return True  # nothing is readable: opening the folder tells why
