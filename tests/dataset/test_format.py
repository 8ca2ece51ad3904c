"""The files are what LeRobot v3.0 expects, checked against facts read from its source."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_episodes import contract, episode

from qt_ros.contract import Contract
from qt_ros.dataset import Dataset, DatasetWriter
from qt_ros.dataset.stats import NAMES, QUANTILES, ImageStats, row_stats, together


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    made_with = contract(terminate=True)
    path = tmp_path_factory.mktemp('set') / 'd'
    with DatasetWriter(path, made_with, batch=4) as writer:
        for seed in range(6):
            writer.append(episode(made_with, seed, 7))
    return path


def test_info(made):
    info = json.loads((made / 'meta/info.json').read_text())
    assert info['codebase_version'] == 'v3.0'
    assert info['fps'] == 10
    assert isinstance(info['fps'], int)
    assert (info['total_episodes'], info['total_frames'], info['total_tasks']) == (6, 42, 3)
    assert info['splits'] == {'train': '0:6'}
    assert info['chunks_size'] == 1000
    assert info['data_path'] == 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
    assert info['video_path'] == (
        'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
    )
    features = info['features']
    assert features['action'] == {
        'dtype': 'float32',
        'shape': [3],
        'names': ['a', 'b', 'terminate'],
    }
    assert features['action.requested'] == features['action']
    assert features['observation.state']['names'] == [
        'joint_states.position.a',
        'joint_states.position.b',
    ]
    video = features['observation.images.front']
    assert (video['dtype'], video['shape']) == ('video', [32, 48, 3])
    assert video['names'] == ['height', 'width', 'channels']
    assert video['info']['video.codec'] == 'h264'
    scalars = {
        **{'timestamp': 'float32', 'frame_index': 'int64', 'episode_index': 'int64'},
        **{'index': 'int64', 'task_index': 'int64', 'next.reward': 'float32'},
        **{'next.done': 'bool', 'next.truncated': 'bool', 'next.success': 'bool'},
        **{'intervention': 'bool', 'stamp_ns.front': 'int64', 'valid.joint_states': 'bool'},
    }
    for name, dtype in scalars.items():
        assert features[name] == {'dtype': dtype, 'shape': [1], 'names': None}, name
    assert not [name for name in features if '/' in name]


def test_rows_have_the_declared_types(made):
    features = json.loads((made / 'meta/info.json').read_text())['features']
    schema = pq.read_schema(made / 'data/chunk-000/file-000.parquet')
    assert set(schema.names) == {n for n, f in features.items() if f['dtype'] != 'video'}
    for name in schema.names:
        kind = {'float32': pa.float32(), 'int64': pa.int64(), 'bool': pa.bool_()}[
            features[name]['dtype']
        ]
        (length,) = features[name]['shape']
        assert schema.field(name).type == (kind if length == 1 else pa.list_(kind, length)), name


def test_one_dimension_is_a_scalar_column(tmp_path):
    """LeRobot reads shape (1,) as a scalar, never as a list of one."""
    text = contract(cameras=0).to_yaml()
    start, stop = text.index('  - name: b'), text.index('episodes:')
    made_with = Contract.parse(text[:start] + text[stop:])
    one = episode(made_with, 1, 4)
    with DatasetWriter(tmp_path / 'd', made_with) as writer:
        writer.append(one)
    schema = pq.read_schema(tmp_path / 'd/data/chunk-000/file-000.parquet')
    assert schema.field('action').type == pa.float32()
    assert np.array_equal(Dataset(tmp_path / 'd').rows(0)['action'], one.action)


def test_episode_rows(made):
    rows = pq.read_table(made / 'meta/episodes/chunk-000/file-000.parquet').to_pylist()
    at = 0
    for index, row in enumerate(rows):
        assert row['episode_index'] == index
        assert row['tasks'] == [f'push block {index % 3}']
        assert (row['dataset_from_index'], row['dataset_to_index']) == (at, at + 7)
        at += 7
        places = {name: row[name] for name in row if name.endswith(('chunk_index', 'file_index'))}
        for camera in ('front', 'wrist'):
            key = f'videos/observation.images.{camera}'
            assert places.pop(f'{key}/chunk_index') == 0
            assert places.pop(f'{key}/file_index') == index
            assert (row[f'{key}/from_timestamp'], row[f'{key}/to_timestamp']) == (0.0, 0.7)
        assert places == dict.fromkeys(
            f'{kind}/{name}'
            for kind in ('data', 'meta/episodes')
            for name in ('chunk_index', 'file_index')
        ) | dict.fromkeys(places, 0)
        assert row['success'] == (row['outcome'] == 'success')
        assert np.shape(row['stats/observation.images.front/mean']) == (3, 1, 1)
        assert np.shape(row['stats/action/q01']) == (3,)
        assert row['stats/index/count'] == [7]


def test_tasks_have_the_instruction_as_index(made):
    table = pq.read_table(made / 'meta/tasks.parquet')
    pandas = json.loads(table.schema.metadata[b'pandas'])
    assert pandas['index_columns'] == ['task']
    assert table.to_pydict() == {
        'task_index': [0, 1, 2],
        'task': ['push block 0', 'push block 1', 'push block 2'],
    }


def quantile(rows, share):
    """Return the quantile of each column as LeRobot defines it."""
    return np.quantile(rows, share, axis=0, method='inverted_cdf')


def test_statistics_of_all_rows(made):
    dataset = Dataset(made)
    stats = json.loads((made / 'meta/stats.json').read_text())
    assert set(stats) == set(dataset.info()['features'])
    for name in ('action', 'observation.state', 'next.reward', 'timestamp', 'stamp_ns.front'):
        parts = [dataset.rows(i)[name].reshape(7, -1).astype(float) for i in range(6)]
        whole = np.concatenate(parts)
        assert stats[name]['count'] == [42]
        for key, value in (
            ('min', whole.min(axis=0)),
            ('max', whole.max(axis=0)),
            ('mean', whole.mean(axis=0)),
            ('std', whole.std(axis=0)),
            # All parts are of one length, so LeRobot's mean of their quantiles is a plain one.
            ('q01', np.mean([quantile(part, 0.01) for part in parts], axis=0)),
            ('q99', np.mean([quantile(part, 0.99) for part in parts], axis=0)),
        ):
            np.testing.assert_allclose(stats[name][key], value, rtol=1e-6, atol=1e-9)
    image = stats['observation.images.front']
    assert set(image) == set(NAMES)
    assert image['count'] == [42]
    assert 0 <= image['min'][0][0][0] < image['mean'][0][0][0] < image['max'][0][0][0] <= 1


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5), seed=st.integers(0, 10**6))
def test_statistics_put_together_are_those_of_the_whole(sizes, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(n, 3)) * rng.uniform(0.1, 10) for n in sizes]
    merged = together(row_stats({'x': part, 'y': part[:, 0] > 0}) for part in parts)
    whole = row_stats({'x': np.concatenate(parts), 'y': np.concatenate(parts)[:, 0] > 0})
    for feature in ('x', 'y'):
        for name in ('min', 'max', 'mean', 'std', 'count'):
            np.testing.assert_allclose(
                merged[feature][name], whole[feature][name], rtol=1e-9, atol=1e-9
            )
    for name, share in QUANTILES.items():
        np.testing.assert_allclose(
            whole['x'][name], quantile(np.concatenate(parts), share), atol=1e-12
        )
        each = [quantile(part, share) for part in parts]
        np.testing.assert_allclose(
            merged['x'][name], np.average(each, axis=0, weights=sizes), atol=1e-9
        )


@settings(max_examples=20, deadline=None)
@given(frames=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_image_statistics_are_those_of_the_pixels(frames, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, rng.integers(2, 256), (frames, 6, 8, 3)).astype(np.uint8)
    stats = ImageStats(frames)
    for frame in pixels:
        stats.add(frame)
    found = stats.result()
    flat = pixels.reshape(-1, 3) / 255
    for name, value in (
        ('min', flat.min(axis=0)),
        ('max', flat.max(axis=0)),
        ('mean', flat.mean(axis=0)),
        ('std', flat.std(axis=0)),
        *(
            (name, np.quantile(flat, share, axis=0, method='inverted_cdf'))
            for name, share in QUANTILES.items()
        ),
    ):
        assert found[name].shape == (3, 1, 1)
        np.testing.assert_allclose(found[name].ravel(), value, atol=1e-7)
    assert found['count'].tolist() == [frames]


@pytest.mark.parametrize(('frames', 'looked_at'), [(7, 7), (100, 100), (500, 105), (1000, 177)])
def test_as_many_frames_are_looked_at_as_by_lerobot(frames, looked_at):
    """`estimate_num_samples` of its compute_stats.py: 100, and frames ** 0.75 of long ones."""
    stats = ImageStats(frames)
    for level in range(frames):
        stats.add(np.full((2, 2, 3), level % 256, np.uint8))
    assert stats.result()['count'].tolist() == [looked_at]
