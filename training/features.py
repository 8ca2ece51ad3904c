"""What a frozen encoder makes of every frame, kept beside the training cache.

    CACHE/features/<camera>.<key>.f16    (rows, rows of the grid, columns, channels) float16
    CACHE/features/<camera>.<key>.json   the episodes whose rows are there, as (digest, length)

The key names the encoder's weights and the size of the frames, so another encoder has files of its
own. Episodes that were appended since are added; from the first one on that is no longer the same,
all are made again. The folder may be deleted at any time.

Only an encoder that does not hear the instruction has features that belong to a frame; see
`CameraEncoder`. float16 rounds by at most 1 in 2048.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training import checkpoint
from training.cache import Cache, CacheEpisode
from training.errors import TrainingError
from training.vision import CameraEncoder
from training.workers import Workers

VERSION = 1
_BLOCK = 2048  # frames between two records of what is done
_AT_ONCE = 32  # frames in one pass of the encoder


def frame_features(
    cache: Cache,
    camera: str,
    encoder: CameraEncoder,
    workers: Workers | None = None,
) -> NDArray[np.float16]:
    """Return the features (rows, h, w, C) of every frame of a camera, made where they are missing.

    With several processes each makes a share; they need to see the same files. Raises
    TrainingError if the disk is too small or a feature is too large for float16.
    """
    workers = workers or Workers()
    folder = cache.path / 'features'
    shape = (*encoder.net.grid(cache.meta.cameras[camera]), encoder.net.channels)
    name = f'{camera}.{_key(encoder, cache.meta.cameras[camera])}'
    file, record = folder / f'{name}.f16', folder / f'{name}.json'
    images, episodes = cache.images[camera], cache.meta.episodes
    now = [[_identity(images, episode), episode.length] for episode in episodes]
    kept = _known(record, file, 2 * int(np.prod(shape)), now)
    if workers.leads and kept < len(now):
        folder.mkdir(exist_ok=True)
        _make_room(file, len(cache), 2 * int(np.prod(shape)))
    workers.wait()
    out: NDArray[np.float16]
    if kept < len(now):
        out = np.memmap(file, np.float16, 'r+', shape=(len(cache), *shape))
        for first, last in _blocks(episodes, kept):
            rows = (episodes[first].start, episodes[last - 1].stop)
            _fill(out, images, encoder, rows, workers)
            workers.wait()
            if workers.leads:
                checkpoint.write_json(record, {'version': VERSION, 'episodes': now[:last]})
    workers.wait()
    return np.memmap(file, np.float16, 'r', shape=(len(cache), *shape))


def _fill(
    out: np.memmap,
    images: NDArray[np.uint8],
    encoder: CameraEncoder,
    rows: tuple[int, int],
    workers: Workers,
) -> None:
    """Write this process's share of the features of `rows` (first, behind the last) to disk."""
    weight = next(encoder.parameters())
    text = torch.zeros(1, 1, device=weight.device)  # a frozen encoder does not look at it
    starts = range(rows[0], rows[1], _AT_ONCE)
    for start in starts[workers.rank :: workers.world]:
        part = slice(start, min(start + _AT_ONCE, rows[1]))
        frames = torch.from_numpy(np.array(images[part])).to(weight.device)
        with torch.inference_mode():
            half = encoder.features(frames, text).to(torch.float16)
        if not bool(torch.isfinite(half).all()):
            raise TrainingError(
                'the frozen encoder gives features that float16 cannot hold; check the file of'
                ' model.weights, or use data.cache_features=false'
            )
        out[part] = half.cpu().numpy()
    out.flush()


def _blocks(episodes: tuple[CacheEpisode, ...], first: int) -> Iterator[tuple[int, int]]:
    """Yield (first, behind the last) episode of runs of about `_BLOCK` frames."""
    frames = 0
    for number in range(first, len(episodes)):
        frames += episodes[number].length
        if frames >= _BLOCK or number + 1 == len(episodes):
            yield first, number + 1
            first, frames = number + 1, 0


def _known(record: Path, file: Path, row_bytes: int, now: list[list]) -> int:
    """Return how many of the episodes that there are `now`, from the first on, are on record."""
    try:
        content = json.loads(record.read_text(encoding='utf-8'))
        before = content['episodes'] if content['version'] == VERSION else []
        held = file.stat().st_size // row_bytes
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
    rows = 0
    for number, episode in enumerate(now):
        rows += episode[1]
        if number >= len(before) or before[number] != episode or rows > held:
            return number
    return len(now)


def _make_room(file: Path, rows: int, row_bytes: int) -> None:
    """Give the file its size; raises TrainingError where the disk cannot hold it."""
    held = file.stat().st_size if file.exists() else 0
    missing, free = rows * row_bytes - held, shutil.disk_usage(file.parent).free
    if missing > free:
        raise TrainingError(
            f'{file.parent} needs {missing / 1e9:.1f} GB for features, {free / 1e9:.1f} GB are'
            ' free; make room or use data.cache_features=false'
        )
    with open(file, 'ab') as opened:
        opened.truncate(rows * row_bytes)


def _key(encoder: CameraEncoder, size: tuple[int, int]) -> str:
    """Name what features depend on, the frames apart."""
    found = hashlib.sha256(f'{VERSION} {size}'.encode())
    for name, value in encoder.net.state_dict().items():
        found.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _identity(images: NDArray[np.uint8], episode: CacheEpisode) -> str:
    """Return what changes whenever an episode's frames would."""
    if episode.digest:
        return episode.digest
    # A cache that was not made from a dataset: look at the frames themselves.
    return hashlib.sha256(images[episode.start : episode.stop].tobytes()).hexdigest()
