"""Read a dataset: its contract, its episodes, their rows and frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qt_ros.dataset.catalog import EpisodeMeta, read_catalog, read_episode_table
from qt_ros.dataset.foreign import NO_DIGEST
from qt_ros.dataset.layout import (
    Place,
    check_name,
    data_file,
    episodes_file,
    read_contract,
    read_info,
    video_file,
    video_key,
)
from qt_ros.dataset.stats import Stats
from qt_ros.dataset.swap import settle
from qt_ros.dataset.tables import (
    PARQUET_ERRORS,
    digest,
    from_table,
    stats_of_row,
    unreadable,
    widths,
)
from qt_ros.dataset.video import count_frames, decode_video, file_sha256
from qt_ros.episode import rewards
from qt_ros.errors import DatasetError


class Dataset:
    """A dataset as it was when opened; episodes that are appended later show in a new one.

    Where another set has taken its place since (`convert --replace`), reading on raises
    `DatasetError`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        check_name(self.path)
        try:
            self._open()
        except DatasetError:
            if self._in_place():
                raise
            self._open()  # another set took its place while we were reading
        self._file = lru_cache(maxsize=4)(pq.ParquetFile)
        self._image_stats: tuple[Place, dict[int, dict[str, Any]]] | None = None

    def _open(self) -> None:
        settle(self.path)
        self._folder = _identity(self.path)
        self._info = read_info(self.path)
        self.contract = read_contract(self.path)
        self._cameras = [camera.name for camera in self.contract.cameras]
        self.episodes: list[EpisodeMeta] = read_catalog(
            self.path, self._info['total_episodes'], self.contract
        )
        self._widths = widths(self.contract)
        if not self._in_place():
            raise DatasetError(f'{self.path} is being replaced; try again')

    def _in_place(self) -> bool:
        """Say whether the folder that was opened still stands at its path."""
        return self._folder == _identity(self.path)

    def __len__(self) -> int:
        return len(self.episodes)

    def info(self) -> dict[str, Any]:
        """Return what meta/info.json says."""
        return self._info

    def rows(self, index: int) -> dict[str, NDArray]:
        """Return the columns of episode `index`: (T,), or (T, D) for action and state."""
        episode = self._episode(index)
        path = data_file(self.path, episode.data)
        try:
            table = self._table(path, episode)
            columns = from_table(table, self._widths)
        except PARQUET_ERRORS as error:
            raise unreadable(path, error) from error
        columns.setdefault('observation.state', np.zeros((table.num_rows, 0), np.float32))
        if table.num_rows != episode.length or (columns['episode_index'] != index).any():
            raise DatasetError(
                f'{path} does not hold the {episode.length} rows of episode {index}; restore it or'
                ' convert again'
            )
        if episode.outcome != episode.stored_outcome:
            columns.update(rewards(episode.outcome, episode.length))
        return columns

    def _table(self, path: Path, episode: EpisodeMeta) -> pa.Table:
        """Return the rows of an episode; LeRobot's own files need not have a row group each."""
        file = self._file(path)
        if episode.row_group < file.num_row_groups:
            table = file.read_row_group(episode.row_group)
            if table.num_rows == episode.length:
                return table
        return file.read().filter(pc.field('episode_index') == episode.index)

    def image_stats(self, index: int) -> Stats:
        """Return the statistics of the cameras that were taken when the episode was appended."""
        place = self._episode(index).meta
        if self._image_stats is None or self._image_stats[0] != place:
            self._image_stats = (place, self._read_image_stats(place))
        return stats_of_row(self._image_stats[1][index])

    def _read_image_stats(self, place: Place) -> dict[int, dict[str, Any]]:
        table = read_episode_table(episodes_file(self.path, place))
        keys = tuple(f'stats/{video_key(camera)}/' for camera in self._cameras)
        names = [name for name in table.column_names if keys and name.startswith(keys)]
        rows = table.select(['episode_index', *names]).to_pylist()
        return {row['episode_index']: row for row in rows}

    def iter_frames(self, index: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        """Yield the T frames (H, W, 3) uint8 RGB of one camera of episode `index`."""
        episode = self._episode(index)
        if camera not in episode.videos:
            raise DatasetError(f'no camera {camera!r}; there are: {", ".join(self._cameras)}')
        place, start_s = episode.videos[camera]
        first = round(start_s * self.contract.rate_hz)
        return decode_video(video_file(self.path, camera, place), first, episode.length)

    def frames(self, index: int, camera: str) -> NDArray[np.uint8]:
        """Return the frames (T, H, W, 3) uint8 RGB of one camera of episode `index`."""
        return np.stack(list(self.iter_frames(index, camera)))

    def problems(self, index: int) -> list[str]:
        """Return what is wrong with the files of episode `index`, in words; empty if nothing is.

        Reads all rows and all bytes of the videos and compares them with the digest that was taken
        when the episode was appended.
        """
        episode = self._episode(index)
        ours = not episode.digest.startswith(NO_DIGEST)
        try:
            columns = self.rows(index)
            videos = {}
            for camera in self._cameras:
                place, start_s = episode.videos[camera]
                path = video_file(self.path, camera, place)
                videos[camera] = file_sha256(path)
                found, before = count_frames(path), round(start_s * self.contract.rate_hz)
                if found < before + episode.length or (ours and found != episode.length):
                    return [f'{path} has {found} frames for {before} + {episode.length} rows']
        except (DatasetError, OSError) as error:
            return [str(error)]
        if ours and digest(columns, videos) != episode.digest:
            return [f'rows or videos of episode {index} are not those that were appended']
        return []

    def _episode(self, index: int) -> EpisodeMeta:
        if not 0 <= index < len(self.episodes):
            raise DatasetError(
                f'episode {index} does not exist; allowed: 0 to {len(self.episodes) - 1}'
            )
        if not self._in_place():
            raise DatasetError(f'{self.path} has been replaced since it was opened; open it again')
        return self.episodes[index]


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a folder from another one that takes its name; None: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
