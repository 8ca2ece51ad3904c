"""The block study's episodes with the truth in place of images: the same ones, row by row."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('mujoco', reason='the simulated robot is not installed')

from bench.learning.block import PLANS, QUICK_PLAN, make_data
from bench.learning.true_state import SeeingEnv, TruePolicy, make_arrays, true_state
from qt_ros.sim.expert import ArmState, Expert
from qt_ros.sim.rollout import evaluate
from qt_ros.sim.tasks import parse
from training.cache import Cache

PICK = 'pick up the red block'


def test_the_episodes_are_those_of_the_block_study(tmp_path):
    plans = dict.fromkeys(PLANS, QUICK_PLAN)
    make_data(plans, 3, tmp_path)
    cache, arrays = Cache.open(tmp_path / 'train'), make_arrays(plans, 3)
    joints = cache.state.shape[1]
    np.testing.assert_array_equal(arrays['state'][:, :joints], cache.state)
    np.testing.assert_array_equal(arrays['action'], cache.action)
    for name in ('reward', 'terminated', 'truncated'):
        np.testing.assert_array_equal(arrays[name], getattr(cache, name))
    which = arrays['state'][:, joints + 21 :]
    for episode in cache.meta.episodes:
        rows = slice(episode.start, episode.stop)
        np.testing.assert_array_equal(which[rows].argmax(1), episode.instruction)
    assert set(np.unique(which)) == {0.0, 1.0}
    assert (which.sum(1) == 1).all()


def test_the_poses_are_of_the_tick_and_not_of_another():
    env, expert = SeeingEnv(), Expert(seed=1)
    env.reset(PICK, 40)
    expert.reset(parse(PICK), env.world.joint_positions)
    for _ in range(12):
        np.testing.assert_array_equal(env.poses[-1], env.world.truth().ravel())
        env.step(env.full_targets(expert.act(env.arm_state())))
    assert len(env.poses) == 13
    env.reset(PICK, 41)
    assert len(env.poses) == 1
    assert env.contract.cameras == ()


class Seer:
    """Stands where an algorithm would: acts by what the state says, as the expert would."""

    def __init__(self, env: SeeingEnv) -> None:
        self.env, self.expert, self.shown = env, Expert(seed=2, jitter=0.0), []

    def predict(self, states: np.ndarray) -> np.ndarray:
        self.shown.append(states)
        poses = states[0, 13:34].astype(np.float64).reshape(3, 7)
        if self.env.step_count == 0:
            self.expert.reset(parse(PICK), self.env.world.joint_positions)
        now = self.env.arm_state()
        seen = ArmState(now.positions, now.reference, now.opening, poses)
        targets = self.expert.act(seen)
        step = targets[:6] - self.env.targets[:6]
        return np.append(step, 0.4 + 0.2 * targets[6])[None]  # a gripper that is not sure


def test_a_policy_that_sees_the_state_can_solve_the_task():
    env = SeeingEnv()
    seer = Seer(env)
    policy = TruePolicy(seer, env, ('put the red block in the bin', PICK))
    results = evaluate(policy, env.contract, [PICK], 4, 7000, 60, env=env)
    assert sum(result.success for result in results) >= 3
    assert all(shown.shape == (1, 36) and shown.dtype == np.float32 for shown in seer.shown)
    assert all((shown[0, -2:] == (0, 1)).all() for shown in seer.shown)


def test_actions_stay_in_range_and_a_gripper_of_two_bins_takes_one():
    class Wild:
        def predict(self, states: np.ndarray) -> np.ndarray:
            return np.array([[9.0, -9.0, 0.01, 0.0, 0.0, 0.0, 0.49]])

    env = SeeingEnv()
    observation = env.reset(PICK, 5)
    policy = TruePolicy(Wild(), env, (PICK,))
    policy.reset(PICK)
    np.testing.assert_allclose(
        policy.act(observation).action, [0.15, -0.15, 0.01, 0.0, 0.0, 0.0, 0.0]
    )


@pytest.mark.parametrize('tasks', [1, 3])
def test_which_instruction_is_meant_comes_last(tasks):
    state = true_state(np.ones((4, 2)), np.full((4, 21), 2.0), tasks - 1, tasks)
    assert state.shape == (4, 23 + tasks)
    np.testing.assert_array_equal(state[0], [1.0] * 2 + [2.0] * 21 + [0.0] * (tasks - 1) + [1.0])
