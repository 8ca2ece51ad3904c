"""Which files make up a bag: a folder with or without metadata.yaml, a single file, or several."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from qt_ros.errors import BagError

SUFFIXES = ('.mcap', '.db3', '.bag', '.mcap.zstd', '.db3.zstd')
METADATA = 'metadata.yaml'
_LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


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
        custom = self.information.get('custom_data')
        return {str(k): str(v) for k, v in custom.items()} if isinstance(custom, dict) else {}

    @property
    def encodings(self) -> dict[str, str]:
        """Return {topic: serialisation format} as metadata.yaml declares it."""
        found = {}
        for entry in self.information.get('topics_with_message_count') or ():
            topic = entry.get('topic_metadata') if isinstance(entry, dict) else None
            if isinstance(topic, dict) and topic.get('serialization_format'):
                found[str(topic.get('name'))] = str(topic['serialization_format'])
        return found


def is_storage(path: Path) -> bool:
    """Return True if the name is that of a bag's file."""
    return path.name.endswith(SUFFIXES)


def find_bags(path: Path) -> list[Path]:
    """Return the bags at or below `path`: itself if it is a bag, else the folders that are.

    A folder is a bag if metadata.yaml or a storage file lies in it.
    """
    if path.is_file() or _is_bag_folder(path):
        return [path]
    if not path.is_dir():
        raise BagError(f'{path} does not exist; give the folder or the file of a recording')
    found = [
        each
        for each in sorted(path.rglob('*'), key=natural)
        if _is_bag_folder(each) and not _hidden(each.relative_to(path))
    ]
    if not found:
        raise BagError(
            f'{path} holds no recording; expected {METADATA} or files ending in'
            f' {", ".join(SUFFIXES)}'
        )
    return found


def collect(path: Path) -> BagFiles:
    """Return the files of the bag at `path` (a folder or one file)."""
    if path.is_file():
        return _single(path)
    if not path.is_dir():
        raise BagError(f'{path} does not exist; give the folder or the file of a recording')
    present = [each for each in sorted(path.iterdir(), key=natural) if _is_storage_file(each)]
    bag = BagFiles(present)
    bag.information = _read_metadata(path / METADATA, bag.problems)
    listed = [str(name) for name in bag.information.get('relative_file_paths') or ()]
    if listed:
        _select(bag, path, listed)
    elif present and not (path / METADATA).exists():
        bag.problems.append(f'{METADATA} is missing; every storage file of the folder is read')
    if not bag.files:
        listing = f'; {METADATA} lists {", ".join(bag.missing)}' if bag.missing else ''
        raise BagError(
            f'{path} holds no storage file (one ending in {", ".join(SUFFIXES)}){listing}'
        )
    return bag


def load_yaml(text: str | bytes) -> Any:
    """Parse YAML, with the C parser where there is one: it is 10 times faster."""
    return yaml.load(text, Loader=_LOADER)  # a safe loader: plain data only


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key with numbers by value: `bag_2` before `bag_10`."""
    return [
        (0, int(part), '') if part.isdigit() else (1, 0, part)
        for part in re.split(r'(\d+)', str(path))
        if part
    ]


def _is_storage_file(path: Path) -> bool:
    return is_storage(path) and path.is_file()


def _is_bag_folder(path: Path) -> bool:
    if not path.is_dir():
        return False
    return (path / METADATA).is_file() or any(_is_storage_file(each) for each in path.iterdir())


def _hidden(path: Path) -> bool:
    """Return True below a folder like `.recording`, where a recorder is still writing."""
    return any(part.startswith('.') for part in path.parts)


def _single(path: Path) -> BagFiles:
    """Take one file; metadata.yaml beside it counts only if it lists the file."""
    information = _read_metadata(path.parent / METADATA, [])
    listed = {Path(str(name)).name for name in information.get('relative_file_paths') or ()}
    return BagFiles([path], information=information if path.name in listed else {})


def _select(bag: BagFiles, folder: Path, listed: list[str]) -> None:
    """Keep the listed files, in order; tell which are missing and which are not listed."""
    chosen: list[Path] = []
    for name in listed:
        # rosbag2 wrote the folder's name in front for a while: the last part decides.
        found = next((p for p in (folder / name, folder / Path(name).name) if p.is_file()), None)
        if found is None:
            bag.missing.append(name)
        elif found not in chosen:
            chosen.append(found)
    others = [each for each in bag.files if each not in chosen]
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


def _stem(name: str) -> str:
    """Return the name up to the number of the split."""
    return re.sub(r'(_\d+)?(\.mcap|\.db3|\.bag)(\.zstd)?$', '', name)


def _numbered(name: str) -> bool:
    return re.search(r'_\d+(\.mcap|\.db3|\.bag)(\.zstd)?$', name) is not None


def _read_metadata(path: Path, problems: list[str]) -> dict[str, Any]:
    """Return `rosbag2_bagfile_information`, or {} with a problem noted."""
    if not path.is_file():
        return {}
    try:
        content = load_yaml(path.read_bytes())
        information = content['rosbag2_bagfile_information']
        if not isinstance(information, dict):
            raise TypeError('not a mapping')
        if not isinstance(information.get('relative_file_paths') or [], list):
            information['relative_file_paths'] = []
        return information
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as exc:
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        problems.append(f'{METADATA} does not parse ({reason}); the storage files are read')
        return {}
