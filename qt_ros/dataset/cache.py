"""Fill the training cache of a dataset; its layout is the business of `training.cache`.

The frames of several episodes are decoded at once, each by a thread that writes them straight to
their place: decoding leaves Python's lock alone, and memory holds one frame a thread, however long
the episodes are.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray

from qt_ros.dataset.files import locked, plain_errors
from qt_ros.dataset.layout import CACHE, LOCK
from qt_ros.dataset.reader import Dataset
from qt_ros.episode import rewards
from qt_ros.errors import DatasetError
from training.cache import CacheAction, CacheMeta
from training.cache_writer import CacheWriter

COMMIT_ROWS = 50_000  # an interrupted build goes on from the last multiple of about that
COMMIT_BYTES = 2 << 30  # or of that, whichever comes first
MAX_WORKERS = 16  # beyond that Python's lock and the disk are the limit

Progress = Callable[[int, int, str], None]


def build_cache(
    dataset_path: str | Path, progress: Progress | None = None, workers: int | None = None
) -> Path:
    """Bring `<dataset>/.cache` up to date and return its path.

    Costs nothing where it is; appends the episodes that it lacks; gives those with another label
    than before the new one; starts anew if the contract or any row is another. `progress` is
    called with (episodes done, episodes, a remark) after each. `workers` threads decode; None: as
    many as there are cores. Raises `DatasetError` if another process is building it, or if there
    is no room for it.
    """
    dataset = Dataset(dataset_path)
    cache = dataset.path / CACHE
    workers = min(cores(), MAX_WORKERS) if workers is None else workers
    with plain_errors(cache):
        cache.mkdir(exist_ok=True)
        with locked(cache / LOCK, str(cache)), _writer(cache, dataset) as writer:
            follow_labels(writer, dataset)
            if len(writer.meta.episodes) < len(dataset):
                _check_room(writer, dataset)
                _fill(writer, dataset, workers, progress)
                # Labels may have been given while the frames were decoded.
                follow_labels(writer, Dataset(dataset_path))
    return cache


def relabel_cache(dataset_path: str | Path) -> None:
    """Let an existing cache follow the labels of its dataset; decode nothing."""
    dataset = Dataset(dataset_path)
    cache = dataset.path / CACHE
    if not (cache / 'meta.json').exists():
        return
    with locked(cache / LOCK, str(cache)), _writer(cache, dataset) as writer:
        follow_labels(writer, dataset)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1


def _writer(cache: Path, dataset: Dataset) -> CacheWriter:
    """Return a writer that goes on with the cache if it holds the first episodes of `dataset`."""
    contract = dataset.contract
    meta = CacheMeta(
        contract=contract.to_yaml(),
        contract_hash=contract.hash,
        cameras={camera.name: camera.size for camera in contract.cameras},
        state_names=contract.state_names,
        action=tuple(
            CacheAction(name=dim.name, low=dim.low, high=dim.high, bins=dim.bins)
            for dim in contract.dims
        ),
    )
    writer = CacheWriter(cache, meta)
    held = [(episode.digest, episode.length) for episode in writer.meta.episodes]
    there = [(episode.digest, episode.length) for episode in dataset.episodes]
    if held != there[: len(held)]:
        writer.close()
        writer = CacheWriter(cache, meta, fresh=True)
    return writer


def follow_labels(writer: CacheWriter, dataset: Dataset) -> None:
    """Give the episodes of the cache the outcome and the instruction that the dataset has."""
    known = writer.meta.instructions
    for index, (held, now) in enumerate(zip(writer.meta.episodes, dataset.episodes, strict=False)):
        if held.digest != now.digest:
            break  # the dataset was made anew meanwhile; the next build sees to it
        if (held.outcome, known[held.instruction]) != (now.outcome, now.instruction):
            columns = rewards(now.outcome, held.length)
            writer.relabel(
                index,
                instruction=now.instruction,
                outcome=now.outcome,
                reward=columns['next.reward'],
                terminated=columns['next.done'],
                truncated=columns['next.truncated'],
            )


def _check_room(writer: CacheWriter, dataset: Dataset) -> None:
    """Raise `DatasetError` where the disk has no room for what is missing: it may be a lot."""
    rows = sum(episode.length for episode in dataset.episodes) - writer.meta.rows
    need, free = rows * writer.meta.bytes_per_row, shutil.disk_usage(writer.path).free
    if need > free:
        raise DatasetError(
            f'{writer.path} needs {need / 1e9:.1f} GB for the decoded frames of {rows} rows, and'
            f' {free / 1e9:.1f} GB are free; make room, make {writer.path} a link to a folder on a'
            ' larger disk, or convert with smaller cameras'
        )


def _fill(writer: CacheWriter, dataset: Dataset, workers: int, progress: Progress | None) -> None:
    """Append the episodes that the cache lacks."""
    total, done = len(dataset), len(writer.meta.episodes)
    begin, first, committed = time.monotonic(), writer.meta.rows, writer.meta.rows
    stop = Event()
    ahead: deque[list[Future[None]]] = deque()
    submitted, row = done, writer.meta.rows
    size = writer.meta.bytes_per_row
    with ThreadPoolExecutor(workers) as pool:
        try:
            for index in range(done, total):
                while submitted < total and len(ahead) <= 2 * workers:
                    ahead.append(_decode(pool, stop, writer, dataset, submitted, row))
                    row += dataset.episodes[submitted].length
                    submitted += 1
                for future in ahead.popleft():
                    future.result()
                _append(writer, dataset, index)
                rows = writer.meta.rows - committed
                if rows >= COMMIT_ROWS or rows * size >= COMMIT_BYTES:
                    writer.commit()
                    committed = writer.meta.rows
                if progress is not None:
                    rate = (writer.meta.rows - first) / max(time.monotonic() - begin, 1e-9)
                    note = f'{writer.meta.rows * size / 1e6:.0f} MB, {rate:.0f} rows/s'
                    progress(index + 1, total, note)
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _decode(
    pool: ThreadPoolExecutor,
    stop: Event,
    writer: CacheWriter,
    dataset: Dataset,
    index: int,
    row: int,
) -> list[Future[None]]:
    """Let the pool put the frames of an episode at `row`, one job a camera."""
    episode = dataset.episodes[index]
    return [
        pool.submit(
            writer.put_frames,
            camera.name,
            row,
            _until(stop, dataset.iter_frames(index, camera.name)),
            episode.length,
            episode.episode_id,
        )
        for camera in dataset.contract.cameras
    ]


def _until(stop: Event, frames: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Yield frames until it is time to stop: a long episode must not hold up the end."""
    for frame in frames:
        if stop.is_set():
            return
        yield frame


def _append(writer: CacheWriter, dataset: Dataset, index: int) -> None:
    """Add the rows of an episode whose frames are in place."""
    episode = dataset.episodes[index]
    rows = dataset.rows(index)
    writer.append(
        id=episode.episode_id,
        instruction=episode.instruction,
        outcome=episode.outcome,
        source=episode.source,
        policy_id=episode.policy_id,
        images=None,
        state=rows['observation.state'],
        action=rows['action'],
        reward=rows['next.reward'],
        terminated=rows['next.done'],
        truncated=rows['next.truncated'],
        digest=episode.digest,
    )
