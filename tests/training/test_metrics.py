"""What a run writes down: rows in metrics.csv, the same and histograms in TensorBoard."""

from __future__ import annotations

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.data import Replay
from training.metrics import COLUMNS, MetricsLog, read_metrics
from training.train import train


def events(run):
    board = EventAccumulator(str(run / 'tensorboard'), {'histograms': 0, 'scalars': 0})
    board.Reload()
    return board


def test_tensorboard_holds_the_rows_of_the_table_and_histograms(cache, tmp_path, small_config):
    config = small_config('optim.histogram_every=8', 'data.batch=40')
    run = train([cache], tmp_path / 'run', config).run
    board, rows = events(run), read_metrics(run)
    assert [row['step'] for row in rows] == [4, 8, 12]
    for name in COLUMNS[1:]:
        found = board.Scalars(name)
        assert [event.step for event in found] == [4, 8, 12]
        assert np.allclose([event.value for event in found], [row[name] for row in rows],
                           equal_nan=True, rtol=1e-5)  # fmt: skip
    dims = ('x', 'y', 'grip')
    wanted = {f'bins_{kind}/{dim}' for kind in ('data', 'greedy') for dim in dims}
    wanted |= {f'q_{end}/{kind}' for end in ('success', 'failure') for kind in ('data', 'others')}
    assert wanted <= set(board.Tags()['histograms'])
    assert [event.step for event in board.Histograms('bins_data/x')] == [4, 12]


def test_bin_usage_counts_the_bins_of_the_batch(cache, tmp_path, small_config):
    config = small_config('optim.steps=1')
    run = train([cache], tmp_path / 'run', config).run
    data = Replay([cache], config.data, window=2, gamma=0.98, text_encoder='hashed', text_size=16)
    batch = data.batch(0)
    for i, (name, count) in enumerate(zip(('x', 'y', 'grip'), (5, 3, 2), strict=True)):
        (event,) = events(run).Histograms(f'bins_data/{name}')
        histogram = event.histogram_value
        found = dict(zip(histogram.bucket_limit, histogram.bucket, strict=True))
        bins = batch.bins[:, :-1][..., i][batch.valid]
        for chosen in range(count):
            assert found.get(chosen + 0.5, 0) == int((bins == chosen).sum())
        (event,) = events(run).Histograms(f'bins_greedy/{name}')
        assert event.histogram_value.num == len(bins)


@pytest.mark.parametrize(
    ('settings', 'has'), [(('histogram_every=0',), False), (('objective=cloning',), True)]
)
def test_histograms_can_be_left_out_and_cloning_has_no_q(
    cache, tmp_path, small_config, settings, has
):
    run = train([cache], tmp_path / 'run', small_config(*settings, 'optim.steps=4')).run
    tags = events(run).Tags()['histograms']
    assert ('bins_greedy/x' in tags) == has
    assert not [tag for tag in tags if tag.startswith('q_')]


def test_histograms_change_nothing(cache, tmp_path, small_config):
    rows = [
        read_metrics(
            train([cache], tmp_path / str(every), small_config(f'histogram_every={every}')).run
        )
        for every in (0, 1)
    ]
    for without, with_them in zip(*rows, strict=True):
        assert without['loss'] == with_them['loss']


def test_a_resumed_log_drops_what_is_done_again(tmp_path):
    row = dict.fromkeys(COLUMNS, 1.0)
    with MetricsLog(tmp_path, 0) as log:
        for step in (2, 4, 6):
            log.write({**row, 'step': step})
    with open(tmp_path / 'metrics.csv', 'a') as file:
        file.write('8,1.0,1.')  # torn by a crash
    assert [each['step'] for each in read_metrics(tmp_path)] == [2, 4, 6]
    with MetricsLog(tmp_path, 4) as log:
        log.write({**row, 'step': 5, 'loss': 3.0})
    assert [each['step'] for each in read_metrics(tmp_path)] == [2, 4, 5]
    found = events(tmp_path).Scalars('loss')
    assert [(event.step, event.value) for event in found] == [(2, 1.0), (4, 1.0), (5, 3.0)]
