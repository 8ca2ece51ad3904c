"""Targets, actions and messages: there and back again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spine_messages import ROBOTS, STORE, from_ros, from_rosbags, set_array

from qt_ros.commands import (
    CommandError,
    action_from_targets,
    decode_command,
    encode_commands,
    initial_targets,
    targets_from_action,
)
from qt_ros.contract import ActionDim, ActionTopic, Contract, Episodes, Safety, StateStream

NewMessage = Callable[[str], Any]
ARM = Contract.load(ROBOTS / 'block_arm.yaml')


def contract_of(type: str, fields: list[str], mode: str = 'absolute') -> Contract:
    dims = tuple(ActionDim(f'd{i}', f, mode, -1.0, 1.0, 3) for i, f in enumerate(fields))
    action = (ActionTopic('/cmd', type, 'command', dims),)
    return Contract('c', 10.0, 'header', (), (), action, None, Episodes(), Safety())


COMMANDS = [
    ('trajectory_msgs/msg/JointTrajectory', ['arm/j.1', 'b', '0']),
    ('sensor_msgs/msg/JointState', ['position.arm/j.1', 'position.b']),
    ('sensor_msgs/msg/JointState', ['velocity.b', 'position.b', 'velocity.a', 'position.a']),
    ('std_msgs/msg/Float32MultiArray', ['1', '0', '2']),
    ('std_msgs/msg/Float64MultiArray', ['1', '0', '2']),
    ('std_msgs/msg/Float32', ['data']),
    ('std_msgs/msg/Float64', ['data']),
    ('geometry_msgs/msg/Twist', ['angular.z', 'linear.x']),
    ('geometry_msgs/msg/TwistStamped', ['angular.z', 'linear.x']),
    ('geometry_msgs/msg/PoseStamped', ['position.z', 'orientation.w', 'position.x']),
    ('control_msgs/msg/JointJog', ['velocity.b', 'velocity.a']),
    ('control_msgs/msg/JointJog', ['displacement.a/b.c', 'displacement.b']),
    ('control_msgs/msg/GripperCommand', ['position', 'max_effort']),
    ('control_msgs/action/GripperCommand_Goal', ['max_effort', 'position']),
    (
        'control_msgs/action/ParallelGripperCommand_Goal',
        ['effort.l', 'position.l', 'effort.r', 'position.r'],
    ),
]
STANDARD = [row for row in COMMANDS if not row[0].startswith('control_msgs')]


@pytest.mark.parametrize(('type', 'fields'), COMMANDS)
def test_what_is_encoded_is_decoded(new_message: NewMessage, type: str, fields: list[str]) -> None:
    contract = contract_of(type, fields)
    targets = np.array([0.5, -0.25, 0.125, 8.0])[: len(fields)]
    ((topic, msg),) = encode_commands(contract, targets, 3_000_000_007, new_message, 0.1)
    assert topic == '/cmd'
    np.testing.assert_array_equal(decode_command(contract.action[0], msg), targets)
    if hasattr(msg, 'header'):
        assert (msg.header.stamp.sec, msg.header.stamp.nanosec) == (3, 7)


@pytest.mark.parametrize(('type', 'fields'), COMMANDS)
def test_what_is_encoded_survives_the_wire(type: str, fields: list[str]) -> None:
    contract = contract_of(type, fields)
    targets = np.array([0.5, -0.25, 0.125, 8.0])[: len(fields)]
    ((_, msg),) = encode_commands(contract, targets, 5, from_rosbags, 0.1)
    again = STORE.deserialize_cdr(STORE.serialize_cdr(msg, type), type)
    np.testing.assert_array_equal(decode_command(contract.action[0], again), targets)


@pytest.mark.parametrize(('type', 'fields'), STANDARD)
def test_real_ros_messages_survive_the_wire(type: str, fields: list[str]) -> None:
    wire = pytest.importorskip('rclpy.serialization', reason='ROS 2 is not installed')
    contract = contract_of(type, fields)
    targets = np.array([0.5, -0.25, 0.125, 8.0])[: len(fields)]
    ((_, msg),) = encode_commands(contract, targets, 5, from_ros, 0.1)
    try:
        data = wire.serialize_message(msg)
    except RuntimeError as error:
        pytest.skip(f'the ROS environment is not sourced: {error}')
    # A node writes, the converter reads. rclpy may append bytes that deserialize_cdr refuses.
    definition = STORE.get_msgdef(type)
    again, _ = definition.deserialize_cdr_le(data[4:], 0, definition.cls, STORE)
    np.testing.assert_array_equal(decode_command(contract.action[0], again), targets)


def by_index_contract(type: str, fields: list[str]) -> Contract:
    contract = contract_of(type, fields)
    topic = dataclasses.replace(contract.action[0], by_index=True)
    return dataclasses.replace(contract, action=(topic,))


@pytest.mark.parametrize(
    'type', ['sensor_msgs/msg/JointState', 'control_msgs/action/ParallelGripperCommand_Goal']
)
def test_commands_without_names_are_counted_by_index(new_message: NewMessage, type: str) -> None:
    fields = ['velocity.1', 'position.0', 'position.1', 'velocity.0']
    contract = by_index_contract(type, fields)
    targets = np.array([0.5, -0.25, 0.125, 8.0])
    ((_, msg),) = encode_commands(contract, targets, 5, new_message, 0.1)
    joints = getattr(msg, 'command', msg)
    assert list(joints.name) == []
    assert list(joints.position) == [-0.25, 0.125]
    assert list(joints.velocity) == [8.0, 0.5]
    np.testing.assert_array_equal(decode_command(contract.action[0], msg), targets)
    # What is too short lacks the rest; names do not matter.
    joints.name = ['b', 'a']
    set_array(joints, 'position', [3.0])
    found = decode_command(contract.action[0], msg)
    np.testing.assert_array_equal(found, [0.5, 3.0, np.nan, 8.0])


def test_nothing_is_read_by_index_that_the_contract_does_not_count(
    new_message: NewMessage,
) -> None:
    contract = contract_of('sensor_msgs/msg/JointState', ['position.0'])
    msg = new_message('sensor_msgs/msg/JointState')
    set_array(msg, 'position', [1.0])
    assert np.isnan(decode_command(contract.action[0], msg)).all()


def test_a_trajectory_has_one_point_and_its_time(arm: Contract, new_message: NewMessage) -> None:
    found = dict(encode_commands(arm, np.arange(7.0), 10**9, new_message, 1.25))
    msg = found['/arm_controller/joint_trajectory']
    assert list(msg.joint_names) == [dim.field for dim in arm.action[0].dims]
    assert len(msg.points) == 1
    duration = msg.points[0].time_from_start
    assert (duration.sec, duration.nanosec) == (1, 250_000_000)
    assert list(msg.points[0].positions) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert list(found['/gripper_controller/commands'].data) == [6.0]


def test_components_that_no_dimension_names_keep_their_default(new_message: NewMessage) -> None:
    contract = contract_of('geometry_msgs/msg/Twist', ['linear.x'])
    ((_, msg),) = encode_commands(contract, np.ones(1), 0, new_message, 0.1)
    assert (msg.linear.x, msg.linear.y, msg.angular.z) == (1.0, 0.0, 0.0)


def test_a_bool_is_split_in_the_middle(new_message: NewMessage) -> None:
    contract = contract_of('std_msgs/msg/Bool', ['data'])
    for value, expected in ((0.0, 0.0), (0.49, 0.0), (0.5, 1.0), (1.0, 1.0)):
        ((_, msg),) = encode_commands(contract, np.array([value]), 0, new_message, 0.1)
        assert decode_command(contract.action[0], msg).tolist() == [expected]


def test_joints_are_matched_by_name_and_missing_ones_are_nan(
    arm: Contract, new_message: NewMessage
) -> None:
    msg = new_message('trajectory_msgs/msg/JointTrajectory')
    assert np.isnan(decode_command(arm.action[0], msg)).all()  # no point: nothing is commanded
    full = dict(encode_commands(arm, np.arange(7.0), 0, new_message, 0.1))
    msg = full['/arm_controller/joint_trajectory']
    msg.joint_names = ['elbow', 'waist', 'other', 'shoulder', 'x', 'y']
    np.testing.assert_array_equal(
        decode_command(arm.action[0], msg), [1.0, 3.0, 0.0, np.nan, np.nan, np.nan]
    )


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_nothing_goes_out_when_one_target_is_not_finite(arm: Contract, bad: float) -> None:
    made: list[str] = []

    def new(type: str) -> Any:
        made.append(type)
        return from_rosbags(type)

    targets = np.zeros(7)
    targets[[2, 6]] = bad
    with pytest.raises(CommandError, match='elbow, gripper; nothing was sent'):
        encode_commands(arm, targets, 0, new, 0.1)
    assert made == []


def test_wrong_lengths_and_next_state_contracts_are_refused(arm: Contract) -> None:
    with pytest.raises(CommandError, match=r'shape \(8,\); needed: \(7,\), one number for each'):
        encode_commands(arm, np.zeros(8), 0, from_rosbags, 0.1)
    with pytest.raises(CommandError, match=r'needed: \(7,\)'):
        action_from_targets(arm, np.zeros(7), np.zeros(6))
    derived = dataclasses.replace(
        arm, action=(ActionTopic(None, None, 'next_state', arm.action[0].dims),)
    )
    with pytest.raises(CommandError, match='names no command topic'):
        encode_commands(derived, np.zeros(6), 0, from_rosbags, 0.1)
    with pytest.raises(CommandError, match='no command message'):
        decode_command(derived.action[0], None)


NUMBERS = st.floats(-1e3, 1e3).map(lambda x: round(x, 6))
MODES = st.sampled_from(['absolute', 'delta', 'velocity'])


@given(st.lists(st.tuples(MODES, NUMBERS, NUMBERS), min_size=1, max_size=6))
def test_actions_and_targets_are_inverse(rows: list[tuple[str, float, float]]) -> None:
    modes = [mode for mode, _, _ in rows]
    action, previous = np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
    contract = contract_of('std_msgs/msg/Float64MultiArray', [str(i) for i in range(len(rows))])
    dims = tuple(
        dataclasses.replace(d, mode=m) for d, m in zip(contract.action_dims, modes, strict=True)
    )
    topic = dataclasses.replace(contract.action[0], dims=dims)
    contract = dataclasses.replace(contract, action=(topic,))
    target = targets_from_action(contract, action, previous)
    back = action_from_targets(contract, target, previous)
    np.testing.assert_allclose(back, action, rtol=0, atol=1e-12 * 2e3)
    # What was sent, read back from the recording, is a fixed point: exactly the same again.
    again = targets_from_action(contract, back, previous)
    np.testing.assert_allclose(again, target, rtol=0, atol=1e-12 * 2e3)
    for i, mode in enumerate(modes):
        if mode != 'delta':
            assert target[i] == back[i] == action[i]
        else:
            assert back[i] == target[i] - previous[i]


@given(st.data())
def test_a_recorded_run_gives_back_the_actions_as_sent(data: st.DataObject) -> None:
    """Send target after target, record the messages, convert: bit for bit the actions sent."""
    arm = ARM
    state = np.array(data.draw(st.lists(st.floats(-2, 2, width=32), min_size=13, max_size=13)))
    observation = SimpleNamespace(state=state.astype(np.float32))
    previous = initial_targets(arm, observation)
    sent, recorded = [], []
    for _ in range(4):
        action = np.array(data.draw(st.lists(st.floats(-0.3, 0.3), min_size=7, max_size=7)))
        target = targets_from_action(arm, action, previous)
        sent.append(action_from_targets(arm, target, previous))
        recorded.append([
            (topic, STORE.serialize_cdr(msg, arm.topics[topic]))
            for topic, msg in encode_commands(arm, target, 0, from_rosbags, 0.1)
        ])  # fmt: skip
        previous = target
    previous = initial_targets(arm, observation)
    for action, messages in zip(sent, recorded, strict=True):
        parts = [
            decode_command(topic, STORE.deserialize_cdr(wire, topic.type))
            for topic, (_, wire) in zip(arm.action, messages, strict=True)
        ]
        target = np.concatenate(parts)
        np.testing.assert_array_equal(action_from_targets(arm, target, previous), action)
        previous = target


def test_initial_targets(arm: Contract) -> None:
    state = np.arange(13, dtype=np.float32) / 10
    targets = initial_targets(arm, SimpleNamespace(state=state))
    np.testing.assert_array_equal(targets, state[:7].astype(np.float64))  # joints, then gripper
    assert targets.dtype == np.float64
    no_base = dataclasses.replace(arm.action[1].dims[0], base='')
    twist = ActionDim('turn', 'angular.z', 'velocity', -1.0, 1.0, 3)
    other = dataclasses.replace(
        arm,
        action=(
            ActionTopic('/g', 'std_msgs/msg/Float64MultiArray', 'command', (no_base,)),
            ActionTopic('/v', 'geometry_msgs/msg/Twist', 'command', (twist,)),
        ),
    )
    np.testing.assert_array_equal(
        initial_targets(other, SimpleNamespace(state=state)), [np.nan, 0.0]
    )


def test_a_cartesian_delta_starts_from_the_measured_pose() -> None:
    pose = 'geometry_msgs/msg/PoseStamped'
    contract = dataclasses.replace(
        contract_of(pose, ['position.z'], 'delta'),
        state=(StateStream('tool', '/tool', pose, ('position.x', 'position.z')),),
    )
    state = np.array([1.0, 2.0], np.float32)
    assert initial_targets(contract, SimpleNamespace(state=state)).tolist() == [2.0]


@given(st.data(), st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 6))
def test_non_finite_actions_stay_visible(data: st.DataObject, bad: float, where: int) -> None:
    vectors = st.lists(NUMBERS, min_size=7, max_size=7)
    action, previous = np.array(data.draw(vectors)), np.array(data.draw(vectors))
    action[where] = bad
    targets = targets_from_action(ARM, action, previous)
    assert (np.isfinite(targets) == np.isfinite(action)).all()
