"""Episodes as parquet: rows of `data/`, rows of `meta/episodes/`, and `meta/tasks.parquet`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qt_ros.contract import Contract
from qt_ros.dataset.files import write_whole
from qt_ros.dataset.layout import TASKS, row_features, video_key
from qt_ros.dataset.stats import QUANTILES, Stats
from qt_ros.episode import Episode, rewards
from qt_ros.errors import DatasetError

LABEL_COLUMNS = ('next.reward', 'next.done', 'next.truncated', 'next.success')
# What reading a damaged parquet file raises: names that are no text, columns that are not there.
PARQUET_ERRORS = (OSError, pa.ArrowException, ValueError, LookupError, TypeError)
_ARROW = {'float32': pa.float32(), 'bool': pa.bool_(), 'int64': pa.int64()}


def row_schema(contract: Contract) -> pa.Schema:
    """Return the columns of `data/`: scalars for shape (1,), else lists of fixed length."""
    fields = []
    for name, feature in row_features(contract).items():
        kind, (length,) = _ARROW[feature['dtype']], feature['shape']
        fields.append(pa.field(name, kind if length == 1 else pa.list_(kind, length)))
    return pa.schema(fields)


def episode_rows(
    episode: Episode, rate_hz: float, episode_index: int, first_index: int, task_index: int
) -> dict[str, NDArray]:
    """Return the columns of one episode, (T,) or (T, D).

    `timestamp` is frame_index / fps in float32, as LeRobot computes it; the true times stand in
    the `stamp_ns.` columns.
    """
    length = len(episode)
    counted = np.arange(length, dtype=np.int64)
    columns: dict[str, NDArray] = {
        'action': episode.action,
        'action.requested': episode.requested,
        'observation.state': episode.state,
        **rewards(episode.outcome, length),
        'intervention': episode.intervention,
        'timestamp': (counted / rate_hz).astype(np.float32),
        'frame_index': counted,
        'episode_index': np.full(length, episode_index, dtype=np.int64),
        'index': first_index + counted,
        'task_index': np.full(length, task_index, dtype=np.int64),
    }
    for stream, stamps in episode.stamps_ns.items():
        columns[f'stamp_ns.{stream}'] = stamps
        columns[f'valid.{stream}'] = episode.valid[stream]
    return columns


def to_table(columns: Mapping[str, NDArray], schema: pa.Schema) -> pa.Table:
    """Return columns as an Arrow table of `schema`; columns that it lacks are left out."""
    arrays = []
    for field in schema:
        flat = pa.array(np.ascontiguousarray(columns[field.name]).reshape(-1))
        if pa.types.is_fixed_size_list(field.type):
            flat = pa.FixedSizeListArray.from_arrays(flat, field.type.list_size)
        arrays.append(flat.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def from_table(table: pa.Table, widths: Mapping[str, int]) -> dict[str, NDArray]:
    """Return the columns named in `widths`: (T,), or (T, D) where `to_table` got that.

    `widths` gives D for vectors and 0 for scalars.
    """
    columns = {}
    for name, width in widths.items():
        column = table.column(name).combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
        if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
            column = column.flatten()
        values = column.to_numpy(zero_copy_only=False)
        columns[name] = values.reshape(-1, width) if width else values
    return columns


def widths(contract: Contract) -> dict[str, int]:
    """Return {column: D, or 0 for a scalar} of the rows that `from_table` gives back."""
    vectors = ('action', 'action.requested', 'observation.state')
    return {
        name: feature['shape'][0] if name in vectors else 0
        for name, feature in row_features(contract).items()
    }


def digest(columns: Mapping[str, NDArray], videos: Mapping[str, str]) -> str:
    """Return a sha256 (hex) over what never changes: rows without labels and places, and videos.

    `videos` is {camera: sha256 of its file}.
    """
    changing = {*LABEL_COLUMNS, 'episode_index', 'index', 'task_index'}
    found = hashlib.sha256()
    for name in sorted(set(columns) - changing):
        found.update(name.encode() + b'\0')
        found.update(np.ascontiguousarray(columns[name]).data)
    for camera in sorted(videos):
        found.update(f'{camera}\0{videos[camera]}'.encode())
    return found.hexdigest()


def episode_schema(contract: Contract) -> pa.Schema:
    """Return the columns of `meta/episodes/`: LeRobot's, then ours, then the statistics."""
    fields = [
        pa.field('episode_index', pa.int64()),
        pa.field('tasks', pa.list_(pa.string())),
        pa.field('length', pa.int64()),
        pa.field('data/chunk_index', pa.int64()),
        pa.field('data/file_index', pa.int64()),
        pa.field('dataset_from_index', pa.int64()),
        pa.field('dataset_to_index', pa.int64()),
    ]
    for camera in contract.cameras:
        prefix = f'videos/{video_key(camera.name)}'
        fields += [
            pa.field(f'{prefix}/chunk_index', pa.int64()),
            pa.field(f'{prefix}/file_index', pa.int64()),
            pa.field(f'{prefix}/from_timestamp', pa.float64()),
            pa.field(f'{prefix}/to_timestamp', pa.float64()),
        ]
    for name in ('episode_id', 'outcome', 'source', 'policy_id', 'bag_uri', 'contract_hash'):
        fields.append(pa.field(name, pa.string()))
    fields += [
        pa.field('success', pa.bool_()),
        pa.field('start_stamp_ns', pa.int64()),
        pa.field('digest', pa.string()),
        pa.field('fingerprint', pa.string()),
    ]
    vector = pa.list_(pa.float64())
    image = pa.list_(pa.list_(vector))
    kinds = dict.fromkeys(row_features(contract), vector)
    kinds.update({video_key(camera.name): image for camera in contract.cameras})
    for feature, kind in kinds.items():
        for name in ('min', 'max', 'mean', 'std', *QUANTILES):
            fields.append(pa.field(f'stats/{feature}/{name}', kind))
        fields.append(pa.field(f'stats/{feature}/count', pa.list_(pa.int64())))
    fields += [
        pa.field('meta/episodes/chunk_index', pa.int64()),
        pa.field('meta/episodes/file_index', pa.int64()),
    ]
    return pa.schema(fields)


def stats_columns(stats: Stats) -> dict[str, Any]:
    """Return statistics as columns of an episode row."""
    return {
        f'stats/{feature}/{name}': value.tolist()
        for feature, values in stats.items()
        for name, value in values.items()
    }


def stats_of_row(row: Mapping[str, Any]) -> Stats:
    """Return the statistics that `stats_columns` put into an episode row."""
    found: Stats = {}
    for column, value in row.items():
        if column.startswith('stats/') and value is not None:
            feature, name = column[len('stats/') :].rsplit('/', 1)
            found.setdefault(feature, {})[name] = np.asarray(value)
    return found


def write_row_groups(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Replace `path` by a file with one row group for each table, holding one at a time.

    `tables` may come from `iter_row_groups` of the same `path`.
    """

    def write(temporary: Path) -> None:
        # Dictionaries and large pages gain nothing here, and cost megabytes for each column.
        options = {'use_dictionary': False, 'data_page_size': 1 << 16}
        with pq.ParquetWriter(temporary, schema, compression='snappy', **options) as writer:
            for table in tables:
                writer.write_table(table, row_group_size=max(1, table.num_rows))

    write_whole(path, write)


def iter_row_groups(path: Path, stop: int | None = None) -> Iterator[pa.Table]:
    """Yield the row groups of a file up to `stop` (excluded; None: all), one at a time."""
    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups if stop is None else stop):
                yield file.read_row_group(group)
    except PARQUET_ERRORS as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DatasetError:
    """Return the error for a file of the dataset that is missing or damaged."""
    return DatasetError(f'{path} cannot be read ({error}); restore it or convert again')


def write_tasks(root: Path, instructions: Sequence[str]) -> None:
    """Replace meta/tasks.parquet: instruction -> task_index, as pandas writes an index 'task'."""
    table = pa.table(
        {
            'task_index': pa.array(range(len(instructions)), pa.int64()),
            'task': pa.array(instructions, pa.string()),
        }
    )
    table = table.replace_schema_metadata({'pandas': json.dumps(_PANDAS_TASKS)})
    write_whole(root / TASKS, lambda temporary: pq.write_table(table, temporary))


def read_tasks(root: Path, total: int) -> list[str]:
    """Return the first `total` instructions, in the order of their task_index."""
    if not total:
        return []
    try:
        table = pq.read_table(root / TASKS)
        numbers, tasks = (table.column(name).to_pylist() for name in ('task_index', 'task'))
        pairs = sorted(zip(numbers, tasks, strict=True))
    except PARQUET_ERRORS as error:
        raise unreadable(root / TASKS, error) from error
    return [task for _, task in pairs][:total]


# What pandas leaves in the schema so that 'task' comes back as the index and not as a column.
_PANDAS_TASKS = {
    'index_columns': ['task'],
    'column_indexes': [
        {
            'name': None,
            'field_name': None,
            'pandas_type': 'unicode',
            'numpy_type': 'object',
            'metadata': {'encoding': 'UTF-8'},
        }
    ],
    'columns': [
        {
            'name': 'task_index',
            'field_name': 'task_index',
            'pandas_type': 'int64',
            'numpy_type': 'int64',
            'metadata': None,
        },
        {
            'name': 'task',
            'field_name': 'task',
            'pandas_type': 'unicode',
            'numpy_type': 'object',
            'metadata': None,
        },
    ],
    'pandas_version': '2.2.0',
}
