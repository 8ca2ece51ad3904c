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
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from qt_ros.contract import Contract
from qt_ros.dataset.catalog import EpisodeMeta
from qt_ros.dataset.files import (
    link_or_copy,
    locked,
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
    check_features,
    check_name,
    check_storable,
    new_info,
    read_contract,
    read_info,
    video_file,
    video_key,
    write_info,
)
from qt_ros.dataset.packing import OPEN_EPISODES, Packer, Staged, StagedVideo
from qt_ros.dataset.reader import Dataset
from qt_ros.dataset.recovery import read_stats, recover
from qt_ros.dataset.relabel import follow_labels
from qt_ros.dataset.stats import Stats, row_stats, to_json, together
from qt_ros.dataset.swap import settle
from qt_ros.dataset.tables import (
    digest,
    episode_rows,
    read_tasks,
    row_schema,
    stats_columns,
    to_table,
    write_tasks,
)
from qt_ros.dataset.video import EncodedEpisode, encode_videos
from qt_ros.episode import Episode
from qt_ros.errors import DatasetError

BATCH = 25  # episodes written by one commit
BATCH_ROWS = 20_000  # a batch of long episodes is written earlier, so that memory stays bounded
# What an episode row says in the words of the episode itself.
DESCRIPTION = (
    *('episode_id', 'outcome', 'source', 'policy_id'),
    *('bag_uri', 'start_stamp_ns', 'fingerprint'),
)


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
        check_name(self.path)
        self.contract = contract
        self._batch = batch
        self._row_schema = row_schema(contract)
        self._cameras = [camera.name for camera in contract.cameras]
        self._staged: list[Staged] = []
        self._folders = 0
        self._broken = False
        with ExitStack() as stack, plain_errors(self.path):
            self._prepare_folder()
            stack.enter_context(locked(self.path / LOCK, str(self.path)))
            self._open()
            self._lock = stack.pop_all()

    def _prepare_folder(self) -> None:
        settle(self.path)
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
            for folder in (self.path / 'meta', self.path, self.path.resolve().parent):
                sync_folder(folder)
        self._info = read_info(self.path)
        stored = read_contract(self.path)
        if stored.hash != self.contract.hash:
            raise DatasetError(
                f'{self.path} was made with contract {stored.name} ({stored.hash[:12]}), not with'
                f' {self.contract.name} ({self.contract.hash[:12]}): their rows do not mix. Give'
                ' another --out, or the contract in its meta/contract.yaml'
            )
        check_features(self.path, self._info, self.contract)
        catalog = recover(self.path, self.contract, self._info)
        self._info = follow_labels(self.path, self.contract, self._info)
        self._stats = read_stats(self.path, self._info)
        self._tasks = read_tasks(self.path, self._info['total_tasks'])
        self._known = {(episode.bag_uri, episode.episode_id) for episode in catalog}
        self._packer = Packer(self.path, self.contract, self._info, catalog)
        # A folder of its own: a worker that outlives a killed writer must not meet the next one's.
        (self.path / STAGING).mkdir(exist_ok=True)
        self._staging = Path(tempfile.mkdtemp(dir=self.path / STAGING))

    def __len__(self) -> int:
        """Return how many episodes there are, staged ones included."""
        return self._info['total_episodes'] + len(self._staged)

    def has(self, bag_uri: str, episode_id: str) -> bool:
        """Say whether this episode of this recording is there already, or staged."""
        return (bag_uri, episode_id) in self._known

    def staging_folder(self) -> Path:
        """Return a new folder for `encode_videos`, on the file system of the dataset."""
        self._folders += 1
        return self._staging / f'{self._folders:06d}'

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
        first = self._total_rows()
        index, task = len(self), self._task_index(episode.instruction)
        columns = episode_rows(episode, self.contract.rate_hz, index, first, task)
        images = {video_key(camera): video.stats for camera, video in encoded.items()}
        name = digest(columns, {camera: video.sha256 for camera, video in encoded.items()})
        videos = {camera: StagedVideo(video.path) for camera, video in encoded.items()}
        return self._stage(episode, columns, name, images, videos)

    def adopt(self, dataset: Dataset, index: int) -> int:
        """Add episode `index` of another dataset as it is there, and return its index here.

        Nothing is encoded anew: the videos are linked (copied where the file system cannot). Its
        outcome is the newest one. Raises `DatasetError` as `append` does.
        """
        episode = dataset.episodes[index]
        problems = []
        if dataset.contract.hash != self.contract.hash:
            problems.append(f'{dataset.path} was made with another contract than {self.path}')
        problems += self._refusals(episode.bag_uri, episode.episode_id)
        if problems:
            raise DatasetError(problems)
        columns = dataset.rows(index)
        length = episode.length
        columns['episode_index'] = np.full(length, len(self), np.int64)
        columns['index'] = np.arange(length, dtype=np.int64) + self._total_rows()
        task = self._task_index(episode.instruction)
        columns['task_index'] = np.full(length, task, np.int64)
        folder = self.staging_folder()
        videos = {}
        with plain_errors(self.path):
            for camera, (place, start_s) in episode.videos.items():
                linked = folder / f'{camera}.mp4'
                link_or_copy(video_file(dataset.path, camera, place), linked)
                videos[camera] = StagedVideo(linked, start_s)
        return self._stage(episode, columns, episode.digest, dataset.image_stats(index), videos)

    def _stage(
        self,
        episode: Episode | EpisodeMeta,
        columns: Mapping[str, NDArray],
        digest: str,
        images: Stats,
        videos: Mapping[str, StagedVideo],
    ) -> int:
        """Keep a whole episode for the next commit; return its index."""
        rows = row_stats({name: columns[name] for name in self._row_schema.names})
        stats = {**rows, **images}
        index, first, length = len(self), self._total_rows(), len(columns['index'])
        row = {
            **{name: getattr(episode, name) for name in DESCRIPTION},
            'tasks': [episode.instruction],
            'digest': digest,
            'episode_index': index,
            'length': length,
            'dataset_from_index': first,
            'dataset_to_index': first + length,
            'contract_hash': self.contract.hash,
            'success': episode.outcome == 'success',
            **stats_columns(stats),
        }
        table = to_table(columns, self._row_schema)
        self._staged.append(Staged(table, row, stats, videos))
        self._known.add((episode.bag_uri, episode.episode_id))
        if len(self._staged) >= self._batch or self._staged_rows() >= BATCH_ROWS:
            self.commit()
        return index

    def _total_rows(self) -> int:
        return self._info['total_frames'] + self._staged_rows()

    def _staged_rows(self) -> int:
        return sum(staged.table.num_rows for staged in self._staged)

    def _refusals(self, bag_uri: str, episode_id: str) -> list[str]:
        problems = []
        if self._broken:
            problems.append(f'{self.path} could not be written before; open it anew')
        if self.has(bag_uri, episode_id):
            problems.append(f'episode {episode_id} of {bag_uri} is in {self.path} already')
        return problems

    def _check(self, episode: Episode) -> None:
        who = f'episode {episode.episode_id}'
        problems = [
            *episode.problems(),
            *self._refusals(episode.bag_uri, episode.episode_id),
        ]
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
            rows = self._packer.pack(self._staged)
            if len(self._tasks) != self._info['total_tasks']:
                write_tasks(self.path, self._tasks)
            self._packer.list(rows)
            self._stats = together([self._stats, *(staged.stats for staged in self._staged)])
            write_json(self.path / STATS, to_json(self._stats))
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
        self._staged.clear()
        self._broken = False

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
