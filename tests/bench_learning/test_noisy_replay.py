"""Noisy replays: the share of successes, the same again for a seed, and where they start."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('mujoco', reason='the simulated robot is not installed')

from bench.learning.block import contract
from bench.learning.noisy_replay import NoisyReplay, Plan, Recorded, noisy_replays
from bench.learning.study import LearningError
from qt_ros.sim.demonstrations import attempt
from qt_ros.sim.env import BlockArmEnv
from qt_ros.sim.expert import STEP_LIMITS, Expert

PICK = 'pick up the red block'


def replays(plan: Plan, seed: int = 0, scene: int = 40) -> list:
    return list(noisy_replays(contract(), PICK, plan, scene, seed))


@pytest.mark.parametrize(('episodes', 'share'), [(25, 0.08), (12, 0.25)])
def test_the_share_of_successes_is_the_one_wanted(episodes, share):
    plan = Plan(episodes, demonstrations=1, share=share, noise=0.3)
    made = replays(plan)
    good = sum(episode.outcome == 'success' for episode in made)
    assert 1 <= good <= plan.successes == round(share * episodes)
    assert len(made) - good == episodes - plan.successes  # every failure that was asked for
    assert all(episode.outcome in ('success', 'failure') for episode in made)


def test_the_same_seed_gives_the_same_episodes_and_another_gives_others():
    plan = Plan(4, demonstrations=1, share=0.25, noise=0.4)
    one, same, other = replays(plan, 7), replays(plan, 7), replays(plan, 8)
    for first, second in zip(one, same, strict=True):
        assert first.outcome == second.outcome
        np.testing.assert_array_equal(first.action, second.action)
        np.testing.assert_array_equal(first.state, second.state)
        for camera in first.images:
            pairs = zip(first.images[camera](), second.images[camera](), strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs)
    assert not np.array_equal(one[-1].action, other[-1].action)


def test_replays_start_in_the_scene_of_their_demonstration_and_end_with_it():
    made = replays(Plan(5, demonstrations=1, share=0.2, noise=0.4))
    demonstration, rest = made[0], made[1:]
    assert demonstration.outcome == 'success'
    for episode in rest:
        np.testing.assert_array_equal(episode.state[0], demonstration.state[0])
        assert len(episode) <= len(demonstration)


def test_without_noise_a_replay_is_the_demonstration_and_failures_are_refused():
    env, expert = BlockArmEnv(contract()), Recorded(Expert(seed=3))
    original = attempt(env, expert, PICK, 41)
    again = attempt(
        env,
        NoisyReplay(expert.commands, Plan(1, 1, noise=0.0), np.random.default_rng(0)),
        PICK,
        41,
    )
    np.testing.assert_allclose(again.action, original.action, atol=1e-6)
    assert again.outcome == original.outcome == 'success'
    with pytest.raises(LearningError, match='use more noise'):
        replays(Plan(2, demonstrations=1, share=0.5, noise=0.0))


def test_noise_never_asks_for_more_than_a_step():
    commands = [np.append(np.full(6, 0.02 * k), 1.0) for k in range(30)]
    replay = NoisyReplay(commands, Plan(1, 1, noise=5.0), np.random.default_rng(1))
    replay.reset(None, np.zeros(6))
    targets = np.array([replay.act(None) for _ in commands])
    assert replay.finished
    steps = np.diff(np.vstack([np.zeros(6), targets[:, :6]]), axis=0)
    assert (np.abs(steps) <= np.array(STEP_LIMITS) + 1e-12).all()
    assert np.abs(steps).max() > 0.1


def test_the_noise_has_the_size_and_the_correlation_of_the_plan():
    ticks, plan = 4000, Plan(1, 1, noise=0.02, correlation=0.9)
    still = [np.zeros(7)] * ticks
    replay = NoisyReplay(still, plan, np.random.default_rng(2))
    replay.reset(None, np.zeros(6))
    targets = np.array([replay.act(None)[:6] for _ in still])
    noise = np.diff(np.vstack([np.zeros(6), targets]), axis=0) / np.array(STEP_LIMITS)
    assert noise.std() == pytest.approx(0.02, rel=0.1)
    correlation = np.mean([np.corrcoef(n[:-1], n[1:])[0, 1] for n in noise.T])
    assert correlation == pytest.approx(0.9, abs=0.03)
