"""The robot in process: ticks, ages, limits, evaluation and demonstrations."""

from dataclasses import replace

import numpy as np
import pytest

from qt_ros.contract import Contract
from qt_ros.errors import SimError
from qt_ros.resources import resource
from qt_ros.sim import sensors
from qt_ros.sim.demonstrations import collect_episodes
from qt_ros.sim.env import BlockArmEnv
from qt_ros.sim.rollout import Action, ExpertPolicy, RandomPolicy, evaluate

PUSHES = ('push the red block to the left', 'push the red block to the right')


@pytest.fixture(scope='module')
def contract():
    return Contract.load(resource('config/robots/block_arm.yaml'))


@pytest.fixture(scope='module')
def env(contract):
    return BlockArmEnv(contract)


@pytest.mark.parametrize('rate_hz', [5.0, 10.0, 15.0, 30.0])
def test_observations_are_of_their_tick_and_never_from_the_future(contract, rate_hz):
    env = BlockArmEnv(replace(contract, rate_hz=rate_hz), latency_s=0.01)
    for seed in range(3):
        observation = env.reset(PUSHES[0], seed)
        for k in range(12):
            assert observation.t_ns == env.contract.tick_ns(env.t0_ns, k)
            assert all(observation.valid.values())
            for stream, stamp_ns in observation.stamps_ns.items():
                period_ns = sensors.STATE_PERIOD_NS
                if stream in ('front', 'wrist'):
                    period_ns = sensors.CAMERA_PERIOD_NS
                assert 0 <= observation.t_ns - stamp_ns < period_ns
            observation = env.step(env.targets)


def test_images_are_as_old_as_on_the_live_robot(env):
    ages = set()
    for seed in range(40):
        observation = env.reset(PUSHES[0], seed)
        ages.add((observation.t_ns - observation.stamps_ns['front']) // 1_000_000)
    assert min(ages) <= 10
    assert max(ages) >= 35


def test_a_command_takes_effect_only_after_its_latency(contract):
    env = BlockArmEnv(contract, latency_s=0.09)
    env.reset(PUSHES[0], 0)
    before = env.world.arm_reference
    targets = env.targets + 0.05
    env.step(targets)
    moved = env.world.arm_reference - before
    np.testing.assert_allclose(moved, 0.005, atol=1e-4)  # 10 of 100 ms


@pytest.mark.parametrize('latency_s', [-0.01, 0.1, 5.0])
def test_impossible_latencies_are_refused(contract, latency_s):
    with pytest.raises(SimError, match='allowed: 0 to less than'):
        BlockArmEnv(contract, latency_s=latency_s)


def test_another_robots_contract_is_refused_with_every_problem(contract):
    camera = replace(contract.cameras[0], topic='/top/image')
    dims = (replace(contract.action[0].dims[0], field='hip'), *contract.action[0].dims[1:])
    arm = replace(contract.action[0], dims=dims)
    wrong = replace(contract, cameras=(camera,), action=(arm, contract.action[1]))
    with pytest.raises(SimError) as error:
        BlockArmEnv(wrong)
    assert len(error.value.problems) == 2
    assert '/top/image' in str(error.value)
    assert 'hip' in str(error.value)


def test_targets_pass_the_limiter(env):
    env.reset(PUSHES[0], 0)
    before = env.targets
    env.step(before + np.array([9.0] * 6 + [0.0]))
    assert env.limited.reasons[0] != ''
    assert (env.targets[:6] - before[:6] <= 0.4).all()
    env.step(np.full(7, np.nan))
    assert np.isfinite(env.targets).all()


def test_the_same_seed_gives_the_same_observations(contract, env):
    other = BlockArmEnv(contract)
    other.reset(PUSHES[1], 99)  # another past and another time must not matter
    runs = []
    for each in (env, other):
        observation = each.reset(PUSHES[0], 7)
        for _ in range(3):
            observation = each.step(each.targets + 0.02)
        runs.append(observation)
    np.testing.assert_array_equal(runs[0].state, runs[1].state)
    np.testing.assert_array_equal(runs[0].images['front'], runs[1].images['front'])


def test_evaluation_tells_an_expert_from_noise(contract, env):
    seen = []
    good = evaluate(ExpertPolicy(env), contract, PUSHES, 6, 100, 60, seen.append, env=env)
    bad = evaluate(RandomPolicy(env), contract, PUSHES, 4, 100, 30, env=env)
    assert sum(result.success for result in good) >= 5
    assert not any(result.success for result in bad)
    assert seen == good
    assert [result.seed for result in good] == [100, 101, 102, 103, 104, 105]
    assert [result.instruction for result in good] == [*PUSHES] * 3
    assert all(result.steps == 30 and result.ended == 'timeout' for result in bad)


class Quitter:
    """Says at once that it is done."""

    def reset(self, instruction):
        self.instruction = instruction

    def act(self, observation):
        return Action(np.array([0.0] * 6 + [1.0, 1.0]))


def test_a_policy_may_end_its_episode(contract):
    ending = replace(contract, terminate_bins=2)
    (result,) = evaluate(Quitter(), ending, PUSHES[:1], 1, 0)
    assert (result.steps, result.ended, result.success) == (1, 'terminated', False)


def test_nothing_to_evaluate_is_refused(contract, env):
    with pytest.raises(SimError, match='at least one instruction'):
        evaluate(RandomPolicy(env), contract, [], 3, 0, env=env)
    with pytest.raises(SimError, match='unknown instruction'):
        evaluate(RandomPolicy(env), contract, ['dance'], 0, 0, env=env)


def test_demonstrations_obey_the_rules_of_the_converter(contract):
    episodes = [*collect_episodes(contract, PUSHES, 4, 0.0, 10)]
    assert [episode.outcome for episode in episodes] == ['success'] * 4
    low = np.array([dim.low for dim in contract.action_dims])
    high = np.array([dim.high for dim in contract.action_dims])
    for episode in episodes:
        assert episode.problems() == []
        # The first command counts from what was measured at tick 0: that far it may be off.
        assert (episode.action >= low - 1e-3).all()
        assert (episode.action <= high + 1e-3).all()
        frames = np.stack([*episode.images['front']()])
        assert frames.shape == (len(episode), 64, 64, 3)
        assert frames[0].std() > 10
        stamps = episode.stamps_ns['front']
        assert (np.diff(stamps) == contract.period_ns).all()
        # Deltas add up to what the controller was told: with 30 ms latency, and 100 ms to get
        # there, its reference at a tick lies between the last two targets.
        start = episode.state[0, :6].astype(float)
        told = start + np.cumsum(episode.action[:, :6], axis=0)
        reference = episode.state[2:, 7:13]
        assert np.abs(reference - told[1:-1]).max() < 0.15


def test_failed_attempts_are_labelled_as_such(contract):
    outcomes = {episode.outcome for episode in collect_episodes(contract, PUSHES, 10, 1.0, 30)}
    assert 'failure' in outcomes
    assert outcomes <= {'success', 'failure', 'timeout'}


def test_a_terminate_dimension_is_set_on_the_last_row_of_a_success(contract):
    ending = replace(contract, terminate_bins=2)
    (episode,) = collect_episodes(ending, PUSHES[:1], 1, 0.0, 10)
    assert episode.action.shape[1] == len(ending.dims) == 8
    assert episode.action[:-1, 7].max() == 0
    assert episode.action[-1, 7] == 1


def test_an_attempt_that_takes_too_long_is_a_timeout(contract):
    (episode,) = collect_episodes(contract, PUSHES[:1], 1, 0.0, 10, max_steps=5)
    assert episode.outcome == 'timeout'
    assert len(episode) == 5
