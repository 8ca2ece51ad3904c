"""The nine invariants of the algorithm, from recorded episodes to what comes out, in order.

`bench/mutants.py` breaks the code in one place after the other and shows which of these fails.
Invariant 5, the learned Q against exact value iteration, has a file of its own: test_tabular.py.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_caches import random_episodes, write_cache
from made_learners import make, same, weights
from torch.nn import functional

from training import checkpoint
from training.learner import batch_loss
from training.metrics import read_metrics
from training.policy import Policy
from training.q_math import bin_mask, q_losses
from training.train import train

TARGETS = ('per_dim', 'n_step')
LOSSES = [
    # settings of the loss, each with the other target too
    ('loss.error=squared',),  # the defaults
    ('loss.error=cross_entropy', 'loss.smoothing=0.1'),
    ('loss.error=hl_gauss', 'model.atoms=11', 'model.output_bias=1'),
    ('loss.conservative=per_bin',),
    ('loss.conservative=softmax',),
    ('loss.monte_carlo=false',),
]
EVERY_LOSS = pytest.mark.parametrize(
    'loss',
    [(*loss, f'loss.target={target}') for loss in LOSSES for target in TARGETS],
    ids=' '.join,
)
EVERY_TARGET = pytest.mark.parametrize('target', TARGETS)


@pytest.fixture
def write(tmp_path):
    """Write a cache of episodes with these outcomes; `reward` replaces the rows' rewards."""

    def make(outcomes, lengths=(5, 4), reward=None):
        episodes = random_episodes(lengths, outcomes, seed=3)
        for episode, values in zip(episodes, reward or (), strict=False):
            episode['reward'] = np.array(values, np.float32)
        return write_cache(tmp_path / f'cache{len(list(tmp_path.iterdir()))}', episodes)

    return make


def loss_of(learner, batch):
    """Return the loss, its parts, and its gradient as one vector."""
    learner.model.zero_grad()
    loss, figures = batch_loss(learner.model, learner.target, batch, learner.config.loss)
    loss.backward()
    gradient = torch.cat(
        [p.grad.flatten() for p in learner.model.parameters() if p.grad is not None]
    )
    parts = {name: float(figures[name]) for name in ('td', 'conservative')}
    return SimpleNamespace(loss=loss.item(), gradient=gradient, **parts)


def segments(data, episodes, first):
    number = len(episodes)
    return data.gather(np.array(episodes), np.array(first), np.zeros((1, number, 2), int))


# 1 ----------------------------------------------------------------------------------------------


@EVERY_LOSS
def test_1_a_different_reward_changes_the_loss(write, small_config, loss):
    outcomes = ('failure', 'failure')
    found = []
    for last in (0.0, 0.4):
        cache = write(outcomes, reward=[[0, 0, 0, 0, last], [0, 0, 0, last]])
        data, learner = make(cache, small_config(*loss))
        found.append(loss_of(learner, segments(data, [0, 1], [1, 0])))
    assert found[0].td != found[1].td
    assert not torch.allclose(found[0].gradient, found[1].gradient)


# 2 ----------------------------------------------------------------------------------------------


@EVERY_LOSS
def test_2_terminated_stops_the_bootstrap_and_truncated_does_not(write, small_config, loss):
    """What the networks see behind a row matters, unless the row is the task's own end."""
    for outcome, matters in (('failure', False), ('timeout', True)):
        data, learner = make(write((outcome, outcome)), small_config(*loss))
        for first in (0, 1):  # the segment's last row is the episode's last but one, or its last
            batch = segments(data, [0], [first])
            ends = first == 1
            assert bool(batch.terminated[0, -1]) == (ends and outcome == 'failure')
            # As if the recording had gone on behind a time-out: nothing but an end may stop it.
            batch = dataclasses.replace(batch, has_next=torch.ones_like(batch.has_next),
                                        present=torch.ones_like(batch.present))  # fmt: skip
            state = batch.state.clone()
            state[:, -1] += 3.0
            other = dataclasses.replace(batch, state=state)
            change = abs(loss_of(learner, other).td - loss_of(learner, batch).td)
            assert (change > 1e-8) == (matters or not ends)


@EVERY_TARGET
def test_2_a_time_out_without_a_next_observation_has_no_target_instead_of_zero(
    write, small_config, target
):
    settings = (
        f'loss.target={target}',
        'loss.monte_carlo=false',
        'data.segment=1',
        'data.batch=1',
    )
    td = {}
    for outcome in ('failure', 'timeout'):
        data, learner = make(write((outcome, outcome)), small_config(*settings))
        found = loss_of(learner, segments(data, [0], [4]))
        assert found.conservative > 0
        td[outcome] = found.td
    # Of a time-out only dimensions that look at their own step remain: none with n-step.
    assert td['failure'] > 0
    assert td['timeout'] != td['failure']
    assert (td['timeout'] == 0) == (target == 'n_step')


# 3 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('window', [1, 3])
def test_3_acting_gives_the_bins_of_the_uncached_teacher_forced_argmax_chain(
    write, small_config, window
):
    """A policy with all its caches, over an episode, against windows built from scratch."""
    cache = write(('failure', 'success'), (7, 4))
    data, learner = make(cache, small_config(f'model.window={window}', 'data.shift_px=0'))
    model, frames = learner.target.eval(), data.caches[0].images['front']
    state = data.caches[0].state
    policy = Policy(model, data.signature)
    policy.reset('go left')
    text = torch.from_numpy(data.embeddings[data.instructions.index('go left')])[None]
    for row in range(7):
        decision = policy.act(SimpleNamespace(images={'front': frames[row]}, state=state[row]))
        rows = np.clip(np.arange(row - window + 1, row + 1), 0, None)
        present = torch.arange(row - window + 1, row + 1)[None] >= 0
        with torch.no_grad():
            tokens = model.encode_frames(
                {'front': torch.from_numpy(frames[rows])},
                torch.from_numpy(state[rows]),
                text.expand(window, -1),
            )[None]
            chain = torch.zeros(1, model.dims, dtype=torch.long)
            for dim in range(model.dims):
                q = model.q(model.logits(tokens, present, text, chain))
                chain[:, dim] = q[:, dim].argmax(-1)
        assert decision.bins.tolist() == chain[0].tolist()
        assert np.allclose(decision.q, q[0, np.arange(model.dims), chain[0]], atol=1e-5)
        # What is sent is what training would call these bins: no offset between the two.
        centres = [np.linspace(dim['low'], dim['high'], dim['bins']) for dim in policy.action]
        sent = [centre[i] for centre, i in zip(centres, decision.bins, strict=True)]
        assert np.allclose(decision.action, sent)
        assert data.signature.action.to_bins(decision.action).tolist() == chain[0].tolist()


# 4 ----------------------------------------------------------------------------------------------


@EVERY_LOSS
def test_4_the_loss_does_not_depend_on_the_batch_size(write, small_config, loss):
    data, learner = make(write(('success', 'failure')), small_config(*loss))
    one = loss_of(learner, segments(data, [0, 1], [-1, 2]))
    many = loss_of(learner, segments(data, [0, 1] * 3, [-1, 2] * 3))
    assert many.loss == pytest.approx(one.loss, rel=1e-5)
    assert torch.allclose(many.gradient, one.gradient, rtol=1e-3, atol=1e-6)
    cloning = small_config('loss.objective=cloning')
    data, learner = make(write(('success', 'failure')), cloning)
    one = loss_of(learner, segments(data, [0, 1], [-1, 2]))
    many = loss_of(learner, segments(data, [0, 1] * 3, [-1, 2] * 3))
    assert many.loss == pytest.approx(one.loss, rel=1e-5)


# 6 ----------------------------------------------------------------------------------------------


def test_6_the_conservative_term_acts_on_q_and_leaves_the_datas_bin_alone():
    """Its gradient, by hand: d/dlogit of mean(1/2 Q^2), not of logit^2."""
    counts = (5, 3, 2)
    torch.manual_seed(0)
    logits = torch.randn(6, 3, 5).masked_fill(~bin_mask(counts), -1e4).requires_grad_()
    bins = torch.stack([torch.randint(0, n, (6,)) for n in counts], dim=1)
    everything = torch.ones(6, 3, dtype=torch.bool)
    _, low = q_losses(
        logits, bins, torch.rand(6, 3), counts, td_mask=everything, row_mask=everything[:, 0]
    )
    (gradient,) = torch.autograd.grad(low, logits)
    chosen = functional.one_hot(bins, 5).bool()
    assert (gradient[chosen] == 0).all()
    q = torch.sigmoid(logits.detach())
    by_hand = q * q * (1 - q) / (torch.tensor(counts) - 1).view(1, 3, 1) / 18
    others = bin_mask(counts) & ~chosen
    assert torch.allclose(gradient[others], by_hand[others], atol=1e-7)
    assert (gradient[~bin_mask(counts).expand_as(gradient)] == 0).all()


# 7 ----------------------------------------------------------------------------------------------


def test_7_the_return_to_go_of_every_transition_equals_the_hand_computed_one(write, small_config):
    reward = [[0, 0, 0.25, 0, 0.5], [0, 0, 0, 1]]
    by_hand = [[0.09375, 0.1875, 0.375, 0.25, 0.5], [0.125, 0.25, 0.5, 1.0], [0.0, 0.0]]
    cache = write(('success', 'success', 'failure'), (5, 4, 2), reward)
    data, _ = make(cache, small_config('loss.gamma=0.5', 'data.segment=1', 'data.batch=1'))
    for episode, returns in enumerate(by_hand):
        for row, value in enumerate(returns):
            batch = segments(data, [episode], [row])
            assert batch.returns.tolist() == [[value]]
            assert batch.reward.tolist() == [[[*reward, [0, 0]][episode][row]]]


@EVERY_TARGET
def test_7_targets_are_never_below_it(write, small_config, target):
    """A network that says 0 everywhere would aim at rewards only; with returns it aims higher."""
    cache = write(('success', 'success'))
    for monte_carlo in (True, False):
        data, learner = make(
            cache,
            small_config(
                f'loss.target={target}', f'loss.monte_carlo={monte_carlo}', 'loss.gamma=0.5'
            ),
        )
        with torch.no_grad():
            for network in (learner.model, learner.target):
                network.head.zero_()
                network.bias.fill_(-40.0)
        td = loss_of(learner, segments(data, [0], [1])).td
        returns = np.array([0.125, 0.25, 0.5, 1.0]) if monte_carlo else np.array([0, 0, 0, 1.0])
        goals = np.repeat(returns[:, None], 3, axis=1)
        if target == 'per_dim' and not monte_carlo:
            goals[:, :-1] = 0  # the next dimension's best is 0 too
        assert td == pytest.approx(float((0.5 * goals**2).mean()), rel=1e-5)


# 8 ----------------------------------------------------------------------------------------------


def test_8_a_later_dimension_never_changes_an_earlier_q(write, small_config):
    """Neither in value nor by a gradient; what comes later does depend on it."""
    data, learner = make(write(('success', 'failure')), small_config('model.window=3'))
    model, batch = learner.model, segments(data, [0, 1], [0, 2])
    tokens = model.encode_frames(
        {'front': batch.images['front'][:, :3].flatten(0, 1)},
        batch.state[:, :3].flatten(0, 1),
        batch.text.repeat_interleave(3, 0),
    ).unflatten(0, (2, 3))
    counts, bins = model.counts, batch.bins[:, 0]
    before = model.logits(tokens, batch.present[:, :3], batch.text, bins)
    for dim, count in enumerate(counts):
        changed = bins.clone()
        changed[:, dim] = (bins[:, dim] + 1) % count
        after = model.logits(tokens, batch.present[:, :3], batch.text, changed)
        assert torch.equal(after[:, : dim + 1], before[:, : dim + 1])
        if dim + 1 < len(counts):
            assert not torch.allclose(after[:, dim + 1], before[:, dim + 1])
        (gradient,) = torch.autograd.grad(
            before[:, dim, :count].sum(), model.bin_table.weight, retain_graph=True
        )
        reached = gradient.abs().sum(-1) > 0
        assert not reached[sum(counts[:dim]) :].any()
        assert reached.any() == (dim > 0)


# 9 ----------------------------------------------------------------------------------------------

RANDOM = ('data.shift_px=2', 'data.color_jitter=0.2', 'data.relabel_fraction=0.3',
          'data.success_fraction=0.5', 'data.segment=2')  # fmt: skip


@pytest.mark.parametrize('settings', [(), RANDOM], ids=['plain', 'all-that-is-random'])
def test_9_training_is_deterministic_for_a_seed(cache, tmp_path, small_config, settings):
    runs = [tmp_path / name for name in 'abc']
    for run, seed in zip(runs, (1, 1, 2), strict=True):
        train([cache], run, small_config(*settings, f'optim.seed={seed}', 'optim.steps=5'))
    first, again, other = (weights(run) for run in runs)
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize('settings', [(), RANDOM], ids=['plain', 'all-that-is-random'])
def test_9_stop_and_resume_equal_an_uninterrupted_run(cache, tmp_path, small_config, settings):
    config = small_config(*settings)
    train([cache], tmp_path / 'whole', config)
    part = tmp_path / 'part'

    def stop(row):
        if row['step'] == 8:  # the checkpoint of step 6 is there, the two steps behind it are lost
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([cache], part, config, progress=stop)
    assert checkpoint.find(part).name == 'step_0000006'
    assert [row['step'] for row in read_metrics(part)] == [4, 8]
    assert train([cache], part, resume=True).steps == 12
    assert same(weights(tmp_path / 'whole'), weights(part))
    steps = [row['step'] for row in read_metrics(part)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 12
