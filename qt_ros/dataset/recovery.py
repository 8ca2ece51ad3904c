"""Clean up what an interrupted writer left, before the next one goes on.

info.json is written last, so whatever goes beyond its totals was never committed: half-written
temporary files, staged and placed videos, rows and episode rows at the end of the last file.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qt_ros.contract import Contract
from qt_ros.dataset.catalog import EpisodeMeta, episode_files, read_catalog, read_episode_table
from qt_ros.dataset.files import TEMPORARY, write_json
from qt_ros.dataset.foreign import complete
from qt_ros.dataset.layout import (
    STAGING,
    STATS,
    data_file,
    episodes_file,
    placed_files,
    video_key,
)
from qt_ros.dataset.stats import Stats, from_json, to_json, together
from qt_ros.dataset.swap import remove_leftovers
from qt_ros.dataset.tables import (
    PARQUET_ERRORS,
    episode_schema,
    iter_row_groups,
    stats_of_row,
    unreadable,
    write_row_groups,
)


def recover(root: Path, contract: Contract, info: dict[str, Any]) -> list[EpisodeMeta]:
    """Bring all files to the totals of `info` and return its episodes; needs the writer's lock."""
    shutil.rmtree(root / STAGING, ignore_errors=True)
    remove_leftovers(root)
    for name in ('meta', 'data'):
        for temporary in (root / name).rglob('*' + TEMPORARY):
            temporary.unlink()
    _complete_episode_rows(root, contract)
    catalog = read_catalog(root, info['total_episodes'], contract)
    _drop_rows(root, catalog)
    _drop_episode_rows(root, catalog)
    for camera in (camera.name for camera in contract.cameras):
        last = catalog[-1].videos[camera][0] if catalog else None
        for place, path in placed_files(root / 'videos' / video_key(camera)).items():
            if last is None or place > last:
                path.unlink()
    return catalog


def _complete_episode_rows(root: Path, contract: Contract) -> None:
    """Give every file of episode rows all our columns; those that we do not know are kept."""
    ours = episode_schema(contract)
    for path in episode_files(root):
        try:
            theirs = pq.read_schema(path)
        except PARQUET_ERRORS:
            continue  # beyond the totals it goes; else reading the catalog says what is wrong
        if set(ours.names) <= set(theirs.names):
            continue
        extra = [theirs.field(name) for name in theirs.names if name not in ours.names]
        schema = pa.schema([*ours, *extra])
        rows = [complete(row, contract.hash) for row in read_episode_table(path).to_pylist()]
        write_row_groups(path, schema, [pa.Table.from_pylist(rows, schema=schema)])


def _drop_rows(root: Path, catalog: list[EpisodeMeta]) -> None:
    last = catalog[-1].data if catalog else None
    for place, path in placed_files(root / 'data').items():
        if last is None or place > last:
            path.unlink()
    if last is not None:
        _drop_row_groups(data_file(root, last), catalog[-1].index)


def _drop_row_groups(path: Path, last: int) -> None:
    """Cut off the row groups at the end of a file that belong to episodes after `last`."""
    try:
        with pq.ParquetFile(path) as file:
            groups = keep = file.num_row_groups
            while keep > 1:
                indices = file.read_row_group(keep - 1, columns=['episode_index']).column(0)
                if pc.min(indices).as_py() <= last:
                    break
                keep -= 1
            schema = file.schema_arrow
    except PARQUET_ERRORS as error:
        raise unreadable(path, error) from error
    if keep < groups:
        write_row_groups(path, schema, iter_row_groups(path, keep))


def _drop_episode_rows(root: Path, catalog: list[EpisodeMeta]) -> None:
    last = catalog[-1].meta if catalog else None
    for place, path in placed_files(root / 'meta/episodes').items():
        if last is None or place > last:
            path.unlink()
    if last is not None:
        path = episodes_file(root, last)
        table = read_episode_table(path)
        keep = sum(1 for episode in catalog if episode.meta == last)
        if table.num_rows > keep:
            write_row_groups(path, table.schema, [table.slice(0, keep)])


def read_stats(root: Path, info: dict[str, Any]) -> Stats:
    """Return stats.json if it counts all rows and no more, else what the episodes say."""
    try:
        stats = from_json(json.loads((root / STATS).read_text(encoding='utf-8')))
        if int(stats['index']['count'][0]) == info['total_frames'] and _sound(stats, info):
            return stats
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
        pass  # missing or cut off: the episodes hold all that is needed to make it again
    except RecursionError:
        pass  # so deep that it is none
    return rebuild_stats(root, info['total_episodes'])


def _sound(stats: Stats, info: dict[str, Any]) -> bool:
    """Say whether every statistic is numbers in the shape of its feature."""
    for feature, values in stats.items():
        about = info['features'][feature]
        pixels = about['dtype'] in ('video', 'image')
        shape = (about['shape'][-1], 1, 1) if pixels else tuple(about['shape'])
        for name, value in values.items():
            wanted = (1,) if name == 'count' else shape
            if value.dtype.kind not in 'iuf' or value.shape != wanted:
                return False
    return True


def rebuild_stats(root: Path, total: int) -> Stats:
    """Return the statistics of the first `total` episodes from their own, and store them."""
    stats: Stats = {}
    for path in episode_files(root):
        rows = read_episode_table(path).to_pylist()
        try:
            parts = [stats_of_row(row) for row in rows if row['episode_index'] < total]
            stats = together([stats, *parts])
        except (ValueError, LookupError, TypeError) as error:
            raise unreadable(path, error) from error
    if stats:
        write_json(root / STATS, to_json(stats))
    return stats
