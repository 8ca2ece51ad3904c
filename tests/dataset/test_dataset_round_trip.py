"""What goes in comes out: rows exactly, frames closely, however it was appended."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_episodes import contract, episode, psnr_db

from qt_ros.contract import Contract
from qt_ros.dataset import Dataset, DatasetWriter, encode_videos
from qt_ros.episode import Episode, rewards
from qt_ros.errors import DatasetError


def write(path: Path, made_with: Contract, episodes: list[Episode], batch: int = 25) -> None:
    with DatasetWriter(path, made_with, batch=batch) as writer:
        for one in episodes:
            writer.append(one)


def assert_same(dataset: Dataset, index: int, one: Episode) -> None:
    """Compare episode `index` of the dataset with what was appended."""
    meta, rows = dataset.episodes[index], dataset.rows(index)
    for name in ('episode_id', 'instruction', 'outcome', 'source', 'policy_id', 'bag_uri'):
        assert getattr(meta, name) == getattr(one, name)
    assert (meta.start_stamp_ns, meta.length) == (one.start_stamp_ns, len(one))
    assert meta.success == (one.outcome == 'success')
    expected = {
        'observation.state': one.state,
        'action': one.action,
        'action.requested': one.requested,
        'intervention': one.intervention,
        **{f'stamp_ns.{name}': stamps for name, stamps in one.stamps_ns.items()},
        **{f'valid.{name}': valid for name, valid in one.valid.items()},
        **rewards(one.outcome, len(one)),
        'frame_index': np.arange(len(one)),
        'timestamp': (np.arange(len(one)) / dataset.contract.rate_hz).astype(np.float32),
        'episode_index': np.full(len(one), index),
        'index': meta.from_index + np.arange(len(one)),
    }
    for name, column in expected.items():
        assert rows[name].dtype == column.dtype, name
        assert rows[name].shape == column.shape, name
        assert np.array_equal(rows[name], column), name
    assert set(rows) == {*expected, 'task_index'}
    for camera, frames in one.images.items():
        decoded = dataset.frames(index, camera)
        assert decoded.shape == (len(one), *dict(sizes(dataset))[camera], 3)
        for before, after in zip(frames(), decoded, strict=True):
            assert psnr_db(before, after) > 33.0
    assert dataset.problems(index) == []


def sizes(dataset: Dataset) -> list[tuple[str, tuple[int, int]]]:
    return [(camera.name, camera.size) for camera in dataset.contract.cameras]


@settings(max_examples=6, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=6, unique=True),
    rate_hz=st.sampled_from([5.0, 10.0, 12.5, 30.0]),
    cameras=st.integers(0, 2),
    terminate=st.booleans(),
    batch=st.integers(1, 4),
)
def test_rows_exactly_and_frames_closely(
    tmp_path_factory, seeds, rate_hz, cameras, terminate, batch
):
    made_with = contract(rate_hz, cameras, terminate)
    path = tmp_path_factory.mktemp('set') / 'd'
    episodes = [episode(made_with, seed) for seed in seeds]
    write(path, made_with, episodes, batch)
    dataset = Dataset(path)
    assert dataset.contract == made_with
    assert len(dataset) == len(episodes)
    for index, one in enumerate(episodes):
        assert_same(dataset, index, one)
    instructions = [dataset.episodes[i].instruction for i in range(len(dataset))]
    tasks = pq.read_table(path / 'meta/tasks.parquet').to_pydict()
    by_index = dict(zip(tasks['task_index'], tasks['task'], strict=True))
    for index, instruction in enumerate(instructions):
        assert by_index[int(dataset.rows(index)['task_index'][0])] == instruction


def assert_equal_sets(a: Path, b: Path) -> None:
    left, right = Dataset(a), Dataset(b)
    assert left.info() == right.info()
    assert len(left) == len(right)
    for index in range(len(left)):
        mine, theirs = left.rows(index), right.rows(index)
        assert set(mine) == set(theirs)
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
        assert left.episodes[index].digest == right.episodes[index].digest
        for camera, _ in sizes(left):
            assert np.array_equal(left.frames(index, camera), right.frames(index, camera))
    stats = [json.loads((path / 'meta/stats.json').read_text()) for path in (a, b)]
    assert set(stats[0]) == set(stats[1]) == set(left.info()['features'])
    for feature, values in stats[0].items():
        for name, value in values.items():
            np.testing.assert_allclose(value, stats[1][feature][name], rtol=1e-9, atol=1e-9)


@settings(max_examples=4, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 9), max_size=3).map(sorted),
    batches=st.lists(st.integers(1, 9), min_size=4, max_size=4),
)
def test_appending_in_pieces_equals_one_go(tmp_path_factory, cuts, batches):
    made_with = contract(cameras=1)
    episodes = [episode(made_with, seed) for seed in range(9)]
    folder = tmp_path_factory.mktemp('set')
    write(folder / 'whole', made_with, episodes)
    bounds = [0, *cuts, len(episodes)]
    for first, stop, batch in zip(bounds[:-1], bounds[1:], batches, strict=False):
        write(folder / 'pieces', made_with, episodes[first:stop], batch)
    assert_equal_sets(folder / 'whole', folder / 'pieces')


def test_videos_encoded_elsewhere_give_the_same_set(tmp_path):
    made_with = contract()
    episodes = [episode(made_with, seed) for seed in range(4)]
    write(tmp_path / 'here', made_with, episodes)
    with DatasetWriter(tmp_path / 'there', made_with, batch=2) as writer:
        ahead = [encode_videos(one, writer.staging_folder(), made_with) for one in episodes]
        for one, encoded in zip(episodes, ahead, strict=True):
            writer.append(one, encoded)
    assert_equal_sets(tmp_path / 'here', tmp_path / 'there')
    assert not (tmp_path / 'there/.staging').exists()


def test_parquet_files_hold_20_to_100_episodes_and_one_row_group_each(tmp_path):
    made_with = contract(cameras=0)
    episodes = [episode(made_with, seed, 2) for seed in range(75)]
    write(tmp_path / 'd', made_with, episodes[:60])
    for one in episodes[60:]:  # one by one, as a collector does
        write(tmp_path / 'd', made_with, [one])
    data, meta = (
        [
            pq.ParquetFile(file).metadata
            for file in sorted((tmp_path / 'd' / kind).rglob('*.parquet'))
        ]
        for kind in ('data', 'meta/episodes')
    )
    assert [file.num_row_groups for file in data] == [50, 25]
    assert [file.num_rows for file in meta] == [50, 25]
    dataset = Dataset(tmp_path / 'd')
    for index in (0, 49, 50, 61, 74):
        assert_same(dataset, index, episodes[index])


def test_what_is_there_already(tmp_path):
    made_with = contract(cameras=0)
    one = episode(made_with, 1)
    with DatasetWriter(tmp_path / 'd', made_with) as writer:
        assert not writer.has(one.bag_uri, one.episode_id)
        assert writer.append(one) == 0
        assert writer.has(one.bag_uri, one.episode_id)
        with pytest.raises(DatasetError, match=r'is in .* already'):
            writer.append(one)
        assert writer.append(replace(one, episode_id='another')) == 1
    with DatasetWriter(tmp_path / 'd', made_with) as writer:
        assert len(writer) == 2
        assert writer.has(one.bag_uri, one.episode_id)
        assert not writer.has('elsewhere', one.episode_id)


def test_all_that_does_not_fit_is_said_at_once(tmp_path):
    made_with = contract()
    wrong = replace(
        episode(made_with, 1, 5),
        outcome='won',
        contract_hash='f' * 64,
        state=np.zeros((5, 7), np.float32),
        action=np.full((5, 2), np.nan, np.float32),
        valid={},
        images={},
    )
    with DatasetWriter(tmp_path / 'd', made_with) as writer:
        with pytest.raises(DatasetError) as caught:
            writer.append(wrong)
        writer.append(episode(made_with, 2))
    text = str(caught.value)
    for part in (
        "outcome 'won' is unknown; allowed: success, failure, timeout, aborted, unknown",
        'another contract',
        'state entries 7; the contract says 2',
        'action is not finite at row 0',
        'validity for []',
        "cameras []; the contract says ['front', 'wrist']",
    ):
        assert part in text
    assert len(Dataset(tmp_path / 'd')) == 1


def test_folders_that_are_not_ours(tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    with pytest.raises(DatasetError, match=r'is not a dataset \(it holds notes.txt\)'):
        DatasetWriter(tmp_path, contract())
    assert sorted(p.name for p in tmp_path.iterdir()) == ['notes.txt']
    with pytest.raises(DatasetError, match=r'is not a dataset: meta/info.json is missing'):
        Dataset(tmp_path)
    with pytest.raises(DatasetError, match='cannot be written'):
        DatasetWriter(tmp_path / 'notes.txt' / 'd', contract())


def test_another_contract_and_a_second_writer_are_refused(tmp_path):
    write(tmp_path / 'd', contract(), [])
    with pytest.raises(DatasetError, match=r'made with contract tiny_arm .* Give another --out'):
        DatasetWriter(tmp_path / 'd', contract(terminate=True))
    first = DatasetWriter(tmp_path / 'd', contract())
    with pytest.raises(DatasetError, match='being written by another process'):
        DatasetWriter(tmp_path / 'd', contract())
    first.close()
    DatasetWriter(tmp_path / 'd', contract()).close()
    odd = contract().to_yaml().replace('- 48', '- 47')
    with pytest.raises(DatasetError, match=r'camera front has size 32x47.* use 32x48'):
        DatasetWriter(tmp_path / 'e', Contract.parse(odd))


def test_an_empty_dataset_opens(tmp_path):
    write(tmp_path / 'd', contract(), [])
    assert len(Dataset(tmp_path / 'd')) == 0
    assert Dataset(tmp_path / 'd').info()['total_frames'] == 0
    with pytest.raises(DatasetError, match='episode 0 does not exist'):
        Dataset(tmp_path / 'd').rows(0)


def test_an_exception_of_the_caller_keeps_the_whole_episodes(tmp_path):
    made_with = contract(cameras=0)

    def convert() -> None:
        with DatasetWriter(tmp_path / 'd', made_with) as writer:
            writer.append(episode(made_with, 1))
            raise RuntimeError('bag ended')

    with pytest.raises(RuntimeError, match='bag ended'):
        convert()
    assert len(Dataset(tmp_path / 'd')) == 1


def test_a_changed_row_or_video_is_noticed(tmp_path):
    made_with = contract(cameras=1)
    write(tmp_path / 'd', made_with, [episode(made_with, seed, 6) for seed in range(3)])
    videos = sorted((tmp_path / 'd/videos').rglob('*.mp4'))
    videos[1].write_bytes(videos[2].read_bytes())
    dataset = Dataset(tmp_path / 'd')
    assert dataset.problems(0) == []
    assert 'not those that were appended' in dataset.problems(1)[0]
    videos[2].unlink()
    assert 'file-002.mp4' in dataset.problems(2)[0]
