"""Recoloured frames: what stays the same, what may change, and by how much."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_caches import random_episodes, write_cache

from training.augment import random_colors, recolor
from training.data import Replay
from training.learner import Learner
from training.model import QTransformer

CAMERAS = {'front': (6, 8), 'wrist': (4, 10)}


def pictures(number=3, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (number, 2, 5, 7, 3), dtype=np.uint8))


def drawn(strength, number=3, seed=1):
    return torch.from_numpy(random_colors(np.random.default_rng(seed), (number,), strength))


def test_no_strength_is_the_identity():
    images = pictures()
    assert torch.equal(recolor(images, drawn(0.0)), images)


@settings(deadline=None)
@given(strength=st.floats(0, 0.99), seed=st.integers(0, 2**32 - 1))
def test_a_grey_picture_stays_grey_and_moves_no_further_than_the_strength(strength, seed):
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16, 1).expand(1, 1, 16, 16, 3)
    out = recolor(grey.contiguous(), drawn(strength, 1, seed)).to(torch.int)
    assert int((out.amax(-1) - out.amin(-1)).max()) <= 1  # rounding
    level = grey[..., 0].to(torch.float32)
    # Brightness scales by 1 +- s, contrast scales what differs from the middle grey by as much.
    shift = strength * level + strength * (level * (1 + strength) - 127.5).abs().clamp(min=127.5)
    assert bool(((out[..., 0] - level).abs() <= shift + 1).all())
    assert bool((out[..., 0].flatten().diff() >= 0).all())


@settings(deadline=None)
@given(strength=st.floats(0.01, 0.99), seed=st.integers(0, 2**32 - 1))
def test_the_map_is_the_four_changes_one_after_the_other(strength, seed):
    """In float64, by hand: hue as a rotation, then saturation, brightness and contrast."""
    draws = np.random.default_rng(seed).uniform(-strength, strength, size=(4, 1, 1, 1)).ravel()
    pixel = np.random.default_rng(seed).uniform(0, 255, 3)
    angle, axis = 2 * np.pi * 0.1 * draws[3], np.ones(3) / 3**0.5
    turned = (
        pixel * np.cos(angle)
        + np.cross(axis, pixel) * np.sin(angle)
        + axis * (axis @ pixel) * (1 - np.cos(angle))
    )
    grey = turned @ [0.299, 0.587, 0.114]
    wanted = (grey + (turned - grey) * (1 + draws[2])) * (1 + draws[0])
    wanted = 127.5 + (wanted - 127.5) * (1 + draws[1])
    matrix = random_colors(np.random.default_rng(seed), (1,), strength)[0]
    assert matrix[:, :3] @ pixel + matrix[:, 3] == pytest.approx(wanted, abs=1e-2)


def test_all_frames_of_a_segment_change_alike_and_segments_do_not():
    images = pictures(1).repeat(3, 2, 1, 1, 1)
    out = recolor(images, drawn(0.5))
    assert torch.equal(out[:, :2], out[:, 2:])
    assert not torch.equal(out[0], out[1])
    assert out.dtype == torch.uint8


@pytest.fixture
def replay(tmp_path, small_config):
    path = write_cache(
        tmp_path / 'cameras',
        random_episodes([7, 5, 9], ['success', 'failure', 'success'], cameras=CAMERAS),
        cameras=CAMERAS,
    )

    def make(*overrides):
        config = small_config('data.batch=16', *overrides)
        return config, Replay(
            [path], config.data, window=2, gamma=0.9, text_encoder='hashed', text_size=16, seed=3
        )

    return make


def test_colors_depend_on_seed_and_step_only_and_are_shared_out_like_segments(replay):
    _, data = replay('data.color_jitter=0.3')
    _, again = replay('data.color_jitter=0.3')
    whole = data.batch(4).colors
    assert whole.shape == (4, 2, 3, 4)
    assert torch.equal(whole, again.batch(4).colors)
    assert not torch.equal(whole, data.batch(5).colors)
    assert not torch.equal(whole[:, 0], whole[:, 1])  # a camera has its own
    for rank in range(3):
        assert torch.equal(data.batch(4, rank, 3).colors, whole[rank::3])


def test_both_networks_see_the_same_colors_and_none_are_seen_when_off(replay):
    config, data = replay('data.color_jitter=0.3')
    model = QTransformer(config.model, data.signature)
    learner = Learner(model, config, torch.device('cpu'))
    batch = data.batch(0)
    seen = learner._prepared(batch).images
    for i, name in enumerate(CAMERAS):
        assert torch.equal(seen[name], recolor(batch.images[name], batch.colors[:, i]))
        assert not torch.equal(seen[name], batch.images[name])
    off, _ = replay()
    as_it_is = Learner(model, off, torch.device('cpu'))._prepared(batch).images
    assert all(torch.equal(as_it_is[name], batch.images[name]) for name in CAMERAS)


def test_parts_of_a_batch_have_its_colors(replay):
    """The gradient of a recoloured batch does not depend on how it is taken apart."""
    found = []
    for parts in (1, 3):
        config, data = replay('data.color_jitter=0.4', f'optim.accumulate={parts}')
        torch.manual_seed(0)
        learner = Learner(QTransformer(config.model, data.signature), config, torch.device('cpu'))
        learner._gradient(data.batch(2))
        found.append(torch.cat([p.grad.flatten() for p in learner.weights if p.grad is not None]))
    assert torch.allclose(*found, rtol=1e-4, atol=1e-7)
