"""Scripted operators: they work, they stay within their limits, and the clumsy one fails."""

import numpy as np
import pytest

from qt_ros.errors import SimError
from qt_ros.sim.expert import MODES, STEP_LIMITS, ArmState, Expert, make_operator
from qt_ros.sim.ik import ArmKinematics
from qt_ros.sim.scene import HOME, JOINT_RANGES
from qt_ros.sim.tasks import KINDS, TASKS, Task, parse
from qt_ros.sim.world import BlockWorld


@pytest.fixture(scope='module')
def world():
    return BlockWorld()


def state_of(world):
    return ArmState(world.joint_positions, world.arm_reference, world.gripper, world.truth())


def attempt(world, operator, task, seed, ticks=100, done_by=None):
    """Drive one attempt at 10 Hz, commands 30 ms late; return success and targets (T + 1, 7)."""
    world.reset(task.instruction, seed)
    operator.reset(done_by or task, world.joint_positions)
    targets = [np.append(world.joint_positions, 1.0)]
    while len(targets) <= ticks and not world.success() and not operator.finished:
        targets.append(operator.act(state_of(world)))
        world.advance(6)
        world.set_arm_target(targets[-1][:6], 0.1)
        world.set_gripper(targets[-1][6])
        world.advance(14)
    return world.success(), np.array(targets)


@pytest.mark.parametrize('kind', KINDS)
def test_the_expert_does_what_it_is_told(world, kind):
    tasks = [task for task in TASKS if task.kind == kind]
    expert = Expert(seed=1)
    done = [attempt(world, expert, tasks[i % len(tasks)], 50 + i)[0] for i in range(12)]
    assert sum(done) >= 11


def test_doing_it_with_the_wrong_block_does_not_count(world):
    task, wrong = Task('pick', 'red'), Task('pick', 'blue')
    assert not any(attempt(world, Expert(), task, i, 40, wrong)[0] for i in range(4))


def test_a_clumsy_operator_mostly_fails_and_ends_its_attempts(world):
    operator = make_operator('noisy', 3)
    done = 0
    for seed in range(30):
        success, targets = attempt(world, operator, parse('push the red block to the left'), seed)
        done += success
        assert len(targets) < 60
    assert 1 <= done <= 20


@pytest.mark.parametrize('mode', MODES)
def test_targets_stay_within_steps_and_ranges(world, mode):
    operator = make_operator(mode, 0)
    low, high = np.array([*JOINT_RANGES.values()]).T
    for seed, task in enumerate(TASKS[::5]):
        _, targets = attempt(world, operator, task, seed, ticks=60)
        assert np.isfinite(targets).all()
        assert (np.abs(np.diff(targets[:, :6], axis=0)) <= np.array(STEP_LIMITS) + 1e-12).all()
        assert ((targets[1:, :6] >= low) & (targets[1:, :6] <= high)).all()
        assert set(targets[:, 6]) <= {0.0, 1.0}


def test_a_random_walk_scores_nothing(world):
    operator = make_operator('random', 0)
    assert not any(attempt(world, operator, task, 9, 40)[0] for task in TASKS[:9])


@pytest.mark.parametrize('mode', MODES)
def test_the_same_seed_makes_the_same_moves(world, mode):
    task = parse('stack the red block on the blue block')
    first, second = (attempt(world, make_operator(mode, 4), task, 8, 15)[1] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_unknown_modes_are_refused():
    with pytest.raises(SimError, match='allowed: expert, noisy, random'):
        make_operator('expret', 0)


def test_an_expert_without_a_task_says_so(world):
    with pytest.raises(SimError, match='call reset first'):
        Expert().act(state_of(world))


def test_kinematics_reach_a_pose_and_report_it():
    arm = ArmKinematics(STEP_LIMITS)
    position, yaw = arm.tool(HOME)
    np.testing.assert_allclose(position, (0.28, 0.0, 0.24), atol=1e-3)
    assert yaw == pytest.approx(0.0, abs=1e-6)
    joints = HOME
    for _ in range(30):
        joints = arm.step(joints, np.array([0.3, -0.2, 0.1]), 0.5)
    position, yaw = arm.tool(joints)
    np.testing.assert_allclose(position, (0.3, -0.2, 0.1), atol=1e-3)
    assert yaw == pytest.approx(0.5, abs=5e-3)


def test_kinematics_stay_calm_where_the_arm_cannot_reach():
    arm = ArmKinematics(STEP_LIMITS)
    low, high = np.array([*JOINT_RANGES.values()]).T
    joints = np.clip(HOME + 10.0, low, high)  # every joint at its end
    for target in ((3.0, 0.0, 0.1), (0.0, 0.0, 0.0), (-0.5, 0.0, -0.3)):
        for _ in range(40):
            after = arm.step(joints, np.array(target), 0.0)
            assert (np.abs(after - joints) <= np.array(STEP_LIMITS) + 1e-12).all()
            assert ((after >= low) & (after <= high)).all()
            joints = after
