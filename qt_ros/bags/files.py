"""Which files make up a bag: a folder with or without metadata.yaml, a single file, or several."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from qt_ros.contract_text.yaml_limits import load_yaml
from qt_ros.errors import BagError

PLAIN = ('.mcap', '.db3', '.bag')
PACKED = ('.zstd', '.zst', '.lz4')
SUFFIXES = (*PLAIN, '.bag.active', *(plain + packed for plain in PLAIN for packed in PACKED))
METADATA = 'metadata.yaml'
MAX_METADATA = 1 << 26  # [bytes]
_MAGICS = (b'\x89MCAP0\r\n', b'#ROSBAG V2.0\n')  # of recordings that go by any name
_ENDING = r'(?:\.mcap|\.db3|\.bag)(?:\.zstd|\.zst|\.lz4|\.active)?$'


@dataclass
class BagFiles:
    """The files of one bag in their order, and what metadata.yaml says about it."""

    files: list[Path]
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    information: dict[str, Any] = field(default_factory=dict)

    @property
    def custom_data(self) -> dict[str, str]:
        """Return what the recorder noted about the whole bag."""
        return plain_texts(self.information.get('custom_data'))

    @property
    def encodings(self) -> dict[str, str]:
        """Return {topic: serialisation format} as metadata.yaml declares it."""
        found = {}
        entries = self.information.get('topics_with_message_count')
        for entry in entries if isinstance(entries, list) else []:
            topic = entry.get('topic_metadata') if isinstance(entry, dict) else None
            if isinstance(topic, dict):
                name, form = topic.get('name'), topic.get('serialization_format')
                if isinstance(name, str) and isinstance(form, str) and form:
                    found[name] = form
        return found


def path_kind(path: Path) -> str:
    """Return 'file' or 'folder'; raise `BagError` for anything else, with the reason."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as exc:
        raise BagError(
            f'{path} does not exist; give the folder or the file of a recording'
        ) from exc
    except OSError as exc:
        raise BagError(f'{path} cannot be read: {exc.strerror or exc}') from exc
    if stat.S_ISDIR(mode):
        return 'folder'
    if stat.S_ISREG(mode):
        return 'file'
    raise BagError(f'{path} is neither a file nor a folder; give one that holds a recording')


def storage_files(folder: Path) -> list[Path]:
    """Return the files of a folder that hold recordings, in the order of their numbers.

    Their names tell; where none does, the first bytes do. Of a file and its compressed copy the
    file is taken.
    """
    present = [each for each in entries_of(folder) if each.is_file()]
    named = [each for each in present if each.name.lower().endswith(SUFFIXES)]
    if not named:
        return [each for each in present if _begins_like_a_recording(each)]
    names = {each.name for each in named}
    return [each for each in named if each.suffix not in PACKED or each.stem not in names]


def entries_of(folder: Path) -> list[Path]:
    """Return what lies in a folder, numbers by value; raise `BagError` if it cannot be listed."""
    try:
        return sorted(folder.iterdir(), key=natural)
    except OSError as exc:
        raise BagError(f'{folder} cannot be listed: {exc.strerror or exc}') from exc


def collect(path: Path) -> BagFiles:
    """Return the files of the bag at `path` (a folder or one file)."""
    if path_kind(path) == 'file':
        return _single(path)
    present = storage_files(path)
    bag = BagFiles(present)
    bag.information = _read_metadata(path / METADATA, bag.problems)
    listed = _listed(bag.information)
    if listed:
        _select(bag, path, listed)
    elif present and not (path / METADATA).exists():
        bag.problems.append(f'{METADATA} is missing; every storage file of the folder is read')
    if not bag.files:
        hint = f'; {METADATA} lists {", ".join(bag.missing)}' if bag.missing else ''
        below = [each.name for each in entries_of(path) if (each / METADATA).is_file()]
        if below:
            names = ', '.join(below[:5]) + (' and more' if len(below) > 5 else '')
            hint = f'; recordings lie in folders below it: {names}; give one of these'
        raise BagError(
            f'{path} holds no storage file (one ending in {", ".join(PLAIN)}, perhaps followed by'
            f' {" or ".join(PACKED)}){hint}'
        )
    return bag


def plain_texts(mapping: Any) -> dict[str, str]:
    """Return the entries of a mapping that are text or numbers.

    Lists are left out: with YAML's aliases a few lines can stand for billions of entries.
    """
    if not isinstance(mapping, dict):
        return {}
    kinds = (str, int, float)
    return {
        str(key): str(value)
        for key, value in mapping.items()
        if isinstance(key, kinds) and isinstance(value, kinds)
    }


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key with numbers by value: `bag_2` before `bag_10`."""
    return [
        (0, int(part), '') if part.isdecimal() and len(part) < 20 else (1, 0, part)
        for part in re.split(r'(\d+)', str(path))
        if part
    ]


def _begins_like_a_recording(path: Path) -> bool:
    try:
        with path.open('rb') as file:
            return file.read(16).startswith(_MAGICS)
    except OSError:
        return False


def _listed(information: dict[str, Any]) -> list[str]:
    """Return the names of the bag's files; `files` came beside the older list with version 6."""
    found = information.get('relative_file_paths')
    if not found:
        entries = information.get('files')
        found = [
            entry.get('path')
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict)
        ]
    return [name for name in (found if isinstance(found, list) else []) if isinstance(name, str)]


def _single(path: Path) -> BagFiles:
    """Take one file; metadata.yaml beside it counts only if it lists the file."""
    information = _read_metadata(path.parent / METADATA, [])
    listed = {Path(name).name for name in _listed(information)}
    return BagFiles([path], information=information if path.name in listed else {})


def _select(bag: BagFiles, folder: Path, listed: list[str]) -> None:
    """Keep the listed files, in order; tell which are missing and which are not listed."""
    chosen: list[Path] = []
    for name in listed:
        found = _find(folder, name)
        if found is None:
            bag.missing.append(name)
        elif found not in chosen:
            chosen.append(found)
    taken = {_plain(each.name) for each in chosen}
    others = [each for each in bag.files if _plain(each.name) not in taken]
    stems = {_stem(Path(name).name) for name in listed}
    continued = [each for each in others if _stem(each.name) in stems and _numbered(each.name)]
    if bag.missing:
        bag.problems.append(
            f'{len(bag.missing)} of {len(listed)} files listed in {METADATA} are missing:'
            f' {", ".join(bag.missing)}'
        )
    if not chosen and not continued:
        if others:
            bag.problems.append(f'read instead: {", ".join(each.name for each in others)}')
        return
    for each in others:
        how = 'continues the numbering: read' if each in continued else 'not read'
        bag.problems.append(f'{each.name} is not listed in {METADATA}; {how}')
    bag.files = sorted(chosen + continued, key=natural) if continued else chosen


def _find(folder: Path, name: str) -> Path | None:
    """Return the file that metadata.yaml calls `name`, None if it is not in the folder.

    rosbag2 wrote the folder's name in front for a while: the last part decides. Compressed files
    may have been unpacked, and others compressed, since.
    """
    last = Path(name).name
    plain = _plain(last)
    inside = [] if Path(name).is_absolute() or '..' in Path(name).parts else [folder / name]
    for path in (*inside, folder / last, folder / plain, *(folder / (plain + p) for p in PACKED)):
        try:
            if last and path.is_file():
                return path
        except (OSError, ValueError):
            continue
    return None


def _plain(name: str) -> str:
    """Return the name without what tells of compression."""
    return next((name.removesuffix(each) for each in PACKED if name.endswith(each)), name)


def _stem(name: str) -> str:
    """Return the name up to the number of the split."""
    return re.sub(r'(_\d+)?' + _ENDING, '', name)


def _numbered(name: str) -> bool:
    return re.search(r'_\d+' + _ENDING, name) is not None


def _read_metadata(path: Path, problems: list[str]) -> dict[str, Any]:
    """Return `rosbag2_bagfile_information`, or {} with a problem noted."""
    if not os.path.isfile(path):
        return {}
    try:
        if path.stat().st_size > MAX_METADATA:
            raise ValueError(f'longer than {MAX_METADATA} bytes')
        information = load_yaml(path.read_bytes())['rosbag2_bagfile_information']
        if not isinstance(information, dict):
            raise TypeError('not a mapping')
        return information
    except (yaml.YAMLError, LookupError, TypeError, ValueError, RecursionError, OSError) as exc:
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        problems.append(f'{METADATA} does not parse ({reason}); the storage files are read')
        return {}
