"""Meta-World as a study: what a policy is shown, what the data say, how a policy is judged."""

from __future__ import annotations

import sys
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('metaworld', reason="Meta-World is not installed (extra 'metaworld')")

from bench.learning.metaworld import PER_SEED, PER_TASK, QUICK_PLAN, STARTS, drive, judge, study
from bench.learning.metaworld_data import Plan, attempt, episodes, write_cache
from bench.learning.metaworld_env import ACTION, CAMERAS, INSTRUCTIONS, MAX_STEPS, MetaWorld
from bench.learning.study import LearningError, load_study
from training.cache import Cache

TASKS = tuple(INSTRUCTIONS)


@cache
def blind() -> MetaWorld:
    """Return an environment that draws nothing, which makes it fast."""
    return MetaWorld(cameras=False)


def by_expert(env: MetaWorld, task: str, seed: int):
    return attempt(env, task, seed, lambda _: env.expert_action(), MAX_STEPS)


class Scripted:
    """A policy that asks `decide` for its action."""

    def __init__(self, decide) -> None:
        self.decide, self.told = decide, []

    def reset(self, instruction: str) -> None:
        self.told.append(instruction)

    def act(self, observation) -> SimpleNamespace:
        return SimpleNamespace(action=self.decide(observation))


@pytest.mark.parametrize('task', TASKS)
def test_the_expert_does_every_task_in_whole_bins(task):
    # Two starts of three: one in a dozen of these experts' attempts at pushing fails.
    tries = [by_expert(blind(), task, seed) for seed in (11, 12, 13)]
    assert sum(episode.success for episode in tries) >= 2
    for episode in tries:
        assert len(episode.seen) == len(episode.action) <= MAX_STEPS
        np.testing.assert_array_equal(
            ACTION.to_values(ACTION.to_bins(episode.action)), episode.action
        )


@pytest.mark.parametrize('task', TASKS)
def test_doing_nothing_fails_every_task_and_takes_all_the_time(task):
    policy = Scripted(lambda _: np.zeros(4))
    assert drive(policy, blind(), task, 21) is None
    assert blind().step_count == MAX_STEPS
    assert policy.told == [INSTRUCTIONS[task]]


def test_a_policy_is_shown_two_images_and_the_hand_and_nothing_else():
    env = MetaWorld()
    first = env.reset('push-v3', 5)
    assert {name: image.shape for name, image in first.images.items()} == {
        name: (*size, 3) for name, size in CAMERAS.items()
    }
    assert all(image.dtype == np.uint8 and image.std() > 5 for image in first.images.values())
    assert first.state.shape == (4,)
    other = env.reset('push-v3', 6)
    # The hand starts nearly alike wherever puck and goal are; only the images tell them apart.
    np.testing.assert_allclose(first.state, other.state, atol=0.01)
    assert any(not np.array_equal(first.images[name], other.images[name]) for name in CAMERAS)
    again = env.reset('push-v3', 5)
    np.testing.assert_array_equal(first.state, again.state)
    for name in CAMERAS:
        np.testing.assert_array_equal(first.images[name], again.images[name])
    env.close()


def test_the_hand_goes_where_it_is_told():
    env = blind()
    for axis in range(2):  # the table is in the way of the third
        there = []
        for sign in (-1.0, 1.0):
            env.reset('reach-v3', 3)
            for _ in range(10):
                seen = env.step(sign * np.eye(4)[axis])
            there.append(seen.state[axis])
        assert there[1] - there[0] > 0.1


@pytest.mark.parametrize('task', ['drawer-open-v3', 'pick-place-v3'])
def test_a_replay_without_noise_is_the_demonstration(task):
    original = by_expert(blind(), task, 31)
    assert original.success
    again = attempt(blind(), task, 31, original.action.__getitem__, len(original.action))
    assert again.success
    for one, two in zip(original.seen, again.seen, strict=True):
        np.testing.assert_array_equal(one.state, two.state)


def test_episodes_are_as_planned_and_the_same_again():
    plan = Plan(demonstrations=2, failures=5)

    def make(seed: int) -> list:
        return list(episodes(blind(), 'drawer-open-v3', plan, 40, np.random.default_rng(seed)))

    made, same, other = make(1), make(1), make(2)
    assert [episode.success for episode in made] == [True] * 2 + [False] * 5
    for one, two in zip(made, same, strict=True):
        np.testing.assert_array_equal(one.action, two.action)
        np.testing.assert_array_equal(one.seen[-1].state, two.seen[-1].state)
    assert not np.array_equal(made[-1].action, other[-1].action)
    # Replays take the starts in turn, and end with their demonstration at the latest.
    for number, episode in enumerate(made[2:]):
        lengths = [len(demonstration.action) for demonstration in made[:2]]
        assert len(episode.action) in lengths, number


def test_noise_that_never_fails_and_unknown_tasks_are_refused():
    with pytest.raises(LearningError, match='use more noise'):
        list(episodes(blind(), 'reach-v3', Plan(1, 1, 0.0, 0.0), 3, np.random.default_rng(0)))
    with pytest.raises(LearningError, match=r"'fly-v3'; known: reach-v3, push-v3"):
        blind().reset('fly-v3', 0)


def test_without_meta_world_the_study_can_be_told_of_but_not_run(monkeypatch):
    monkeypatch.setitem(sys.modules, 'metaworld.env_dict', None)  # as if not installed
    assert load_study('metaworld').title
    with pytest.raises(LearningError, match=r"pip install 'q-transformer-ros\[metaworld\]'"):
        MetaWorld(cameras=False).reset('reach-v3', 0)


def test_the_cache_tells_success_from_running_out_of_time(tmp_path):
    tasks = ('reach-v3', 'drawer-close-v3')
    write_cache(tmp_path / 'train', Plan(1, 2), tasks, 100, 1000, 0)
    cache = Cache.open(tmp_path / 'train')
    assert cache.meta.instructions == tuple(INSTRUCTIONS[task] for task in tasks)
    outcomes = [episode.outcome for episode in cache.episodes]
    assert outcomes == ['success', 'timeout', 'timeout'] * 2
    for episode in cache.episodes:
        rows = slice(episode.start, episode.stop)
        good, last = episode.outcome == 'success', np.arange(episode.length) == episode.length - 1
        np.testing.assert_array_equal(cache.reward[rows], last * good)
        np.testing.assert_array_equal(cache.terminated[rows], last * good)
        np.testing.assert_array_equal(cache.truncated[rows], last * (not good))
    assert {name: images.shape[1:3] for name, images in cache.images.items()} == CAMERAS


def test_a_policy_is_judged_by_successes_and_their_length():
    env = blind()
    steps = drive(Scripted(lambda _: env.expert_action()), env, 'drawer-close-v3', 7)
    assert steps is not None
    assert 0 < steps < MAX_STEPS


def test_no_evaluation_starts_where_data_came_from():
    seeds = 100
    assert len(TASKS) * PER_TASK <= PER_SEED
    assert (1 + seeds) * PER_SEED + PER_SEED < STARTS


def test_the_study_runs_through(tmp_path):
    from training.config import load_config
    from training.train import train

    quick = load_study('metaworld', quick=True)
    names = {method.name for method in study().methods}
    assert {'q_transformer', 'bc_all', 'bc_successes'} <= names
    assert quick.recipe.startswith(str(QUICK_PLAN))
    quick.make_data(0, tmp_path)
    config = load_config(quick.preset, [*quick.overrides, 'optim.steps=2', 'optim.seed=0'])
    train([tmp_path / 'train'], tmp_path / 'run', config)
    rows = judge(('reach-v3',), 1, tmp_path / 'run', tmp_path, 0)
    assert [set(row) for row in rows] == [set(quick.columns)]
    assert (rows[0]['task'], rows[0]['episodes']) == ('reach', 1)
