"""Read a LeRobot v3 set that somebody else recorded: its episodes, their rows and pictures.

Nothing is ever written into it. A data file holds the rows of many episodes, a video file the
frames of many; the rows of an episode are those with its `episode_index`, its frames those from
`from_timestamp` on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qt_ros.images.picture import Picture
from qt_ros.lerobot.errors import EpisodeError, SourceError
from qt_ros.lerobot.info import Feature, read_set_info
from qt_ros.lerobot.pictures import image_pictures, video_pictures

TASKS = 'meta/tasks.parquet'
EPISODES = 'meta/episodes'
OURS = ('episode_id', 'outcome', 'source', 'policy_id', 'contract_hash', 'start_stamp_ns')
_NEEDED = ('episode_index', 'length', 'data/chunk_index', 'data/file_index')
_ROWS = ('episode_index', 'frame_index', 'task_index')
_IMAGES_AT_ONCE = 16  # rows with embedded pictures held in memory


@dataclass(frozen=True)
class SourceEpisode:
    """One row of `meta/episodes/`."""

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    videos: Mapping[str, tuple[Path, float]]  # camera key -> (file, time of its first frame [s])
    ours: Mapping[str, Any]  # columns that qt-ros writes, where they are there


class Source:
    """A LeRobot v3 set, open for reading; `SourceError` if it is none or is damaged."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.info = read_set_info(self.path)
        self.tasks = _read_tasks(self.path)
        self.episodes = {episode.index: episode for episode in self._read_episodes()}
        self._file = lru_cache(maxsize=4)(_DataFile)

    def rows(self, episode: SourceEpisode, columns: Sequence[str]) -> dict[str, NDArray]:
        """Return columns of an episode: (T,), or (T, D) for a vector of more than one number.

        `columns` that the set does not have are left out. Raises `EpisodeError` if the rows are
        damaged, missing, out of order, or hold nothing where a number should be.
        """
        wanted = [key for key in dict.fromkeys([*_ROWS, *columns]) if key in self.info.features]
        try:
            file = self._file(episode.data)
            table = file.read(episode.index, [key for key in wanted if key in file.columns])
        except (OSError, pa.ArrowException, ValueError) as error:
            raise EpisodeError(f'{episode.data} cannot be read ({error}); restore it') from error
        where = f'{episode.data}: episode {episode.index}'
        if table.num_rows != episode.length or not table.num_rows:
            raise EpisodeError(
                f'{where} has {table.num_rows} rows, meta/episodes says {episode.length}'
            )
        missing = [key for key in wanted if key not in table.column_names]
        if missing:
            raise EpisodeError(f'{where} lacks the columns {", ".join(missing)}')
        found = {
            key: _numbers(table.column(key), self.info.features[key], where) for key in wanted
        }
        if 'frame_index' in found and (found['frame_index'] != np.arange(episode.length)).any():
            raise EpisodeError(f'{where}: frame_index does not count from 0 in steps of 1')
        return found

    def pictures(
        self, episode: SourceEpisode, key: str, wanted: Sequence[int]
    ) -> Iterator[Picture]:
        """Yield the pictures of camera `key` for the frames `wanted`, which never decrease."""
        feature = self.info.features[key]
        if feature.dtype == 'video':
            path, start_s = episode.videos[key]
            what = f'{path}: episode {episode.index}'
            return video_pictures(path, start_s, self.info.fps, wanted, feature, what)
        what = f'{episode.data}: episode {episode.index}: {key}'
        return image_pictures(self._images(episode, key), wanted, feature, what)

    def _images(self, episode: SourceEpisode, key: str) -> Iterator[bytes]:
        """Yield the encoded pictures of an episode that lie in its rows."""
        try:
            for table in self._file(episode.data).batches(episode.index, key, _IMAGES_AT_ONCE):
                for item in table.column(key).to_pylist():
                    yield self._image_bytes(episode, item)
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise EpisodeError(f'{episode.data} cannot be read ({error}); restore it') from error

    def _image_bytes(self, episode: SourceEpisode, item: Any) -> bytes:
        """Return the file that a cell holds: bytes, or {bytes, path} as `datasets` writes it."""
        data = item.get('bytes') if isinstance(item, dict) else item
        if not isinstance(data, bytes):
            raise EpisodeError(
                f'{episode.data}: episode {episode.index} has pictures outside of the file; write'
                ' the set with embedded images, or as videos'
            )
        return data

    def _read_episodes(self) -> Iterator[SourceEpisode]:
        files = sorted((self.path / EPISODES).glob('chunk-*/file-*.parquet'))
        count = 0
        for path in files:
            for row in self._episode_rows(path):
                if row['episode_index'] >= self.info.total_episodes:
                    continue  # begun, and never counted: its recorder was killed
                count += 1
                try:
                    yield self._episode(row)
                except (KeyError, TypeError, ValueError) as error:
                    raise SourceError(f'{path} is damaged ({error!r}); restore it') from error
        if count != self.info.total_episodes:
            raise SourceError(
                f'{self.path / EPISODES} names {count} episodes, info.json counts'
                f' {self.info.total_episodes}; restore the folder'
            )

    def _episode_rows(self, path: Path) -> list[dict[str, Any]]:
        try:
            with pq.ParquetFile(path) as file:
                names = file.schema_arrow.names
                missing = [name for name in _NEEDED if name not in names]
                if missing:
                    raise SourceError(f'{path} lacks the columns {", ".join(missing)}')
                # The statistics are most of the file and not needed.
                kept = [name for name in names if not name.startswith('stats/')]
                return file.read(columns=kept).to_pylist()
        except (OSError, pa.ArrowException, ValueError) as error:
            raise SourceError(f'{path} cannot be read ({error}); restore it') from error

    def _episode(self, row: dict[str, Any]) -> SourceEpisode:
        videos = {}
        for key, feature in self.info.cameras.items():
            if feature.dtype == 'video':
                place = (row[f'videos/{key}/chunk_index'], row[f'videos/{key}/file_index'])
                start_s = float(row[f'videos/{key}/from_timestamp'])
                videos[key] = (self.info.file('video_path', *place, video_key=key), start_s)
        return SourceEpisode(
            index=int(row['episode_index']),
            length=int(row['length']),
            tasks=tuple(row.get('tasks') or ()),
            data=self.info.file('data_path', row['data/chunk_index'], row['data/file_index']),
            videos=videos,
            ours={name: row[name] for name in OURS if row.get(name) is not None},
        )


class _DataFile:
    """One parquet file of rows; it knows which rows belong to which episode."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        self.columns = frozenset(self._file.schema_arrow.names)
        if 'episode_index' not in self.columns:
            raise ValueError('it has no column episode_index')
        index = self._file.read(columns=['episode_index']).column(0)
        self._episode_of_row = index.to_numpy()
        groups = range(self._file.num_row_groups)
        counts = [self._file.metadata.row_group(group).num_rows for group in groups]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        # Other tools write one row group for many episodes: read that once, not for each.
        self._groups = lru_cache(maxsize=1)(self._read_groups)

    def read(self, episode: int, columns: Sequence[str]) -> pa.Table:
        """Return the rows of an episode."""
        rows = np.flatnonzero(self._episode_of_row == episode)
        if not len(rows):
            return self._file.schema_arrow.empty_table()
        groups, start = self._around(rows)
        table = self._groups(groups, tuple(columns))
        first, last = int(rows[0]) - start, int(rows[-1]) - start
        if last - first + 1 == len(rows):
            return table.slice(first, len(rows))
        return table.take(rows - start)

    def batches(self, episode: int, column: str, size: int) -> Iterator[pa.Table]:
        """Yield the rows of an episode, one column, a few at a time."""
        rows = np.flatnonzero(self._episode_of_row == episode)
        if not len(rows):
            return
        groups, at = self._around(rows)
        for batch in self._file.iter_batches(size, row_groups=list(groups), columns=[column]):
            kept = rows[(rows >= at) & (rows < at + batch.num_rows)] - at
            if len(kept):
                yield pa.Table.from_batches([batch]).take(kept)
            at += batch.num_rows

    def _around(self, rows: NDArray[np.int64]) -> tuple[tuple[int, ...], int]:
        """Return the row groups that hold `rows`, and the number of their first row."""
        first, last = np.searchsorted(self._starts, (rows[0], rows[-1]), side='right') - 1
        return tuple(range(int(first), int(last) + 1)), int(self._starts[first])

    def _read_groups(self, groups: tuple[int, ...], columns: tuple[str, ...]) -> pa.Table:
        return self._file.read_row_groups(list(groups), columns=list(columns))


def _numbers(column: pa.ChunkedArray, feature: Feature, where: str) -> NDArray:
    """Return a column as (T,) or (T, D)."""
    width = feature.shape[0] if len(feature.shape) == 1 else 0
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    rows = len(array)
    holes = array.null_count
    if pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
        array = array.flatten()
        holes += array.null_count
    if holes or not feature.is_vector or len(array) != rows * width:
        raise EpisodeError(
            f'{where}: {feature.key} holds {len(array)} values and {holes} empty cells in {rows}'
            f' rows; {width} numbers a row are needed'
        )
    try:
        values = array.to_numpy(zero_copy_only=False)
    except (pa.ArrowException, ValueError) as error:
        raise EpisodeError(f'{where}: {feature.key} holds no numbers ({error})') from error
    if values.dtype == object:
        raise EpisodeError(f'{where}: {feature.key} holds {array.type}, no numbers')
    return values.reshape(rows, width) if width > 1 else values


def _read_tasks(root: Path) -> dict[int, str]:
    """Return {task_index: text}; pandas keeps the text as the index, under one name or another."""
    path = root / TASKS
    if not path.exists():
        return {}
    try:
        table = pq.read_table(path)
        column = _text_column(table)
        indices = table.column('task_index').to_pylist()
        texts = table.column(column).to_pylist()
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise SourceError(f'{path} cannot be read ({error}); restore it') from error
    return {int(i): str(text) for i, text in zip(indices, texts, strict=True) if i is not None}


def _text_column(table: pa.Table) -> str:
    told = json.loads((table.schema.metadata or {}).get(b'pandas', b'{}'))
    index = [name for name in told.get('index_columns', []) if isinstance(name, str)]
    for name in [*index, 'task', *table.column_names]:
        if name != 'task_index' and name in table.column_names:
            return name
    raise KeyError('no column holds the text of the tasks')
