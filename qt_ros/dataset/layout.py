"""Where everything of a dataset lies, and what `meta/info.json` says (LeRobot v3.0).

    meta/info.json                                  features, totals, path templates; written last
    meta/stats.json                                 statistics over all rows
    meta/tasks.parquet                              instruction -> task_index
    meta/episodes/chunk-000/file-000.parquet        one row per episode
    meta/contract.yaml                              the contract (ours)
    meta/labels.jsonl                               later words about outcomes (ours)
    data/chunk-000/file-000.parquet                 20 to 100 episodes, one row group each
    videos/<key>/chunk-000/file-000.mp4             one episode of one camera

The totals of info.json say how much of the other files counts.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from qt_ros.contract import Contract
from qt_ros.dataset.files import write_json
from qt_ros.dataset.swap import settle
from qt_ros.errors import DatasetError
from qt_ros.spelling import spelled

CODEBASE_VERSION = 'v3.0'
CHUNK_SIZE = 1000  # files in one chunk folder, unless info.json says otherwise

INFO = 'meta/info.json'
STATS = 'meta/stats.json'
TASKS = 'meta/tasks.parquet'
CONTRACT = 'meta/contract.yaml'
LABELS = 'meta/labels.jsonl'
EPISODES = 'meta/episodes'
EPISODES_PATH = 'meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
DATA_PATH = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
VIDEO_PATH = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
STAGING = '.staging'
LOCK = '.lock'
CACHE = '.cache'

Place = tuple[int, int]  # (chunk index, file index)
_PLACED = re.compile(r'chunk-(\d+)/file-(\d+)\.(?:parquet|mp4)')


def after(place: Place | None, chunks_size: int = CHUNK_SIZE) -> Place:
    """Return where the next file goes; `None`: there is none yet."""
    if place is None:
        return (0, 0)
    chunk, file = place
    return (chunk + 1, 0) if file >= chunks_size - 1 else (chunk, file + 1)


def placed_files(folder: Path) -> dict[Place, Path]:
    """Return {place: path} of the files `chunk-*/file-*` below `folder`, in order."""
    found = {}
    for path in folder.glob('chunk-*/file-*'):
        match = _PLACED.fullmatch(f'{path.parent.name}/{path.name}')
        if match:
            found[int(match[1]), int(match[2])] = path
    return dict(sorted(found.items()))


def data_file(root: Path, place: Place) -> Path:
    """Return the path of a file of rows."""
    return root / DATA_PATH.format(chunk_index=place[0], file_index=place[1])


def episodes_file(root: Path, place: Place) -> Path:
    """Return the path of a file of episode rows."""
    return root / EPISODES_PATH.format(chunk_index=place[0], file_index=place[1])


def video_file(root: Path, camera: str, place: Place) -> Path:
    """Return the path of one episode of one camera."""
    return root / VIDEO_PATH.format(
        video_key=video_key(camera), chunk_index=place[0], file_index=place[1]
    )


def video_key(camera: str) -> str:
    """Return the feature name of a camera."""
    return f'observation.images.{camera}'


def _vector(dtype: str, length: int, names: list[str] | None = None) -> dict[str, Any]:
    return {'dtype': dtype, 'shape': [length], 'names': names}


def _video(height: int, width: int, fps: float) -> dict[str, Any]:
    return {
        'dtype': 'video',
        'shape': [height, width, 3],
        'names': ['height', 'width', 'channels'],
        'info': {
            'video.height': height,
            'video.width': width,
            'video.codec': 'h264',
            'video.pix_fmt': 'yuv420p',
            'video.fps': fps,
            'video.channels': 3,
            'has_audio': False,
            'is_depth_map': False,
        },
    }


def fps_of(contract: Contract) -> float:
    """Return ticks per second as info.json holds it: an int where it is one."""
    rate = float(contract.rate_hz)
    return int(rate) if rate.is_integer() else rate


def features(contract: Contract) -> dict[str, dict[str, Any]]:
    """Return the features of info.json, {column: {dtype, shape, names}}, in column order."""
    dims = [dim.name for dim in contract.dims]
    found = {'action': _vector('float32', len(dims), dims)}
    found['action.requested'] = _vector('float32', len(dims), dims)
    if contract.state_names:
        names = list(contract.state_names)
        found['observation.state'] = _vector('float32', len(names), names)
    for camera in contract.cameras:
        height, width = camera.size
        found[video_key(camera.name)] = _video(height, width, fps_of(contract))
    found['next.reward'] = _vector('float32', 1)
    for name in ('next.done', 'next.truncated', 'next.success', 'intervention'):
        found[name] = _vector('bool', 1)
    for stream in contract.streams:
        found[f'stamp_ns.{stream}'] = _vector('int64', 1)
        found[f'valid.{stream}'] = _vector('bool', 1)
    found['timestamp'] = _vector('float32', 1)
    for name in ('frame_index', 'episode_index', 'index', 'task_index'):
        found[name] = _vector('int64', 1)
    return found


def row_features(contract: Contract) -> dict[str, dict[str, Any]]:
    """Return the features that are parquet columns: all but the videos."""
    return {
        name: feature
        for name, feature in features(contract).items()
        if feature['dtype'] != 'video'
    }


def new_info(contract: Contract) -> dict[str, Any]:
    """Return the info.json of a dataset without episodes."""
    return {
        'codebase_version': CODEBASE_VERSION,
        'fps': fps_of(contract),
        'features': features(contract),
        'total_episodes': 0,
        'total_frames': 0,
        'total_tasks': 0,
        'chunks_size': CHUNK_SIZE,
        'data_files_size_in_mb': 100,
        'video_files_size_in_mb': 200,
        'data_path': DATA_PATH,
        'video_path': VIDEO_PATH if contract.cameras else None,
        'robot_type': contract.name,
        'splits': {},
    }


def check_name(root: Path) -> None:
    """Raise `DatasetError` for a folder whose name parquet and video files cannot have."""
    full = root.absolute()
    if spelled(full) != str(full):
        raise DatasetError(
            f'{spelled(full)} has bytes in its name that are no UTF-8; rename the folder, or give'
            ' another one'
        )


def read_info(root: Path) -> dict[str, Any]:
    """Return info.json; raise `DatasetError` if `root` is no dataset of this version."""
    path = root / INFO
    if not path.exists():
        settle(root)
    try:
        info = json.loads(path.read_text(encoding='utf-8'))
        version = info['codebase_version']
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(
            f'{root} is not a dataset: {INFO} is missing; give the folder that qt-ros convert'
            ' wrote with --out'
        ) from None
    except OSError as error:
        raise DatasetError(f'{path} cannot be read: {error.strerror}') from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(f'{path} is damaged ({error}); restore it or convert again') from None
    if version != CODEBASE_VERSION:
        raise DatasetError(
            f'{root} has LeRobot format {version}; {CODEBASE_VERSION} is read here.'
            ' Convert it with the tools of LeRobot first'
        )
    _check_info(path, info)
    return info


def _check_info(path: Path, info: dict[str, Any]) -> None:
    """Raise `DatasetError` for entries that cannot be what they are meant to be."""
    problems = []
    for name in ('total_episodes', 'total_frames', 'total_tasks'):
        value = info.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            problems.append(f'{name} is {value!r}; a whole number from 0 up is needed')
    found = info.get('features')
    problems += [] if isinstance(found, dict) else ['features are missing']
    for name, each in found.items() if isinstance(found, dict) else ():
        kinds = (str, list)
        given = [each.get(key) if isinstance(each, dict) else None for key in ('dtype', 'shape')]
        if not all(isinstance(value, kind) for value, kind in zip(given, kinds, strict=True)):
            problems.append(f'feature {name!r} has no dtype and shape')
    if problems:
        raise DatasetError([f'{path} is damaged: {text}; restore it' for text in problems])


def read_contract(root: Path) -> Contract:
    """Return the contract that the dataset was made with."""
    path = root / CONTRACT
    if not path.is_file():
        raise DatasetError(
            f'{root} holds no {CONTRACT}, so it was not made by qt-ros; import it first'
            ' (qt-ros import-lerobot)'
        )
    return Contract.load(path)


def check_features(root: Path, info: dict[str, Any], contract: Contract) -> None:
    """Raise `DatasetError` if the columns of the dataset are not those of its contract."""

    def shapes(found: dict[str, dict[str, Any]]) -> dict[str, tuple[str, list[int]]]:
        return {name: (each['dtype'], list(each['shape'])) for name, each in found.items()}

    there, wanted = shapes(info['features']), shapes(features(contract))
    problems = [
        f'{root}: {INFO} has {name} as {there.get(name, "nothing")}, its contract makes it'
        f' {wanted.get(name, "nothing")}; it cannot be extended. Convert into another --out'
        for name in sorted({*there, *wanted})
        if there.get(name) != wanted.get(name)
    ]
    if problems:
        raise DatasetError(problems)


def write_info(root: Path, info: dict[str, Any]) -> None:
    """Replace info.json: what it counts exists from now on."""
    write_json(root / INFO, info)


def check_storable(contract: Contract) -> None:
    """Raise `DatasetError` if the contract asks for what the format cannot hold."""
    problems = []
    for camera in contract.cameras:
        height, width = camera.size
        if height % 2 or width % 2:
            problems.append(
                f'camera {camera.name} has size {height}x{width}; h264 video needs even numbers:'
                f' use {height + height % 2}x{width + width % 2}'
            )
    for name in (*(camera.name for camera in contract.cameras), *contract.streams):
        if '/' in name:
            problems.append(f'stream name {name!r} has a slash, which LeRobot refuses; rename it')
    if problems:
        raise DatasetError(list(dict.fromkeys(problems)))
