import dataclasses

import numpy as np
import pytest
import torch
from made_learners import make

from training.config import OptimConfig
from training.learner import batch_loss, learning_rate


def total(learner, batch, **changes):
    batch = dataclasses.replace(batch, **changes)
    loss, figures = batch_loss(learner.model, learner.target, batch, learner.config.loss)
    return float(loss.detach()), {name: float(value) for name, value in figures.items()}


TARGETS = pytest.mark.parametrize('target', ['per_dim', 'n_step'])


def test_monte_carlo_raises_the_targets(cache, small_config):
    data, learner = make(cache, small_config('loss.monte_carlo=true'))
    batch = data.batch(0)
    low, _ = total(learner, batch, returns=torch.zeros_like(batch.returns))
    high, _ = total(learner, batch, returns=torch.ones_like(batch.returns))
    assert low != high


@TARGETS
@pytest.mark.parametrize('window', [1, 3])
def test_sharing_frames_in_a_segment_changes_nothing(cache, small_config, target, window):
    """The loss of a segment of 4 is the mean of the losses of its 4 transitions alone."""
    options = (f'loss.target={target}', f'model.window={window}')
    data, learner = make(cache, small_config(*options))
    single, _ = make(cache, small_config(*options, 'data.segment=1', 'data.batch=1'))
    for episode, first in ((0, 1), (3, 5), (1, -1), (2, 4)):
        at = np.zeros((1, 1, 2), int)
        together = total(learner, data.gather(np.array([episode]), np.array([first]), at))[1]
        rows = [r for r in range(first, first + 4) if 0 <= r < data._length[episode]]
        alone = [
            total(learner, single.gather(np.array([episode]), np.array([r]), at))[1] for r in rows
        ]
        for name in ('conservative', 'gap'):
            assert together[name] == pytest.approx(np.mean([a[name] for a in alone]), rel=1e-4)
        if episode != 2:  # its last row has no target
            assert together['td'] == pytest.approx(np.mean([a['td'] for a in alone]), rel=1e-4)


def test_update_moves_the_online_network_and_the_target_slowly(cache, small_config):
    data, learner = make(cache, small_config('optim.ema=0.75'))
    name, online = next(iter(learner.model.named_parameters()))
    target = dict(learner.target.named_parameters())[name]
    before_online, before = online.detach().clone(), target.detach().clone()
    learner.update(data.batch(0), 5)
    assert not torch.equal(online, before_online)
    assert torch.allclose(target, 0.75 * before + 0.25 * online.detach(), atol=1e-6)
    assert target.grad is None


def test_a_step_with_nan_leaves_the_weights_alone(cache, small_config):
    data, learner = make(cache, small_config())
    before = [p.detach().clone() for p in learner.model.parameters()]
    batch = data.batch(0)
    figures = learner.update(dataclasses.replace(batch, reward=batch.reward * float('nan')), 0)
    assert not torch.isfinite(figures['grad_norm'])
    assert all(torch.equal(p, q) for p, q in zip(learner.model.parameters(), before, strict=True))


def test_learning_rate_warms_up_and_falls_to_its_end():
    config = OptimConfig(steps=100, warmup_steps=10, lr=1.0, final_lr=0.1)
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
