"""Put staged episodes into the files of a dataset: rows, videos, and episode rows after them.

Rows and episode rows go on in the last file until it holds 50 episodes or is large; each episode
is a row group. Videos get a file each. Nothing of it counts before info.json says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qt_ros.contract import Contract
from qt_ros.dataset.catalog import EpisodeMeta, read_episode_table
from qt_ros.dataset.files import move_durably, sync_folder
from qt_ros.dataset.layout import (
    CHUNK_SIZE,
    Place,
    after,
    data_file,
    episodes_file,
    video_file,
    video_key,
)
from qt_ros.dataset.stats import Stats
from qt_ros.dataset.tables import episode_schema, iter_row_groups, row_schema, write_row_groups

OPEN_EPISODES = 50  # a file with fewer gets the next batch; so none has more than 49 + a batch
OPEN_BYTES = 64 << 20  # a larger file gets no more, however few its episodes


@dataclass(frozen=True)
class StagedVideo:
    """One camera of a staged episode."""

    path: Path
    start_s: float = 0.0  # time of the episode's first frame in the file


@dataclass(frozen=True)
class Staged:
    """An episode that is whole, but no part of the dataset yet."""

    table: pa.Table
    row: dict[str, Any]  # of meta/episodes, without the places that packing decides
    stats: Stats
    videos: Mapping[str, StagedVideo]


@dataclass
class _Tail:
    """The last file of a kind, which may get more episodes."""

    place: Place | None = None
    episodes: int = 0


class Packer:
    """Knows where the next episodes go; `catalog` are those that the dataset has."""

    def __init__(
        self,
        root: Path,
        contract: Contract,
        info: Mapping[str, Any],
        catalog: Sequence[EpisodeMeta],
    ) -> None:
        self._root = root
        self._rate_hz = contract.rate_hz
        self._rows = row_schema(contract)
        self._episodes = episode_schema(contract)
        self._chunks_size = int(info.get('chunks_size', CHUNK_SIZE))
        self._data, self._meta = _Tail(), _Tail()
        self._videos: dict[str, Place] = {}
        if catalog:
            last = catalog[-1]
            self._data = _Tail(last.data, last.row_group + 1)
            listed = sum(1 for episode in catalog if episode.meta == last.meta)
            self._meta = _Tail(last.meta, listed)
            self._videos = {camera: place for camera, (place, _) in last.videos.items()}

    def pack(self, staged: Sequence[Staged]) -> list[dict[str, Any]]:
        """Write the rows and place the videos; return the episode rows, places filled in."""
        data = self._write_rows(staged)
        rows = []
        for each in staged:
            row = {**each.row, 'data/chunk_index': data[0], 'data/file_index': data[1]}
            for camera, video in each.videos.items():
                place = self._place_video(camera, video.path)
                prefix = f'videos/{video_key(camera)}'
                row[f'{prefix}/chunk_index'], row[f'{prefix}/file_index'] = place
                row[f'{prefix}/from_timestamp'] = video.start_s
                row[f'{prefix}/to_timestamp'] = video.start_s + row['length'] / self._rate_hz
            for folder in {video.path.parent for video in each.videos.values()}:
                with suppress(OSError):  # the caller's own files may lie there too
                    folder.rmdir()
            rows.append(row)
        return rows

    def list(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write the episode rows that `pack` returned, and flush the names of all files."""
        place, keep = self._next(self._meta, episodes_file)
        tables = []
        if keep:
            tables.append(read_episode_table(episodes_file(self._root, place)).slice(0, keep))
            if tables[0].schema != self._episodes:  # it has columns that we do not know
                place, tables = self._after(place), []
        for row in rows:
            row['meta/episodes/chunk_index'], row['meta/episodes/file_index'] = place
        tables.append(pa.Table.from_pylist(list(rows), schema=self._episodes))
        table = pa.concat_tables(tables).combine_chunks()
        write_row_groups(episodes_file(self._root, place), self._episodes, [table])
        self._meta = _Tail(place, table.num_rows)
        self._flush()

    def _write_rows(self, staged: Sequence[Staged]) -> Place:
        place, keep = self._next(self._data, data_file)
        path = data_file(self._root, place)
        if keep and not self._ours(path, keep):
            place, keep = self._after(place), 0
            path = data_file(self._root, place)
        held: Iterator[pa.Table] = iter_row_groups(path, keep) if keep else iter(())
        write_row_groups(path, self._rows, chain(held, (each.table for each in staged)))
        self._data = _Tail(place, keep + len(staged))
        return place

    def _ours(self, path: Path, groups: int) -> bool:
        """Say whether we wrote that file: a row group an episode, and our types."""
        with pq.ParquetFile(path) as file:
            return file.num_row_groups == groups and file.schema_arrow == self._rows

    def _next(self, tail: _Tail, path_of: Callable[[Path, Place], Path]) -> tuple[Place, int]:
        """Return where the next batch goes and how many episodes of that file to keep."""
        if tail.place is None:
            return self._after(None), 0
        full = tail.episodes >= OPEN_EPISODES
        if full or path_of(self._root, tail.place).stat().st_size >= OPEN_BYTES:
            return self._after(tail.place), 0
        return tail.place, tail.episodes

    def _after(self, place: Place | None) -> Place:
        return after(place, self._chunks_size)

    def _place_video(self, camera: str, source: Path) -> Place:
        place = self._after(self._videos.get(camera))
        target = video_file(self._root, camera, place)
        target.parent.mkdir(parents=True, exist_ok=True)
        move_durably(source, target)
        self._videos[camera] = place
        return place

    def _flush(self) -> None:
        folders = set()
        for tail, path_of in ((self._data, data_file), (self._meta, episodes_file)):
            if tail.place is not None:
                folders.add(path_of(self._root, tail.place).parent)
        for camera, place in self._videos.items():
            folders.add(video_file(self._root, camera, place).parent)
        above = {parent for folder in folders for parent in folder.parents}
        inside = {folder for folder in above if self._root in (folder, *folder.parents)}
        for folder in folders | inside:
            sync_folder(folder)
