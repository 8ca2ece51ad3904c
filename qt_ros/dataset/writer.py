"""Append episodes to a dataset so that a crash at any moment costs at most the last batch.

    with DatasetWriter('pushing', contract) as writer:
        if not writer.has(bag, episode.episode_id):
            writer.append(episode)

`append` encodes the videos into a staging folder and keeps the rows; `commit` (every `batch`
episodes, and at the end) writes data, videos, meta/episodes, statistics and, last of all,
info.json. Every file appears by rename, so a reader never sees a part of one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from qt_ros.contract import Contract
from qt_ros.dataset.catalog import EpisodeMeta, read_episode_table
from qt_ros.dataset.files import (
    locked,
    move_durably,
    plain_errors,
    sync_folder,
    write_json,
    write_text,
)
from qt_ros.dataset.layout import (
    CONTRACT,
    INFO,
    LOCK,
    STAGING,
    STATS,
    Place,
    after,
    check_storable,
    data_file,
    episodes_file,
    new_info,
    read_contract,
    read_info,
    video_file,
    video_key,
    write_info,
)
from qt_ros.dataset.recovery import read_stats, recover
from qt_ros.dataset.relabel import follow_labels
from qt_ros.dataset.stats import Stats, row_stats, to_json, together
from qt_ros.dataset.tables import (
    digest,
    episode_rows,
    episode_schema,
    read_row_groups,
    read_tasks,
    row_schema,
    stats_columns,
    to_table,
    write_row_groups,
    write_tasks,
)
from qt_ros.dataset.video import EncodedEpisode, encode_videos
from qt_ros.episode import Episode
from qt_ros.errors import DatasetError

BATCH = 25  # episodes written by one commit
BATCH_ROWS = 20_000  # a batch of long episodes is written earlier, so that memory stays bounded
OPEN_EPISODES = 50  # a file with fewer gets the next batch; so none has more than 49 + a batch
OPEN_BYTES = 64 << 20  # a larger file gets no more, however few its episodes


@dataclass(frozen=True)
class _Staged:
    table: pa.Table
    row: dict[str, Any]  # of meta/episodes, without the places that commit decides
    stats: Stats
    videos: EncodedEpisode


@dataclass
class _Tail:
    """The last file of a kind, which may get more episodes."""

    place: Place | None = None
    episodes: int = 0

    def next(self, root: Path, path_of: Callable[[Path, Place], Path]) -> tuple[Place, int]:
        """Return where the next batch goes and how many episodes of that file to keep."""
        if self.place is None or self.episodes >= OPEN_EPISODES:
            return after(self.place), 0
        if path_of(root, self.place).stat().st_size >= OPEN_BYTES:
            return after(self.place), 0
        return self.place, self.episodes


class DatasetWriter:
    """The one writer of a dataset; a context manager.

    Makes the dataset if `path` does not exist or is empty. Raises `DatasetError` if it was made
    with another contract, if another process is writing it, or if `path` is something else.
    """

    def __init__(self, path: str | Path, contract: Contract, *, batch: int = BATCH) -> None:
        check_storable(contract)
        if not 1 <= batch <= OPEN_EPISODES:
            raise DatasetError(f'batch is {batch}; allowed: 1 to {OPEN_EPISODES} episodes')
        self.path = Path(path)
        self.contract = contract
        self._batch = batch
        self._row_schema = row_schema(contract)
        self._episode_schema = episode_schema(contract)
        self._cameras = [camera.name for camera in contract.cameras]
        self._staged: list[_Staged] = []
        self._folders = 0
        self._broken = False
        with ExitStack() as stack, plain_errors(self.path):
            self._prepare_folder()
            stack.enter_context(locked(self.path / LOCK, str(self.path)))
            self._open()
            self._lock = stack.pop_all()

    def _prepare_folder(self) -> None:
        if self.path.is_dir():
            ours = {'meta', 'data', 'videos', STAGING, LOCK}
            foreign = {entry.name for entry in self.path.iterdir()} - ours
            if foreign and not (self.path / INFO).exists():
                raise DatasetError(
                    f'{self.path} exists and is not a dataset (it holds'
                    f' {", ".join(sorted(foreign)[:3])}); give an empty or a new folder'
                )
        self.path.mkdir(parents=True, exist_ok=True)

    def _open(self) -> None:
        if not (self.path / INFO).exists():
            write_text(self.path / CONTRACT, self.contract.to_yaml())
            write_info(self.path, new_info(self.contract))
        self._info = read_info(self.path)
        stored = read_contract(self.path)
        if stored.hash != self.contract.hash:
            raise DatasetError(
                f'{self.path} was made with contract {stored.name} ({stored.hash[:12]}), not with'
                f' {self.contract.name} ({self.contract.hash[:12]}): their rows do not mix. Give'
                ' another --out, or the contract in its meta/contract.yaml'
            )
        catalog = recover(self.path, self.contract, self._info)
        follow_labels(self.path, self.contract, self._info)
        self._stats = read_stats(self.path, self._info)
        self._tasks = read_tasks(self.path, self._info['total_tasks'])
        self._known = {(episode.bag_uri, episode.episode_id) for episode in catalog}
        self._data, self._meta, self._videos = self._tails(catalog)

    def _tails(self, catalog: Sequence[EpisodeMeta]) -> tuple[_Tail, _Tail, dict[str, Place]]:
        if not catalog:
            return _Tail(), _Tail(), {}
        last = catalog[-1]
        data = _Tail(last.data, last.row_group + 1)
        meta = _Tail(last.meta, sum(1 for episode in catalog if episode.meta == last.meta))
        return data, meta, {camera: last.videos[camera][0] for camera in self._cameras}

    def __len__(self) -> int:
        """Return how many episodes there are, staged ones included."""
        return self._info['total_episodes'] + len(self._staged)

    def has(self, bag_uri: str, episode_id: str) -> bool:
        """Say whether this episode of this recording is there already, or staged."""
        return (bag_uri, episode_id) in self._known

    def staging_folder(self) -> Path:
        """Return a new folder for `encode_videos`, on the file system of the dataset."""
        self._folders += 1
        return self.path / STAGING / f'{self._folders:06d}'

    def append(self, episode: Episode, encoded: EncodedEpisode | None = None) -> int:
        """Add one episode and return its index; it is safe on disk after the next `commit`.

        `encoded` is what `encode_videos` made of it in a `staging_folder` of this writer; if None,
        that is done here. Raises `DatasetError` and adds nothing if rows, frames or streams do not
        fit the contract, or if the episode is there already.
        """
        self._check(episode)
        with plain_errors(self.path):
            if encoded is None:
                encoded = encode_videos(episode, self.staging_folder(), self.contract)
        self._check_videos(episode, encoded)
        index = len(self)
        task = self._task_index(episode.instruction)
        first = self._info['total_frames'] + sum(s.table.num_rows for s in self._staged)
        columns = episode_rows(episode, self.contract.rate_hz, index, first, task)
        stats = {
            **row_stats({name: columns[name] for name in self._row_schema.names}),
            **{video_key(camera): video.stats for camera, video in encoded.items()},
        }
        row = {
            'episode_index': index,
            'tasks': [episode.instruction],
            'length': len(episode),
            'dataset_from_index': first,
            'dataset_to_index': first + len(episode),
            'episode_id': episode.episode_id,
            'outcome': episode.outcome,
            'source': episode.source,
            'policy_id': episode.policy_id,
            'bag_uri': episode.bag_uri,
            'contract_hash': episode.contract_hash,
            'success': episode.outcome == 'success',
            'start_stamp_ns': episode.start_stamp_ns,
            'digest': digest(columns, {name: video.sha256 for name, video in encoded.items()}),
            **stats_columns(stats),
        }
        table = to_table(columns, self._row_schema)
        self._staged.append(_Staged(table, row, stats, encoded))
        self._known.add((episode.bag_uri, episode.episode_id))
        rows = sum(staged.table.num_rows for staged in self._staged)
        if len(self._staged) >= self._batch or rows >= BATCH_ROWS:
            self.commit()
        return index

    def _check(self, episode: Episode) -> None:
        who = f'episode {episode.episode_id}'
        problems = episode.problems()
        if self._broken:
            problems.append(f'{self.path} could not be written before; open it anew')
        if self.has(episode.bag_uri, episode.episode_id):
            problems.append(f'{who} of {episode.bag_uri} is in {self.path} already')
        if episode.contract_hash != self.contract.hash:
            problems.append(f'{who} was made with another contract ({episode.contract_hash[:12]})')
        for name, found, expected in (
            ('state entries', episode.state.shape[-1], len(self.contract.state_names)),
            ('action dimensions', episode.action.shape[-1], len(self.contract.dims)),
            ('streams', sorted(episode.stamps_ns), sorted(self.contract.streams)),
            ('cameras', sorted(episode.images), sorted(self._cameras)),
        ):
            if found != expected:
                problems.append(f'{who} has {name} {found}; the contract says {expected}')
        if problems:
            raise DatasetError(problems)

    def _check_videos(self, episode: Episode, encoded: EncodedEpisode) -> None:
        problems = [
            f'episode {episode.episode_id}: camera {camera} has'
            f' {encoded[camera].frames if camera in encoded else "no"} frames for'
            f' {len(episode)} rows'
            for camera in self._cameras
            if camera not in encoded or encoded[camera].frames != len(episode)
        ]
        if problems:
            raise DatasetError(problems)

    def _task_index(self, instruction: str) -> int:
        if instruction not in self._tasks:
            self._tasks.append(instruction)
        return self._tasks.index(instruction)

    def commit(self) -> None:
        """Put all staged episodes on disk; afterwards they survive a crash.

        Raises `DatasetError` if that fails (disk full, read-only): the dataset then still opens
        with what was committed before, and this writer takes no more.
        """
        if not self._staged or self._broken:
            return
        self._broken = True  # until all of it is done
        with plain_errors(self.path):
            data, data_tail = self._write_rows()
            videos = [self._place_videos(staged) for staged in self._staged]
            if len(self._tasks) != self._info['total_tasks']:
                write_tasks(self.path, self._tasks)
            meta, meta_tail = self._write_episode_rows(data, videos)
            self._stats = together(
                [*([self._stats] if self._stats else []), *(s.stats for s in self._staged)]
            )
            write_json(self.path / STATS, to_json(self._stats))
            self._sync(data, meta)
            total = len(self)
            self._info = {
                **self._info,
                'total_episodes': total,
                'total_frames': self._staged[-1].row['dataset_to_index'],
                'total_tasks': len(self._tasks),
                'splits': {'train': f'0:{total}'},
            }
            write_info(self.path, self._info)
            sync_folder(self.path / 'meta')
        self._data, self._meta = data_tail, meta_tail
        self._staged.clear()
        self._broken = False

    def _write_rows(self) -> tuple[Place, _Tail]:
        place, keep = self._data.next(self.path, data_file)
        groups = read_row_groups(data_file(self.path, place), 0, keep) if keep else []
        if groups and groups[0].schema != self._row_schema:
            place, groups = after(place), []  # another program wrote that file: leave it alone
        tables = [*groups, *(staged.table for staged in self._staged)]
        write_row_groups(data_file(self.path, place), self._row_schema, tables)
        return place, _Tail(place, len(tables))

    def _place_videos(self, staged: _Staged) -> dict[str, Place]:
        for camera, video in staged.videos.items():
            place = after(self._videos.get(camera))
            target = video_file(self.path, camera, place)
            target.parent.mkdir(parents=True, exist_ok=True)
            move_durably(video.path, target)
            self._videos[camera] = place
        for folder in {video.path.parent for video in staged.videos.values()}:
            with suppress(OSError):  # the caller's own files may lie there too
                folder.rmdir()
        return {camera: self._videos[camera] for camera in staged.videos}

    def _write_episode_rows(
        self, data: Place, videos: list[dict[str, Place]]
    ) -> tuple[Place, _Tail]:
        place, keep = self._meta.next(self.path, episodes_file)
        tables = []
        if keep:
            tables.append(read_episode_table(episodes_file(self.path, place)).slice(0, keep))
            if tables[0].schema != self._episode_schema:
                place, tables = after(place), []
        rows = []
        for staged, places in zip(self._staged, videos, strict=True):
            row = {**staged.row, 'data/chunk_index': data[0], 'data/file_index': data[1]}
            row['meta/episodes/chunk_index'], row['meta/episodes/file_index'] = place
            for camera, video in places.items():
                prefix = f'videos/{video_key(camera)}'
                row[f'{prefix}/chunk_index'], row[f'{prefix}/file_index'] = video
                row[f'{prefix}/from_timestamp'] = 0.0
                row[f'{prefix}/to_timestamp'] = row['length'] / self.contract.rate_hz
            rows.append(row)
        tables.append(pa.Table.from_pylist(rows, schema=self._episode_schema))
        table = pa.concat_tables(tables).combine_chunks()
        write_row_groups(episodes_file(self.path, place), self._episode_schema, [table])
        return place, _Tail(place, table.num_rows)

    def _sync(self, data: Place, meta: Place) -> None:
        folders = {data_file(self.path, data).parent, episodes_file(self.path, meta).parent}
        for camera, place in self._videos.items():
            folders.add(video_file(self.path, camera, place).parent)
        for folder in folders:
            sync_folder(folder)

    def close(self) -> None:
        """Commit what is staged and let go of the dataset."""
        try:
            self.commit()
            shutil.rmtree(self.path / STAGING, ignore_errors=True)
        finally:
            self._lock.close()

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Staged episodes are whole, whatever went wrong with the one after them: keep them.
        self.close()
