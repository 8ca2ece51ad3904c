"""What the tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_caches import random_episodes, write_cache

from training.config import load_config


@pytest.fixture(autouse=True, scope='session')
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def cache(tmp_path) -> Path:
    """Five episodes, 28 trainable rows, one of them timed out, one unlabelled."""
    outcomes = ['success', 'failure', 'timeout', 'unknown', 'success']
    return write_cache(tmp_path / 'cache', random_episodes([7, 5, 6, 4, 10], outcomes))


@pytest.fixture
def small_config():
    """A network of a few thousand weights; overrides as given to load_config."""

    def make(*overrides: str):
        return load_config(
            None,
            [
                'model.window=2',
                'model.channels=[4, 6]',
                'model.kernels=[3, 3]',
                'model.strides=[2, 2]',
                'model.maps=4',
                'model.image_tokens=2',
                'model.width=16',
                'model.layers=2',
                'model.heads=2',
                'model.mlp_ratio=2',
                'model.text_size=16',
                'data.batch=8',
                'data.segment=4',
                'data.shift_px=1',
                'optim.steps=12',
                'optim.warmup_steps=2',
                'optim.lr=0.003',
                'optim.log_every=4',
                'optim.save_every=6',
                'optim.device=cpu',
                *overrides,
            ],
        )

    return make
