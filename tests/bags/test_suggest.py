"""Suggested contracts for recordings as people make them: each loads and converts its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_bags import ARRAY, JOINTS, MS, T0, Bag, header, make, steady

from qt_ros.bags.converter import convert
from qt_ros.bags.guesses import words
from qt_ros.bags.suggest import suggest_contract
from qt_ros.bags.suggest_text import identifier, quoted, wrapped_list
from qt_ros.contract import Contract
from qt_ros.dataset import Dataset
from qt_ros.errors import BagError

ARM = ('shoulder', 'elbow', 'wrist')
TWIST = 'geometry_msgs/msg/Twist'


class Robot(Bag):
    """A bag of joint states on any topic; each joint swings by a sine of its own."""

    def states(
        self,
        topic: str,
        names: tuple[str, ...],
        rate_hz: float = 50.0,
        seconds: float = 5.0,
        ahead_s: float = 0.0,
        named: bool = True,
        offset_ms: float = 0.0,
    ) -> None:
        for ms in np.arange(0.0, seconds * 1000, 1000 / rate_hz):
            at_s = ms / 1000 + ahead_s
            message = make(
                JOINTS,
                header=header(T0 + round((ms + offset_ms) * MS)),
                name=list(names) if named else [],
                position=[np.sin(at_s + sum(map(ord, name))) for name in names],
            )
            self.add(topic, JOINTS, message, ms + 1)


def suggested(bag: Bag, path: Path) -> tuple[Contract, str]:
    text = suggest_contract(bag.write(path))
    return Contract.parse(text), text


def converted(path: Path, contract: Contract, out: Path) -> Dataset:
    result = convert([path], contract, out)
    assert result.status == 0, result.report
    return Dataset(out)


def test_leader_and_follower(tmp_path: Path) -> None:
    bag = Robot()
    bag.states('/follower/joint_states', ARM)
    bag.states('/leader/joint_states', ARM[::-1], ahead_s=0.1)
    contract, _ = suggested(bag, tmp_path / 'bag')
    (state,) = contract.state
    assert state.topic == '/follower/joint_states'
    # Aligned by name: in the order in which they are commanded.
    assert state.fields == tuple(f'position.{name}' for name in ARM[::-1])
    (action,) = contract.action
    assert action.topic == '/leader/joint_states'
    assert [dim.mode for dim in action.dims] == ['delta'] * 3
    for dim in action.dims:  # sin changes by at most 0.1 a tick at 10 Hz
        assert dim.high == -dim.low == pytest.approx(0.1, rel=0.1)
    rows = converted(tmp_path / 'bag', contract, tmp_path / 'out').rows(0)
    assert 45 <= len(rows['action']) <= 50
    # The first change starts from the follower, which is behind.
    assert np.abs(rows['action'][1:]).max() <= 0.11


def test_ranges_are_percentiles_of_the_changes_per_tick(tmp_path: Path) -> None:
    bag = Robot()
    # Stands still but for a slow rise: 0.01 a tick, and one jump in 500 ticks.
    values = [0.001 * n + (5.0 if n > 2500 else 0.0) for n in range(5000)]
    for n, value in enumerate(values):
        bag.joints(10 * n, value, names=('a',))
        point = make('trajectory_msgs/msg/JointTrajectoryPoint', positions=[value])
        bag.add(
            '/arm', 'trajectory_msgs/msg/JointTrajectory',
            make('trajectory_msgs/msg/JointTrajectory', header=header(T0 + 10 * n * MS),
                 joint_names=['a'], points=[point]), 10 * n,
        )  # fmt: skip
    contract, text = suggested(bag, tmp_path / 'bag')
    (dim,) = contract.dims
    assert (dim.low, dim.high) == (-0.01, 0.01)
    limit = contract.safety.limits['a']
    assert limit.position == pytest.approx((-1.0, 10.998), abs=0.1)
    assert limit.step == pytest.approx(5.01 * 1.1, rel=0.01)
    assert 'measured 0.01 to 0.01' in text


def test_an_unnamed_gripper_is_commanded_by_index(tmp_path: Path) -> None:
    bag = Robot()
    bag.states('/joint_states', ARM)
    bag.states('/joint_cmd', ARM, ahead_s=0.1)
    bag.states('/target_gripper_status', ('l', 'r'), named=False)
    contract, _ = suggested(bag, tmp_path / 'bag')
    arm, gripper = contract.action
    assert (arm.topic, arm.by_index) == ('/joint_cmd', False)
    assert (gripper.topic, gripper.by_index) == ('/target_gripper_status', True)
    assert [dim.field for dim in gripper.dims] == ['position.0', 'position.1']
    assert [dim.mode for dim in gripper.dims] == ['absolute'] * 2
    assert len(converted(tmp_path / 'bag', contract, tmp_path / 'out')) == 1


def test_a_gripper_that_is_open_or_closed_gets_two_bins(tmp_path: Path) -> None:
    bag = steady(3.0)
    contract, text = suggested(bag, tmp_path / 'bag')
    grip = contract.dims[-1]
    assert (grip.low, grip.high, grip.bins) == (0.0, 1.0, 2)
    assert 'only these two values' in text


def test_joints_in_parts_are_streams_of_their_own(tmp_path: Path) -> None:
    bag = Robot()
    bag.states('/joint_states', ARM)
    bag.states('/joint_states', ('finger',), rate_hz=20.0)
    contract, _ = suggested(bag, tmp_path / 'bag')
    assert [(s.topic, s.fields) for s in contract.state] == [
        ('/joint_states', tuple(f'position.{name}' for name in ARM)),
        ('/joint_states', ('position.finger',)),
    ]
    assert len({stream.name for stream in contract.state}) == 2
    assert len(converted(tmp_path / 'bag', contract, tmp_path / 'out')) == 1


def test_one_command_a_joint_the_surest(tmp_path: Path) -> None:
    bag = Robot()
    bag.states('/joint_states', ARM)
    bag.states('/leader/joint_states', ARM)
    bag.states('/desired_joints', ARM)
    bag.states('/arm/command', ARM)
    for ms in range(0, 5000, 100):
        bag.add('/cmd_vel', TWIST, make(TWIST), ms)
    contract, text = suggested(bag, tmp_path / 'bag')
    assert [action.topic for action in contract.action] == ['/arm/command']
    spare = text[text.index('Recorded too') :].split('\n')[0]
    assert all(name in spare for name in ('/leader/joint_states', '/desired_joints', '/cmd_vel'))


def test_a_mobile_base_alone_is_commanded_by_velocity(tmp_path: Path) -> None:
    bag = Robot()
    pose = 'geometry_msgs/msg/PoseStamped'
    for ms in range(0, 5000, 20):
        point = make('geometry_msgs/msg/Point', x=ms / 1000)
        at = make('geometry_msgs/msg/Pose', position=point)
        bag.add('/robot_pose', pose, make(pose, header=header(T0 + ms * MS), pose=at), ms)
        linear = make('geometry_msgs/msg/Vector3', x=float(np.sin(ms / 500)))
        bag.add('/cmd_vel', TWIST, make(TWIST, linear=linear), ms)
    contract, _ = suggested(bag, tmp_path / 'bag')
    assert [stream.topic for stream in contract.state] == ['/robot_pose']
    (action,) = contract.action
    assert {dim.mode for dim in action.dims} == {'velocity'}
    assert action.dims[0].high == pytest.approx(1.0, abs=0.05)
    assert len(converted(tmp_path / 'bag', contract, tmp_path / 'out')) == 1


def test_no_commands_leave_the_next_state_without_wheels_and_what_stands_still(
    tmp_path: Path,
) -> None:
    bag = Robot()
    for n in range(250):
        message = make(
            JOINTS, header=header(T0 + n * 20 * MS), name=['arm', 'wheel_left', 'stuck'],
            position=[np.sin(n / 50), n / 10, 1.5],
        )  # fmt: skip
        bag.add('/joint_states', JOINTS, message, 20 * n)
    contract, text = suggested(bag, tmp_path / 'bag')
    assert [(a.source, [d.name for d in a.dims]) for a in contract.action] == [
        ('next_state', ['arm'])
    ]
    assert 'left out: a wheel' in text
    assert 'left out: it did not move' in text
    assert len(converted(tmp_path / 'bag', contract, tmp_path / 'out').rows(0)['action']) > 40


@pytest.mark.parametrize(
    ('joints_ms', 'camera_ms', 'clock', 'why'),
    [
        (0, 0, 'header', 'agree with each other'),
        (540_000, 0, 'log', 'do not agree'),
        (540_000, 540_000, 'log', 'not with log time'),
        (-T0 / MS + 5_000, -T0 / MS + 5_000, 'header', 'simulation time'),
    ],
)
def test_the_clock(
    tmp_path: Path, joints_ms: float, camera_ms: float, clock: str, why: str
) -> None:
    bag = Robot()
    for ms in range(0, 3000, 50):
        bag.joints(ms + joints_ms, 0.001 * ms, log_ms=ms)
        bag.image(ms + camera_ms, 9, log_ms=ms)
    contract, text = suggested(bag, tmp_path / 'bag')
    assert contract.clock == clock
    assert why in text
    assert len(converted(tmp_path / 'bag', contract, tmp_path / 'out')) == 1


def test_a_slow_camera_sets_the_pace_and_the_age(tmp_path: Path) -> None:
    bag = Robot()
    bag.states('/joint_states', ARM, seconds=20)
    for ms in range(0, 20_000, 400):  # 2.5 Hz
        bag.image(ms, 9)
    contract, _ = suggested(bag, tmp_path / 'bag')
    assert contract.rate_hz == 2.0
    assert contract.cameras[0].max_age_s == 1.2
    rows = converted(tmp_path / 'bag', contract, tmp_path / 'out').rows(0)
    assert len(rows['action']) >= 38


def test_a_long_recording_is_looked_at_in_several_places(tmp_path: Path) -> None:
    """Half an hour at 10 Hz: differences must not be taken across the places left out."""
    bag = Robot()
    for n in range(18_000):
        bag.joints(100 * n, 0.01 * n, names=('a',))
    contract, _ = suggested(bag, tmp_path / 'bag')
    assert contract.dims[0].high == pytest.approx(0.01)


def test_too_short_is_said_at_the_top(tmp_path: Path) -> None:
    bag = Robot()
    bag.joints(0, 1.0)
    bag.arm(1, 1.0)
    _, text = suggested(bag, tmp_path / 'bag')
    assert 'NOTHING CAN BE CONVERTED' in text.split('\n')[1]
    _, text = suggested(steady(3.0), tmp_path / 'long')
    assert 'NOTHING' not in text


def test_names_that_yaml_or_a_contract_would_not_take(tmp_path: Path) -> None:
    names = ('1', 'on', 'a: b', 'käse', '[x]', '#', 'a"b\\', 'Terminate', 'terminate', 'A', 'a')
    bag = Robot()
    bag.states('/joint_states', names)
    bag.states('/joint_states_cmd', names)
    contract, _ = suggested(bag, tmp_path / 'bag')
    assert contract.state[0].fields == tuple(f'position.{name}' for name in names)
    assert [dim.field for dim in contract.dims] == [f'position.{name}' for name in names]
    assert len({dim.name.lower() for dim in contract.dims}) == len(names)
    assert len(converted(tmp_path / 'bag', contract, tmp_path / 'out')) == 1


def test_nothing_to_see_is_refused(tmp_path: Path) -> None:
    bag = Bag()
    bag.grip(0, 1.0)
    bag.add('/text', 'std_msgs/msg/String', make('std_msgs/msg/String'), 1)
    with pytest.raises(BagError, match='/text'):
        suggest_contract(bag.write(tmp_path / 'bag'))


def test_an_array_may_be_the_state_where_there_is_no_better(tmp_path: Path) -> None:
    bag = Bag()
    for ms in range(0, 3000, 20):
        bag.add('/arm/state', ARRAY, make(ARRAY, data=[np.sin(ms / 500), 1.0]), ms)
        bag.add('/arm/action', ARRAY, make(ARRAY, data=[np.sin(ms / 500)]), ms)
    contract, _ = suggested(bag, tmp_path / 'bag')
    assert contract.state[0].fields == ('0', '1')
    assert contract.action[0].topic == '/arm/action'
    assert contract.dims[0].mode == 'absolute'
    assert len(converted(tmp_path / 'bag', contract, tmp_path / 'out')) == 1


@pytest.mark.parametrize(
    'name', ['abitobot', *(f'teleop_rigs/rig_{n}.mcap' for n in (0, 1, 6, 7))]
)
def test_the_shared_recordings(real_bags: Path, tmp_path: Path, name: str) -> None:
    text = suggest_contract(real_bags / name)
    contract = Contract.parse(text)
    measured = {field for stream in contract.state for field in stream.fields}
    for action in contract.action:
        assert action.by_index or {dim.field for dim in action.dims} <= measured
    if name == 'abitobot':
        converted(real_bags / name, contract, tmp_path / 'out')
        assert not any('wheel' in dim.name for dim in contract.dims)
    else:
        assert 'NOTHING CAN BE CONVERTED' in text
        assert convert([real_bags / name], contract, tmp_path / 'out').status == 1
    if name.endswith(('rig_1.mcap', 'rig_6.mcap')):
        assert contract.action[-1].topic == '/io_teleop/target_gripper_status'
        assert contract.action[-1].by_index


def test_words_and_names() -> None:
    assert words('/interaction/satisfaction') == {'interaction', 'satisfaction'}
    assert words('/robot1/jointCmd_raw') == {'robot1', 'joint', 'cmd', 'raw'}
    assert identifier('/3d/arm-left') == '_3d_arm_left'
    assert [quoted(text) for text in ('a.b/c', 'on', '1', 'a b')] == [
        'a.b/c',
        '"on"',
        '"1"',
        '"a b"',
    ]
    lines = wrapped_list('  f: [', [(['x' * 30] * 4, ''), (['z'], 'why')])
    assert all(len(line) <= 99 for line in lines)
    assert lines[-2:] == ['      # why', '      z]']
