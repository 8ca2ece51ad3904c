"""Give episodes another outcome, long after they were recorded.

A label goes to the journal first; then the columns that depend on it follow: `next.*` in data/,
`outcome` and `success` in meta/episodes/, the statistics, and the training cache if there is one.
Actions, states and videos are not touched. A crash on the way leaves the label on record and the
columns of some episodes behind it; the next writer or relabel finishes the work.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qt_ros.contract import Contract
from qt_ros.dataset.cache import relabel_cache
from qt_ros.dataset.catalog import EpisodeMeta, read_catalog, read_episode_table
from qt_ros.dataset.files import Busy, locked, plain_errors
from qt_ros.dataset.labels import Label, add_labels
from qt_ros.dataset.layout import LOCK, data_file, episodes_file, read_contract, read_info
from qt_ros.dataset.recovery import rebuild_stats, recover
from qt_ros.dataset.stats import row_stats
from qt_ros.dataset.tables import (
    LABEL_COLUMNS,
    iter_row_groups,
    stats_columns,
    to_table,
    write_row_groups,
)
from qt_ros.episode import check_outcome, rewards
from qt_ros.errors import DatasetError, QtRosError


def relabel(path: str | Path, outcomes: Mapping[int, str], by: str) -> int:
    """Set {episode index: outcome}, say who did it, and return how many outcomes changed.

    Labels that change nothing are not recorded. Raises `DatasetError` for any episode or outcome
    that does not exist (then nothing is changed), or if the dataset is being written.
    """
    root = Path(path)
    info = read_info(root)
    contract = read_contract(root)
    problems = []
    for index, outcome in outcomes.items():
        if not 0 <= index < info['total_episodes']:
            problems.append(
                f'episode {index} does not exist; allowed: 0 to {info["total_episodes"] - 1}'
            )
        try:
            check_outcome(outcome)
        except QtRosError as error:
            problems.append(f'episode {index}: {error}')
    if problems:
        raise DatasetError(problems)
    with locked(root / LOCK, str(root)):
        info = read_info(root)
        catalog = recover(root, contract, info)
        now_ns = time.time_ns()
        labels = [
            Label(index, e.episode_id, e.bag_uri, e.outcome, outcomes[index], by, now_ns)
            for index, e in ((index, catalog[index]) for index in sorted(outcomes))
            if e.outcome != outcomes[index]
        ]
        with plain_errors(root):
            if labels:
                add_labels(root, labels)
            follow_labels(root, contract, info)
    with suppress(Busy):  # whoever builds the cache now, the next build follows the labels
        relabel_cache(root)
    return len(labels)


def follow_labels(root: Path, contract: Contract, info: dict[str, Any]) -> None:
    """Bring the columns into line with the journal; needs the writer's lock."""
    catalog = read_catalog(root, info['total_episodes'], contract)
    behind = [episode for episode in catalog if episode.outcome != episode.stored_outcome]
    if not behind:
        return
    for place in sorted({episode.data for episode in behind}):
        _rewrite_rows(data_file(root, place), [e for e in behind if e.data == place])
    for place in sorted({episode.meta for episode in behind}):
        _rewrite_episode_rows(episodes_file(root, place), [e for e in behind if e.meta == place])
    rebuild_stats(root, info['total_episodes'])


def _rewrite_rows(path: Path, episodes: list[EpisodeMeta]) -> None:
    schema = pq.read_schema(path)
    by_index = {episode.index: episode for episode in episodes}
    write_row_groups(path, schema, (_relabelled(t, by_index) for t in iter_row_groups(path)))


def _relabelled(table: pa.Table, episodes: Mapping[int, EpisodeMeta]) -> pa.Table:
    """Return a row group with the labels of its episodes; most hold one episode, whole."""
    indices = table.column('episode_index').to_numpy()
    frames = table.column('frame_index').to_numpy()
    columns = {
        name: table.column(name).to_numpy(zero_copy_only=False).copy() for name in LABEL_COLUMNS
    }
    for index in np.unique(indices).tolist():
        if index in episodes:
            rows = indices == index
            labels = rewards(episodes[index].outcome, episodes[index].length)
            for name in LABEL_COLUMNS:
                columns[name][rows] = labels[name][frames[rows]]
    labels_schema = pa.schema([table.schema.field(name) for name in LABEL_COLUMNS])
    labelled = to_table(columns, labels_schema)
    for name in LABEL_COLUMNS:
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(name), labelled.column(name))
    return table


def _rewrite_episode_rows(path: Path, episodes: list[EpisodeMeta]) -> None:
    table = read_episode_table(path)
    rows = table.to_pylist()
    by_index = {episode.index: episode for episode in episodes}
    for row in rows:
        episode = by_index.get(row['episode_index'])
        if episode is not None:
            row['outcome'] = episode.outcome
            row['success'] = episode.success
            row.update(stats_columns(row_stats(rewards(episode.outcome, episode.length))))
    write_row_groups(path, table.schema, [pa.Table.from_pylist(rows, schema=table.schema)])
