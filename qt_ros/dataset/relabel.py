"""Give episodes another outcome or instruction, long after they were recorded.

A label goes to the journal first; then what depends on it follows: meta/tasks.parquet, `next.*`
and `task_index` in data/, the statistics, and last `outcome`, `success` and `tasks` in
meta/episodes/, which tell how far it got; then the training cache if there is one. Actions, states
and videos are not touched. A crash on the way leaves the label on record and some episodes behind
it; the next writer or relabel finishes the work.
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
from numpy.typing import NDArray

from qt_ros.contract import Contract
from qt_ros.dataset.cache import relabel_cache
from qt_ros.dataset.catalog import (
    EpisodeMeta,
    episode_files,
    read_catalog,
    read_episode_table,
)
from qt_ros.dataset.files import Busy, locked, plain_errors, write_json
from qt_ros.dataset.labels import Label, add_labels
from qt_ros.dataset.layout import (
    CACHE,
    LOCK,
    STATS,
    data_file,
    episodes_file,
    read_contract,
    read_info,
    write_info,
)
from qt_ros.dataset.recovery import read_stats, recover
from qt_ros.dataset.stats import NAMES, Stats, row_stats, to_json, together
from qt_ros.dataset.tables import (
    LABEL_COLUMNS,
    iter_row_groups,
    read_tasks,
    stats_columns,
    stats_of_row,
    to_table,
    write_row_groups,
    write_tasks,
)
from qt_ros.episode import check_outcome, rewards
from qt_ros.errors import DatasetError, QtRosError

TASK = 'task_index'
FOLLOWING = (*LABEL_COLUMNS, TASK)  # columns that follow labels


def relabel(
    path: str | Path,
    outcomes: Mapping[int, str],
    by: str,
    instructions: Mapping[int, str] | None = None,
) -> int:
    """Set {episode index: outcome} and {episode index: instruction}; return how many changed.

    `by` is who says so. Labels that change nothing are not recorded. Raises `DatasetError` for any
    episode or outcome that does not exist and any instruction without words (then nothing is
    changed), or if the dataset is being written.
    """
    root = Path(path)
    instructions = instructions or {}
    wanted = sorted({*outcomes, *instructions})
    info = read_info(root)
    contract = read_contract(root)
    problems = []
    for index in wanted:
        if not 0 <= index < info['total_episodes']:
            problems.append(
                f'episode {index} does not exist; allowed: 0 to {info["total_episodes"] - 1}'
            )
    for index, outcome in outcomes.items():
        try:
            check_outcome(outcome)
        except QtRosError as error:
            problems.append(f'episode {index}: {error}')
    problems += [
        f'episode {index}: instruction {text!r} says nothing; give it in words'
        for index, text in instructions.items()
        if not text.strip()
    ]
    if problems:
        raise DatasetError(problems)
    with plain_errors(root), locked(root / LOCK, str(root)):
        info = read_info(root)
        catalog = recover(root, contract, info)
        # What a relabel that died left half done: its rows may say more than its episodes, and a
        # label that goes back to what these say would find nothing behind.
        info = follow_labels(root, contract, info)
        now_ns = time.time_ns()
        labels = [
            label
            for index in wanted
            if (label := _label(catalog[index], outcomes, instructions, by, now_ns)) is not None
        ]
        if labels:
            add_labels(root, labels)
        follow_labels(root, contract, info)
    # Whoever builds the cache now, the next build follows the labels.
    with suppress(Busy), plain_errors(root / CACHE):
        relabel_cache(root)
    return len(labels)


def _label(
    episode: EpisodeMeta,
    outcomes: Mapping[int, str],
    instructions: Mapping[int, str],
    by: str,
    now_ns: int,
) -> Label | None:
    """Return the line for the journal, None if it would change nothing."""
    outcome = outcomes.get(episode.index, episode.outcome)
    text = instructions.get(episode.index, episode.instruction)
    if (outcome, text) == (episode.outcome, episode.instruction):
        return None
    said = (episode.instruction, text) if text != episode.instruction else ('', '')
    names = (episode.index, episode.episode_id, episode.bag_uri)
    return Label(*names, episode.outcome, outcome, by, now_ns, *said)


def follow_labels(root: Path, contract: Contract, info: dict[str, Any]) -> dict[str, Any]:
    """Bring the columns into line with the journal and return the new info; needs the lock."""
    catalog = read_catalog(root, info['total_episodes'], contract)
    behind = {episode.index: episode for episode in catalog if episode.behind}
    if not behind:
        return info
    tasks = read_tasks(root, info['total_tasks'])
    known = list(dict.fromkeys([*tasks, *(each.instruction for each in behind.values())]))
    if len(known) > len(tasks):
        write_tasks(root, known)
        info = {**info, 'total_tasks': len(known)}
        write_info(root, info)  # before any row points there
    numbers = {text: number for number, text in enumerate(known)}
    for place in sorted({episode.data for episode in behind.values()}):
        _rewrite_rows(data_file(root, place), behind, numbers)
    stats = {index: row_stats(_columns_of(episode, numbers)) for index, episode in behind.items()}
    _rewrite_stats(root, info, stats)
    for place in sorted({episode.meta for episode in behind.values()}):
        _rewrite_episode_rows(episodes_file(root, place), behind, stats)
    return info


def _columns_of(episode: EpisodeMeta, numbers: Mapping[str, int]) -> dict[str, NDArray]:
    """Return the columns that depend on labels, (T,) each."""
    task = np.full(episode.length, numbers[episode.instruction], dtype=np.int64)
    return {**rewards(episode.outcome, episode.length), TASK: task}


def _rewrite_rows(
    path: Path, behind: Mapping[int, EpisodeMeta], numbers: Mapping[str, int]
) -> None:
    schema = pq.read_schema(path)
    tables = (_relabelled(table, behind, numbers) for table in iter_row_groups(path))
    write_row_groups(path, schema, tables)


def _relabelled(
    table: pa.Table, behind: Mapping[int, EpisodeMeta], numbers: Mapping[str, int]
) -> pa.Table:
    """Return a row group with the labels of its episodes; most hold one episode, whole."""
    indices = table.column('episode_index').to_numpy()
    found = [index for index in np.unique(indices).tolist() if index in behind]
    if not found:
        return table
    frames = table.column('frame_index').to_numpy()
    columns = {
        name: table.column(name).to_numpy(zero_copy_only=False).copy() for name in FOLLOWING
    }
    for index in found:
        rows = indices == index
        for name, values in _columns_of(behind[index], numbers).items():
            columns[name][rows] = values[frames[rows]]
    labelled = to_table(columns, pa.schema([table.schema.field(name) for name in FOLLOWING]))
    for name in FOLLOWING:
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(name), labelled.column(name))
    return table


def _rewrite_stats(root: Path, info: dict[str, Any], changed: Mapping[int, Stats]) -> None:
    """Count the columns that follow labels again in stats.json; the others stay as they are.

    Before the episode rows say that they have followed: a crash between costs nothing but doing
    it again.
    """
    stats = read_stats(root, info)
    columns = [f'stats/{feature}/{name}' for feature in FOLLOWING for name in NAMES]
    parts = []
    for path in episode_files(root):
        for row in read_episode_table(path, ['episode_index', *columns]).to_pylist():
            if row['episode_index'] < info['total_episodes']:
                parts.append(changed.get(row['episode_index']) or stats_of_row(row))
    stats.update(together(parts))
    write_json(root / STATS, to_json(stats))


def _rewrite_episode_rows(
    path: Path, behind: Mapping[int, EpisodeMeta], stats: Mapping[int, Stats]
) -> None:
    """Replace the cells of the episodes that are behind; the other columns are not even read."""
    table = read_episode_table(path)
    indices = table.column('episode_index').to_pylist()
    cells = {
        row: {
            'outcome': behind[index].outcome,
            'success': behind[index].success,
            'tasks': [behind[index].instruction],
            **stats_columns(stats[index]),
        }
        for row, index in enumerate(indices)
        if index in behind
    }
    for name in next(iter(cells.values())):
        at = table.schema.get_field_index(name)
        column = table.column(name).to_pylist()
        for row, values in cells.items():
            column[row] = values[name]
        field = table.schema.field(name)
        table = table.set_column(at, field, pa.array(column, field.type))
    write_row_groups(path, table.schema, [table])
