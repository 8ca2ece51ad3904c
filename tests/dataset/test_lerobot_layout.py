"""Sets as LeRobot lays them out: its chunk sizes, and episodes that it appended itself.

LeRobot 0.6 resumes into files of its own: rows as variable-length lists, several episodes in one
video, and episode rows without our columns (`dataset_writer.py`, `dataset_metadata.py`).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_episodes import contract, episode, psnr_db

from qt_ros.contract import Contract
from qt_ros.dataset import Dataset, DatasetWriter, build_cache, relabel
from qt_ros.dataset.catalog import OURS
from qt_ros.dataset.layout import data_file, episodes_file, placed_files, video_file, video_key
from qt_ros.dataset.replacing import Change, replacing
from qt_ros.dataset.stats import from_json, row_stats, to_json, together
from qt_ros.dataset.tables import episode_rows, row_schema, stats_columns
from qt_ros.dataset.video import VideoWriter
from qt_ros.episode import Episode
from qt_ros.errors import DatasetError

CAMERA = 'front'


def as_lerobot(path: Path, made_with: Contract, episodes: list[Episode], tasks: list[str]) -> None:
    """Append episodes to a dataset in the files and columns that LeRobot would write."""
    info = json.loads((path / 'meta/info.json').read_text())
    index, first = info['total_episodes'], info['total_frames']
    place, video_place = (0, 7), (0, 50)
    frames = [frame for each in episodes for frame in each.images[CAMERA]()]
    video = video_file(path, CAMERA, video_place)
    with VideoWriter(
        video,
        length=len(frames),
        size=made_with.cameras[0].size,
        rate_hz=made_with.rate_hz,
        what='LeRobot',
    ) as writer:
        for frame in frames:
            writer.add(frame)
    ours = row_schema(made_with)
    lists = {
        f.name: pa.list_(f.type.value_type) if pa.types.is_fixed_size_list(f.type) else f.type
        for f in ours
    }
    tables, rows, at_s = [], [], 0.0
    stats = from_json(json.loads((path / 'meta/stats.json').read_text()))
    for each in episodes:
        task = tasks.index(each.instruction)
        columns = episode_rows(each, made_with.rate_hz, index, first, task)
        tables.append(
            pa.table({n: pa.array(columns[n].tolist(), kind) for n, kind in lists.items()})
        )
        found = {
            **row_stats({name: columns[name] for name in ours.names}),
            video_key(CAMERA): writer.result().stats,
        }
        stats = together([stats, found])
        to_s = at_s + len(each) / made_with.rate_hz
        prefix = f'videos/{video_key(CAMERA)}'
        rows.append(
            {
                **{'episode_index': index, 'tasks': [each.instruction], 'length': len(each)},
                **{'data/chunk_index': place[0], 'data/file_index': place[1]},
                **{'dataset_from_index': first, 'dataset_to_index': first + len(each)},
                **{f'{prefix}/chunk_index': 0, f'{prefix}/file_index': video_place[1]},
                **{f'{prefix}/from_timestamp': at_s, f'{prefix}/to_timestamp': to_s},
                **stats_columns(found),
                **{'meta/episodes/chunk_index': 0, 'meta/episodes/file_index': place[1]},
            }
        )
        at_s, index, first = to_s, index + 1, first + len(each)
    with pq.ParquetWriter(data_file(path, place), tables[0].schema) as file:
        for table in tables:
            file.write_table(table)
    pq.write_table(pa.Table.from_pylist(rows), episodes_file(path, place))
    (path / 'meta/stats.json').write_text(json.dumps(to_json(stats)))
    info.update(total_episodes=index, total_frames=first, splits={'train': f'0:{index}'})
    (path / 'meta/info.json').write_text(json.dumps(info))


@pytest.fixture
def resumed(tmp_path: Path) -> tuple[Path, Contract, list[Episode]]:
    """A set of two episodes of ours and three of LeRobot's."""
    made_with = contract(cameras=1)
    outcomes = ('failure', 'aborted', 'success', 'failure', 'timeout')
    episodes = [
        replace(episode(made_with, seed, 4 + seed), outcome=outcome, instruction='push')
        for seed, outcome in enumerate(outcomes)
    ]
    with DatasetWriter(tmp_path / 'd', made_with) as writer:
        for each in episodes[:2]:
            writer.append(each)
    as_lerobot(tmp_path / 'd', made_with, episodes[2:], ['push'])
    return tmp_path / 'd', made_with, episodes


def assert_holds(path: Path, episodes: list[Episode]) -> None:
    dataset = Dataset(path)
    assert len(dataset) == len(episodes)
    for index, one in enumerate(episodes):
        meta, rows = dataset.episodes[index], dataset.rows(index)
        assert (meta.outcome, meta.instruction) == (one.outcome, one.instruction)
        assert np.array_equal(rows['action'], one.action)
        assert np.array_equal(rows['observation.state'], one.state)
        assert rows['index'].tolist() == list(range(meta.from_index, meta.from_index + len(one)))
        assert bool(rows['next.truncated'][-1]) == (one.outcome not in ('success', 'failure'))
        shown = dataset.frames(index, CAMERA)
        assert len(shown) == len(one)
        for before, after in zip(one.images[CAMERA](), shown, strict=True):
            assert psnr_db(before, after) > 30.0
        assert dataset.problems(index) == []
    stats = json.loads((path / 'meta/stats.json').read_text())
    assert stats['index']['count'] == [dataset.info()['total_frames']]


def test_what_lerobot_appended_is_read(resumed) -> None:
    path, _, episodes = resumed
    assert_holds(path, episodes)
    metas = Dataset(path).episodes
    assert [m.episode_id for m in metas[2:]] == ['lerobot-2', 'lerobot-3', 'lerobot-4']
    assert len({m.digest for m in metas}) == 5
    assert len(build_cache(path).joinpath('state.f32').read_bytes()) == sum(map(len, episodes)) * 8


def test_writing_goes_on_behind_it(resumed) -> None:
    path, made_with, episodes = resumed
    theirs = data_file(path, (0, 7)).read_bytes()
    digests = [m.digest for m in Dataset(path).episodes]
    more = [replace(episode(made_with, seed, 5), outcome='success') for seed in (7, 8, 9)]
    for each in more:
        with DatasetWriter(path, made_with) as writer:
            writer.append(each)
    assert_holds(path, [*episodes, *more])
    assert data_file(path, (0, 7)).read_bytes() == theirs
    assert [m.digest for m in Dataset(path).episodes][:5] == digests
    # All episode rows have the same columns now: LeRobot's loader asks for that.
    schemas = [pq.read_schema(file) for file in placed_files(path / 'meta/episodes').values()]
    assert all(schema == schemas[0] for schema in schemas)
    assert set(OURS) <= set(schemas[0].names)


def test_it_can_be_labelled_and_replaced(resumed) -> None:
    path, made_with, episodes = resumed
    relabel(path, {1: 'success', 3: 'aborted'}, 'me', {4: 'pull'})
    episodes[1] = replace(episodes[1], outcome='success')
    episodes[3] = replace(episodes[3], outcome='aborted')
    episodes[4] = replace(episodes[4], instruction='pull')
    assert_holds(path, episodes)
    new = replace(episode(made_with, 20, 6), outcome='failure')
    with replacing(path, made_with) as change:
        change.fresh.append(new)
        change.build([Change((2,), (0,))])
    assert_holds(path, [*episodes[:2], new, *episodes[3:]])


def test_rows_that_are_not_a_row_group_an_episode(resumed) -> None:
    """LeRobot's tools rewrite files in row groups of their own size."""
    path, made_with, episodes = resumed
    file = data_file(path, (0, 7))
    pq.write_table(pq.read_table(file), file, row_group_size=1000)
    assert_holds(path, episodes)
    relabel(path, {4: 'success'}, 'me')
    episodes[4] = replace(episodes[4], outcome='success')
    with DatasetWriter(path, made_with) as writer:
        writer.append(replace(episode(made_with, 7, 5), outcome='success'))
    assert_holds(path, [*episodes, replace(episode(made_with, 7, 5), outcome='success')])


def test_older_sets_and_columns_of_others(tmp_path: Path) -> None:
    """A set without the newest column gets it; columns that we do not know are kept."""
    made_with = contract(cameras=0)
    with DatasetWriter(tmp_path / 'd', made_with) as writer:
        for seed in range(3):
            writer.append(episode(made_with, seed, 3))
    file = episodes_file(tmp_path / 'd', (0, 0))
    table = pq.read_table(file).drop_columns(['fingerprint'])
    pq.write_table(table.append_column('operator', pa.array(['ann', 'ben', 'ann'])), file)
    assert len(Dataset(tmp_path / 'd')) == 3
    with DatasetWriter(tmp_path / 'd', made_with) as writer:
        writer.append(episode(made_with, 3, 3))
    assert pq.read_table(file).column('operator').to_pylist() == ['ann', 'ben', 'ann']
    dataset = Dataset(tmp_path / 'd')
    assert [e.episode_id for e in dataset.episodes] == [f'episode-{n}' for n in range(4)]
    assert all(dataset.problems(index) == [] for index in range(4))


def test_other_features_are_refused(tmp_path: Path) -> None:
    made_with = contract(cameras=0)
    DatasetWriter(tmp_path / 'd', made_with).close()
    file = tmp_path / 'd/meta/info.json'
    info = json.loads(file.read_text())
    info['features']['observation.effort'] = {'dtype': 'float32', 'shape': [2], 'names': None}
    info['features']['action']['shape'] = [3]
    file.write_text(json.dumps(info))
    with pytest.raises(DatasetError) as caught:
        DatasetWriter(tmp_path / 'd', made_with)
    assert 'has observation.effort as' in str(caught.value)
    assert 'has action as' in str(caught.value)


def test_chunks_roll_over_where_info_says(tmp_path: Path) -> None:
    """LeRobot's `update_chunk_settings` changes chunks_size; 3 files in a folder here."""
    made_with = contract(cameras=1)
    path = tmp_path / 'd'
    DatasetWriter(path, made_with).close()
    file = path / 'meta/info.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), 'chunks_size': 3}))
    episodes = [episode(made_with, seed, 1) for seed in range(8)]
    for part in (episodes[:5], episodes[5:]):
        with DatasetWriter(path, made_with, batch=2) as writer:
            for each in part:
                writer.append(each)
    places = list(placed_files(path / 'videos' / video_key(CAMERA)))
    assert places == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    assert Dataset(path).info()['chunks_size'] == 3
    assert_holds(path, episodes)


def test_a_thousand_files_in_a_chunk(tmp_path: Path) -> None:
    """1001 episodes of one row: the last video begins a second folder."""
    made_with = contract(cameras=1)
    path = tmp_path / 'd'
    with DatasetWriter(path, made_with, batch=50) as writer:
        one = episode(made_with, 0, 1)
        first = writer.append(one)
        writer.commit()
        assert first == 0
        source = Dataset(path)
        for number in range(1, 1001):
            source.episodes[0] = replace(source.episodes[0], episode_id=str(number))
            writer.adopt(source, 0)
    places = list(placed_files(path / 'videos' / video_key(CAMERA)))
    assert (places[999], places[1000]) == ((0, 999), (1, 0))
    groups = [pq.ParquetFile(f).num_row_groups for f in placed_files(path / 'data').values()]
    assert sum(groups) == 1001
    assert min(groups[:-1]) >= 20
    assert max(groups) <= 100
    dataset = Dataset(path)
    assert dataset.episodes[1000].videos[CAMERA] == ((1, 0), 0.0)
    assert [dataset.problems(index) for index in (0, 999, 1000)] == [[], [], []]
