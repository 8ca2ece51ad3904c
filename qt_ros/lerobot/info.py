"""What `meta/info.json` of a LeRobot v3 set says: features, names, rate and where files lie.

The set comes from elsewhere, so nothing in it is trusted: versions, types and above all the path
templates are checked before a file is opened.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from qt_ros.lerobot.errors import SourceError

INFO = 'meta/info.json'
IMAGES = 'observation.images.'
MAX_LENGTH = 1 << 16  # of a feature, in each direction
_TOO_MUCH = (OverflowError, RecursionError)
_FIELDS: dict[str, tuple[str, ...]] = {
    'data_path': ('chunk_index', 'file_index'),
    'video_path': ('video_key', 'chunk_index', 'file_index'),
}
_DEFAULTS = {
    'data_path': 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet',
    'video_path': 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4',
}
_DEPTH_CODE = ('depth_min', 'depth_max', 'shift', 'use_log')
_NUMERIC = re.compile(r'(float|int|uint)(8|16|32|64)|bool')


DepthCode = tuple[float, float, float, bool]  # lowest, highest, shift [m]; logarithmic


@dataclass(frozen=True)
class Feature:
    """One column of the set, or one camera."""

    key: str
    dtype: str  # video | image | float32 | int64 | bool | string | ...
    shape: tuple[int, ...]
    names: tuple[str, ...]  # of the entries of a vector; made up ('action_0') where unnamed
    named: bool
    depth: bool  # pixels are distances, not colours
    depth_code: DepthCode = (0.01, 10.0, 3.5, True)  # LeRobot's defaults

    @property
    def is_camera(self) -> bool:
        return self.dtype in ('video', 'image')

    @property
    def is_vector(self) -> bool:
        """Say whether a row holds numbers, one for each of `names`."""
        return len(self.shape) == 1 and _NUMERIC.fullmatch(self.dtype) is not None

    @property
    def short(self) -> str:
        """Return the key without the words that LeRobot puts before it."""
        for prefix in (IMAGES, 'observation.'):
            if self.key.startswith(prefix):
                return self.key[len(prefix) :]
        return self.key


@dataclass(frozen=True)
class SetInfo:
    """info.json, checked."""

    root: Path
    fps: float
    features: Mapping[str, Feature]
    total_episodes: int
    robot_type: str
    templates: Mapping[str, str]  # data_path, video_path

    @property
    def cameras(self) -> dict[str, Feature]:
        """Return the features that are pictures, {key: feature}."""
        return {key: feature for key, feature in self.features.items() if feature.is_camera}

    def file(self, template: str, chunk: int, file: int, video_key: str = '') -> Path:
        """Return the path of a file; `SourceError` if the template leads out of the set."""
        if not (isinstance(chunk, int) and isinstance(file, int) and min(chunk, file) >= 0):
            raise SourceError(f'{self.root}: chunk {chunk!r}, file {file!r} is no place of a file')
        text = self.templates[template].format(
            chunk_index=chunk, file_index=file, video_key=video_key
        )
        return self.root / _inside(text, f'{self.root / INFO}: {template}')


def read_set_info(root: Path) -> SetInfo:
    """Read and check info.json of the set at `root` (an absolute path)."""
    raw = _load(root)
    version = raw.get('codebase_version')
    _check_version(root, version)
    problems: list[str] = []
    fps = raw.get('fps')
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < 1e6:
        problems.append(f'fps is {fps!r}; a number above 0 is needed')
    total = raw.get('total_episodes')
    if isinstance(total, bool) or not isinstance(total, int) or total < 0:
        problems.append(f'total_episodes is {total!r}; a whole number is needed')
    features = {}
    given = raw.get('features')
    for key, value in given.items() if isinstance(given, dict) else ():
        try:
            features[key] = _feature(key, value)
        except (TypeError, ValueError, KeyError, AttributeError, *_TOO_MUCH) as error:
            problems.append(f'feature {key!r} cannot be understood ({error})')
    if not features:
        problems.append('features are missing')
    templates = {}
    for name, fields in _FIELDS.items():
        templates[name] = raw.get(name) or _DEFAULTS[name]
        problems += _template_problems(name, templates[name], fields)
    if problems:
        raise SourceError([f'{root / INFO}: {problem}' for problem in problems])
    robot = raw.get('robot_type')
    return SetInfo(
        root, float(raw['fps']), features, raw['total_episodes'], str(robot or ''), templates
    )


def _load(root: Path) -> dict[str, Any]:
    path = root / INFO
    try:
        raw = json.loads(path.read_text(encoding='utf-8'))
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(
            f'{root} is not a LeRobot dataset: {INFO} is missing; give the folder that holds'
            ' meta/, data/ and videos/ (a set on a hub has to be downloaded first)'
        ) from None
    except OSError as error:
        raise SourceError(f'{path} cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f'{path} is damaged ({error}); restore it') from None
    if not isinstance(raw, dict):
        raise SourceError(f'{path} is damaged (no JSON object); restore it')
    return raw


def _check_version(root: Path, version: Any) -> None:
    found = re.fullmatch(r'v?(\d+)(\.\d+)*', str(version))
    if found is not None and found[1] == '3':
        return
    remedy = 'update qt-ros, or write it as v3.0'
    if found is not None and int(found[1]) < 3:
        remedy = (
            'convert it with LeRobot first: python -m lerobot.scripts.convert_dataset_v21_to_v30'
            f' --repo-id={root.name}'
        )
    raise SourceError(f'{root} has LeRobot format {version!r}; v3.x is read here. {remedy}')


def _feature(key: str, value: Mapping[str, Any]) -> Feature:
    dtype, shape = str(value['dtype']), tuple(int(length) for length in value['shape']) or (1,)
    if not all(1 <= length <= MAX_LENGTH for length in shape):
        raise ValueError(f'its shape is {list(shape)}; allowed: 1 to {MAX_LENGTH} in each')
    names = _flat_names(value.get('names')) if len(shape) == 1 else ()
    named = len(names) == (shape[0] if len(shape) == 1 else -1)
    if not named and len(shape) == 1:
        base = key.rpartition('.')[2]
        names = tuple(f'{base}_{index}' for index in range(shape[0]))
    told = {**(value.get('video_info') or {}), **(value.get('info') or {})}
    depth = bool(told.get('is_depth_map') or told.get('video.is_depth_map'))
    return Feature(key, dtype, shape, names, named, depth, _depth_code(told))


def _depth_code(told: Mapping[str, Any]) -> DepthCode:
    low, high, shift, logarithmic = (
        told.get(f'video.{name}', told.get(name)) for name in _DEPTH_CODE
    )
    code = (
        0.01 if low is None else float(low),
        10.0 if high is None else float(high),
        3.5 if shift is None else float(shift),
        True if logarithmic is None else bool(logarithmic),
    )
    if not code[0] < code[1] or (code[3] and code[0] + code[2] <= 0):
        raise ValueError(f'depth from {code[0]} to {code[1]} m, shift {code[2]}')
    return code


def _flat_names(names: Any) -> tuple[str, ...]:
    """Flatten what LeRobot writes: a list, {'motors': [...]}, {name: index}, or null."""
    if isinstance(names, dict):
        if names and all(isinstance(at, int) for at in names.values()):
            return tuple(str(name) for name in sorted(names, key=lambda name: names[name]))
        return tuple(name for part in names.values() for name in _flat_names(part))
    if isinstance(names, list):
        return tuple(name for part in names for name in _flat_names(part))
    return () if names is None else (str(names),)


def _template_problems(name: str, template: Any, fields: tuple[str, ...]) -> list[str]:
    """Check that a template holds the expected fields only, written plainly, and stays inside."""
    what = f'{name} {template!r}'
    try:
        parts = list(string.Formatter().parse(template))
    except (ValueError, TypeError):
        return [f'{what} is no path template; expected something like {_DEFAULTS[name]}']
    for _, field, spec, conversion in parts:
        if field is None:
            continue
        plain = re.fullmatch(r'(0?\d{1,2}d)?', spec or '') is not None
        if field not in fields or conversion or (field == 'video_key' and spec) or not plain:
            return [f'{what} has the field {{{field}}}; allowed: {", ".join(fields)}']
    try:
        _inside(template.format(chunk_index=0, file_index=0, video_key='key'), name)
    except SourceError as error:
        return list(error.problems)
    return []


def _inside(text: str, what: str) -> PurePosixPath:
    """Return a relative path that stays in the folder; symbolic links in it are the user's own."""
    path = PurePosixPath(text)
    if path.is_absolute() or '..' in path.parts or '\0' in text or '\\' in text or not path.parts:
        raise SourceError(f'{what} leads to {text!r}, outside of the set; nothing is read there')
    return path
