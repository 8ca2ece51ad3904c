"""Read a dataset: its contract, its episodes, their rows and frames."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qt_ros.dataset.catalog import EpisodeMeta, read_catalog
from qt_ros.dataset.layout import data_file, read_contract, read_info, video_file
from qt_ros.dataset.tables import digest, from_table, widths
from qt_ros.dataset.video import count_frames, decode_video, file_sha256
from qt_ros.episode import rewards
from qt_ros.errors import DatasetError


class Dataset:
    """A dataset as it was when opened; episodes that are appended later show in a new one."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._info = read_info(self.path)
        self.contract = read_contract(self.path)
        self._cameras = [camera.name for camera in self.contract.cameras]
        self.episodes: list[EpisodeMeta] = read_catalog(
            self.path, self._info['total_episodes'], self._cameras
        )
        self._widths = widths(self.contract)
        self._file = lru_cache(maxsize=4)(_open_rows)

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
            table = self._file(path).read_row_group(episode.row_group)
        except (OSError, IndexError, pa.ArrowException) as error:
            raise DatasetError(
                f'{path} cannot be read ({error}); restore it or convert again'
            ) from error
        columns = from_table(table, self._widths)
        columns.setdefault('observation.state', np.zeros((table.num_rows, 0), np.float32))
        if table.num_rows != episode.length or (columns['episode_index'] != index).any():
            raise DatasetError(
                f'{path}: row group {episode.row_group} does not hold the {episode.length} rows of'
                f' episode {index}; restore it or convert again'
            )
        if episode.outcome != episode.stored_outcome:
            columns.update(rewards(episode.outcome, episode.length))
        return columns

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
        try:
            columns = self.rows(index)
            videos = {}
            for camera in self._cameras:
                path = video_file(self.path, camera, episode.videos[camera][0])
                videos[camera] = file_sha256(path)
                found = count_frames(path)
                if found != episode.length:
                    return [f'{path} has {found} frames for {episode.length} rows']
        except (DatasetError, OSError) as error:
            return [str(error)]
        if digest(columns, videos) != episode.digest:
            return [f'rows or videos of episode {index} are not those that were appended']
        return []

    def _episode(self, index: int) -> EpisodeMeta:
        if not 0 <= index < len(self.episodes):
            raise DatasetError(
                f'episode {index} does not exist; allowed: 0 to {len(self.episodes) - 1}'
            )
        return self.episodes[index]


def _open_rows(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path)
