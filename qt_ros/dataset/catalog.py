"""What a dataset says about its episodes, without touching rows or frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qt_ros.contract import Contract
from qt_ros.dataset.foreign import complete
from qt_ros.dataset.labels import newest_instructions, newest_outcomes
from qt_ros.dataset.layout import EPISODES, Place, placed_files, video_key
from qt_ros.dataset.tables import PARQUET_ERRORS, unreadable
from qt_ros.errors import DatasetError

LEROBOT = ('episode_index', 'tasks', 'length', 'dataset_from_index')
PLACES = tuple(
    f'{kind}/{name}' for kind in ('data', EPISODES) for name in ('chunk_index', 'file_index')
)
OURS = (
    *('digest', 'fingerprint', 'start_stamp_ns'),
    *('episode_id', 'outcome', 'source', 'policy_id', 'bag_uri', 'contract_hash'),
)


@dataclass(frozen=True)
class EpisodeMeta:
    """One row of `meta/episodes/`, with what the newest labels say."""

    index: int
    episode_id: str
    instruction: str
    outcome: str  # success | failure | timeout | aborted | unknown
    stored_outcome: str  # what the columns say; another than `outcome` only after a crash
    stored_instruction: str  # likewise
    source: str  # teleop | policy | mixed
    policy_id: str
    bag_uri: str
    contract_hash: str
    start_stamp_ns: int
    length: int  # rows
    from_index: int  # number of its first row in the whole dataset
    digest: str  # sha256 over rows and videos
    fingerprint: str  # of the recording, wherever that lies; '' where unknown
    data: Place
    row_group: int  # in the data file
    meta: Place
    videos: dict[str, tuple[Place, float]]  # camera -> (file, time of its first frame in it [s])

    @property
    def success(self) -> bool:
        return self.outcome == 'success'

    @property
    def behind(self) -> bool:
        """True if a crash kept the columns from following the newest labels."""
        stored = (self.stored_outcome, self.stored_instruction)
        return (self.outcome, self.instruction) != stored


def episode_files(root: Path) -> list[Path]:
    """Return the files of `meta/episodes/`, in order."""
    return list(placed_files(root / EPISODES).values())


def read_episode_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Return a file of `meta/episodes/`; `columns` None: all."""
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(columns=columns)
            table.validate(full=True)  # texts that are none, lengths that do not fit
            return table
    except PARQUET_ERRORS as error:
        raise unreadable(path, error) from error


def read_catalog(root: Path, total: int, contract: Contract) -> list[EpisodeMeta]:
    """Return the first `total` episodes; what lies beyond is what a crash left behind."""
    outcomes, instructions = newest_outcomes(root), newest_instructions(root)
    cameras = [camera.name for camera in contract.cameras]
    found: list[EpisodeMeta] = []
    first_of_file: dict[Place, int] = {}
    for row in _rows(root, contract):
        _check_row(root, row)
        index = row['episode_index']
        if index >= total:
            break
        data = (row['data/chunk_index'], row['data/file_index'])
        first_of_file.setdefault(data, index)
        stored, tasks = row['outcome'], row['tasks']
        found.append(
            EpisodeMeta(
                index=index,
                episode_id=row['episode_id'],
                instruction=instructions.get(index, tasks[0]),
                outcome=outcomes.get(index, stored),
                stored_outcome=stored,
                stored_instruction='' if index in instructions and tasks[1:] else tasks[0],
                source=row['source'],
                policy_id=row['policy_id'],
                bag_uri=row['bag_uri'],
                contract_hash=row['contract_hash'],
                start_stamp_ns=row['start_stamp_ns'],
                length=row['length'],
                from_index=row['dataset_from_index'],
                digest=row['digest'],
                fingerprint=row['fingerprint'] or '',
                data=data,
                row_group=index - first_of_file[data],
                meta=(row['meta/episodes/chunk_index'], row['meta/episodes/file_index']),
                videos={camera: _video_place(row, camera) for camera in cameras},
            )
        )
    if [episode.index for episode in found] != list(range(total)):
        raise DatasetError(
            f'{root}/meta/episodes names {len(found)} episodes in order, info.json counts {total};'
            ' restore the folder or convert again'
        )
    return found


def _check_row(root: Path, row: dict[str, Any]) -> None:
    """Raise `DatasetError` for a row that lacks what every episode has."""
    counts = [row[name] for name in ('episode_index', 'length', 'dataset_from_index', *PLACES)]
    texts = [*(row['tasks'] or [None]), row['episode_id'], row['outcome'], row['digest']]
    whole = all(isinstance(value, int) and value >= 0 for value in counts)
    if not whole or not all(isinstance(value, str) for value in texts):
        raise DatasetError(
            f'{root}/meta/episodes: the row of episode {row["episode_index"]} is damaged; restore'
            ' the folder or convert again'
        )


def _rows(root: Path, contract: Contract) -> Iterator[dict[str, Any]]:
    needed = [*LEROBOT, *PLACES]
    for camera in contract.cameras:
        prefix = f'videos/{video_key(camera.name)}'
        needed += [f'{prefix}/{name}' for name in ('chunk_index', 'file_index', 'from_timestamp')]
    for path in episode_files(root):
        there = _columns(path)
        missing = sorted(set(needed) - there)
        if missing:
            raise DatasetError(
                f'{path} lacks the columns {", ".join(missing)}, so these are no episodes of'
                f' contract {contract.name}; import them into a dataset of their own'
            )
        if there.issuperset(OURS):
            yield from read_episode_table(path, [*needed, *OURS]).to_pylist()
        else:
            rows = read_episode_table(path).to_pylist()
            yield from (complete(row, contract.hash) for row in rows)


def _columns(path: Path) -> set[str]:
    try:
        return set(pq.read_schema(path).names)
    except PARQUET_ERRORS as error:
        raise unreadable(path, error) from error


def _video_place(row: dict[str, Any], camera: str) -> tuple[Place, float]:
    prefix = f'videos/{video_key(camera)}'
    place = (row[f'{prefix}/chunk_index'], row[f'{prefix}/file_index'])
    return place, row[f'{prefix}/from_timestamp']
