"""Clean up what an interrupted writer left, before the next one goes on.

info.json is written last, so whatever goes beyond its totals was never committed: half-written
temporary files, staged and placed videos, rows and episode rows at the end of the last file.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from qt_ros.contract import Contract
from qt_ros.dataset.catalog import EpisodeMeta, episode_files, read_catalog, read_episode_table
from qt_ros.dataset.files import TEMPORARY, write_json
from qt_ros.dataset.layout import (
    STAGING,
    STATS,
    data_file,
    episodes_file,
    video_file,
    video_key,
)
from qt_ros.dataset.stats import Stats, from_json, to_json, together
from qt_ros.dataset.tables import read_row_groups, stats_of_row, write_row_groups


def recover(root: Path, contract: Contract, info: dict[str, Any]) -> list[EpisodeMeta]:
    """Bring all files to the totals of `info` and return its episodes; needs the writer's lock."""
    cameras = [camera.name for camera in contract.cameras]
    shutil.rmtree(root / STAGING, ignore_errors=True)
    for name in ('meta', 'data'):
        for temporary in (root / name).rglob('*' + TEMPORARY):
            temporary.unlink()
    catalog = read_catalog(root, info['total_episodes'], cameras)
    _drop_rows(root, catalog)
    _drop_episode_rows(root, catalog)
    for camera in cameras:
        last = video_file(root, camera, catalog[-1].videos[camera][0]) if catalog else None
        for path in (root / 'videos' / video_key(camera)).glob('chunk-*/file-*.mp4'):
            if last is None or path > last:
                path.unlink()
    return catalog


def _drop_rows(root: Path, catalog: list[EpisodeMeta]) -> None:
    last = data_file(root, catalog[-1].data) if catalog else None
    for path in (root / 'data').glob('chunk-*/file-*.parquet'):
        if last is None or path > last:
            path.unlink()
    if last is not None:
        groups = read_row_groups(last)
        keep = catalog[-1].row_group + 1
        if len(groups) > keep:
            write_row_groups(last, groups[0].schema, groups[:keep])


def _drop_episode_rows(root: Path, catalog: list[EpisodeMeta]) -> None:
    last = episodes_file(root, catalog[-1].meta) if catalog else None
    for path in episode_files(root):
        if last is None or path > last:
            path.unlink()
    if last is not None:
        table = read_episode_table(last)
        keep = sum(1 for episode in catalog if episode.meta == catalog[-1].meta)
        if table.num_rows > keep:
            write_row_groups(last, table.schema, [table.slice(0, keep)])


def read_stats(root: Path, info: dict[str, Any]) -> Stats:
    """Return stats.json if it counts all rows and no more, else what the episodes say."""
    try:
        stats = from_json(json.loads((root / STATS).read_text(encoding='utf-8')))
        if int(stats['index']['count'][0]) == info['total_frames']:
            return stats
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # missing or cut off: the episodes hold all that is needed to make it again
    return rebuild_stats(root, info['total_episodes'])


def rebuild_stats(root: Path, total: int) -> Stats:
    """Return the statistics of the first `total` episodes from their own, and store them."""
    if not total:
        return {}
    parts = []
    for path in episode_files(root):
        rows = read_episode_table(path).to_pylist()
        parts += [stats_of_row(row) for row in rows if row['episode_index'] < total]
    stats = together(parts)
    write_json(root / STATS, to_json(stats))
    return stats
