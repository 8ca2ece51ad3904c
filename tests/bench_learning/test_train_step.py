"""What the bench of a training step measures: all of the step, once."""

from __future__ import annotations

import pytest
import torch

from bench.flops import Machine
from bench.rival import Size
from bench.train_step import STAGES, Watch, noise, ours, watched
from training.config import load_config
from training.data import Replay
from training.learner import Learner
from training.model import QTransformer

CPU = torch.device('cpu')
SMALL = [
    'model.window=2', 'model.width=16', 'model.layers=1', 'model.heads=2', 'model.text_size=16',
    'data.batch=8', 'data.segment=4', 'data.color_jitter=0.1', 'optim.device=cpu',
]  # fmt: skip


@pytest.fixture
def cache(tmp_path):
    torch.set_num_threads(1)
    return noise(tmp_path / 'cache', Size(image_px=16, dims=2, bins=5), cameras=2)


def test_stages_add_up_to_the_step(cache):
    config = load_config(None, SMALL)
    row = ours('it', config, cache, CPU, 3, Machine(1e9, 1e9))
    assert set(row.stages) == {*STAGES, 'rest'}
    assert all(value > 0 for value in row.stages.values())
    assert sum(row.stages.values()) == pytest.approx(row.ms, rel=0.05)
    # Segments of 4 with a window of 2: frames 0 to 4 online, 0 to 5 for targets, of two cameras.
    assert row.frames == 2 * (5 + 6) / 4
    assert row.floor_ms == pytest.approx(row.gflop * 1e3)


def test_watching_changes_nothing_and_ends(cache):
    config = load_config(None, SMALL)
    replay = Replay([cache], config.data, window=2, gamma=0.9, text_encoder='hashed', text_size=16)
    losses = []
    for watch in (False, True):
        torch.manual_seed(0)
        learner = Learner(QTransformer(config.model, replay.signature), config, CPU)
        if watch:
            backward = torch.Tensor.backward
            with watched(learner, replay, Watch(CPU)):
                losses.append(learner.update(replay.batch(0), 0)['loss'])
            assert torch.Tensor.backward is backward
        else:
            losses.append(learner.update(replay.batch(0), 0)['loss'])
    assert torch.equal(*losses)
