"""A run that goes wrong stops, and says what was seen where."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from made_caches import random_episodes, write_cache
from safetensors.torch import load_file

from training import checkpoint
from training.data import Replay
from training.errors import TrainingError
from training.health import Health, not_finite
from training.learner import Learner
from training.model import QTransformer
from training.train import train

GOOD = {
    'step': 200, 'q_success': 0.6, 'q_others': 0.01, 'loss': 0.3, 'td': 0.2, 'conservative': 0.1,
    'grad_norm': 0.7,
}  # fmt: skip
BAD = {
    'collapsed': {'q_success': 1e-4},
    'saturated': {'q_others': 0.99},
    'tells nothing apart': {'q_success': 0.5, 'q_others': 0.497},
}


@pytest.mark.parametrize('name', BAD)
def test_a_bad_q_stops_the_run_once_it_lasts(name):
    health, bad = Health(mean_return=0.7, from_step=100, patience=3), {**GOOD, **BAD[name]}
    health.check({**bad, 'step': 50})  # too early to judge
    for row in (bad, bad, GOOD, bad, bad):
        health.check(row)
    with pytest.raises(
        TrainingError, match=f'Q (has )?{name}.*3 rows.*step 200.*td 0.2.*optim.lr'
    ):
        health.check(bad)


def test_without_successes_only_saturation_can_be_seen():
    health = Health(mean_return=0.0, from_step=0, patience=1)
    for name in ('collapsed', 'tells nothing apart'):
        health.check({**GOOD, **BAD[name], 'q_success': float('nan')})
    with pytest.raises(TrainingError, match='saturated'):
        health.check({**GOOD, **BAD['saturated']})


@pytest.fixture
def poisonable(cache, small_config):
    """A learner and a batch of its data."""
    config = small_config()
    data = Replay([cache], config.data, window=2, gamma=0.9, text_encoder='hashed', text_size=16)
    torch.manual_seed(0)
    learner = Learner(QTransformer(config.model, data.signature), config, torch.device('cpu'))
    return learner, data.batch(0)


def said(learner, batch, saved=6):
    return str(not_finite(learner, batch, [0.4, 9.0, 1e5, float('nan')], 9, saved))


def test_a_number_of_the_batch_is_named_by_its_place(poisonable):
    learner, batch = poisonable
    state = batch.state.clone()
    state[1, 2, 0] = float('inf')
    words = said(learner, dataclasses.replace(batch, state=state))
    assert 'state[1, 2, 0]' in words
    assert 'convert' in words
    assert 'step 9' in words
    assert '0.4 9 1e+05 nan' in words
    assert 'checkpoint of step 6' in words
    assert 'nothing was saved' in said(learner, batch, saved=0)


def test_weights_that_are_broken_are_named(poisonable):
    learner, batch = poisonable
    with torch.no_grad():
        learner.model.dim[1, :3] = float('nan')
    assert 'dim (3 of 48)' in said(learner, batch)


def test_a_loss_that_overflows_is_told_from_its_gradient(poisonable):
    learner, batch = poisonable
    weight = learner.model.blocks[0].out.weight
    handle = weight.register_hook(lambda gradient: gradient * float('inf'))
    words = said(learner, batch)
    assert 'gradient of blocks.0.out.weight' in words
    assert 'clip_norm' in words
    handle.remove()
    with torch.no_grad():
        weight.fill_(3e38)
    words = said(learner, batch)
    assert 'the loss is not (td, conservative)' in words
    assert 'bf16' not in words


def test_nan_in_a_run_stops_it_and_keeps_the_last_checkpoint(
    cache, tmp_path, small_config, monkeypatch
):
    update = Learner.update

    def poisoned(self, batch, step):
        if step == 8:
            with torch.no_grad():
                self.model.bias.fill_(float('nan'))
        return update(self, batch, step)

    monkeypatch.setattr(Learner, 'update', poisoned)
    with pytest.raises(TrainingError, match=r'not finite at step 9: the weights bias .*step 6 is'):
        train([cache], tmp_path / 'run', small_config())
    folder = checkpoint.find(tmp_path / 'run')
    assert all(
        torch.isfinite(tensor).all()
        for name in ('model', 'target', 'optimizer')
        for tensor in load_file(folder / f'{name}.safetensors').values()
    )


@pytest.mark.parametrize('field', ['state', 'reward'])
def test_numbers_that_are_not_finite_in_the_data_are_refused_by_place(
    tmp_path, small_config, field
):
    episodes = random_episodes([4, 5], ['failure', 'success'])
    if field == 'state':
        episodes[1]['state'][2, 1] = np.nan
    else:
        episodes[1]['reward'] = np.array([0, 0, np.nan, 0, 1], np.float32)
    cache = write_cache(tmp_path / 'cache', episodes)
    words = 's1' if field == 'state' else 'reward'
    with pytest.raises(TrainingError, match=rf'{words}.*episode e1, row 2'):
        train([cache], tmp_path / 'run', small_config())
