"""What a contract says about its commands beyond topic and type, and what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest
from spine_messages import STORE, from_rosbags

from qt_ros.commands import decode_command, encode_commands
from qt_ros.contract import Contract
from qt_ros.errors import ContractError
from qt_ros.interpolation import at_once
from qt_ros.message_types import ACTIONS, COMMAND_TYPES, STATE_TYPES

GRIPPERS = """
name: two_grippers
rate_hz: 10
clock: header
state:
  - {name: arm, topic: /arm, type: sensor_msgs/msg/JointState, fields: [position.finger]}
action:
  - topic: /left/gripper_cmd
    type: control_msgs/action/ParallelGripperCommand
    frame_id: hand
    max_effort: 20
    dims: [{name: left, field: position.finger, mode: delta, low: 0, high: 1, bins: 2}]
  - topic: /right/gripper_cmd
    type: control_msgs/action/GripperCommand
    max_effort: 5
    dims: [{name: right, field: position, low: 0, high: 1, bins: 2}]
  - topic: /servo/twist
    type: geometry_msgs/msg/TwistStamped
    frame_id: base_link
    dims: [{name: turn, field: angular.z, mode: velocity, low: -1, high: 1, bins: 3}]
"""


def test_what_an_action_is_commanded_is_recorded_on_a_topic_beside_it() -> None:
    contract = Contract.parse(GRIPPERS)
    left, right, twist = contract.action
    assert (left.action, left.action_type) == (
        '/left/gripper_cmd',
        'control_msgs/action/ParallelGripperCommand',
    )
    assert contract.topics['/left/gripper_cmd/sent'] == 'sensor_msgs/msg/JointState'
    assert contract.topics['/right/gripper_cmd/sent'] == 'control_msgs/msg/GripperCommand'
    assert '/left/gripper_cmd' not in contract.topics
    assert (right.max_effort, twist.max_effort) == (5.0, None)
    assert (twist.frame_id, twist.action) == ('base_link', '')
    assert contract.base_index(left.dims[0]) == 0


def test_it_survives_the_round_trip_and_every_part_counts() -> None:
    contract = Contract.parse(GRIPPERS)
    again = Contract.parse(contract.to_yaml())
    assert again == contract
    others = [
        GRIPPERS.replace('max_effort: 20', 'max_effort: 21'),
        GRIPPERS.replace('    max_effort: 20\n', ''),
        GRIPPERS.replace('base_link', 'tool0'),
        GRIPPERS.replace('/left/gripper_cmd', '/left/cmd'),
        # The same commands over the topic alone.
        GRIPPERS.replace('/left/gripper_cmd', '/left/gripper_cmd/sent').replace(
            'control_msgs/action/Parallel', 'sensor_msgs/msg/JointState # '
        ).replace('    max_effort: 20\n', ''),
    ]  # fmt: skip
    hashes = {contract.hash, *(Contract.parse(text).hash for text in others)}
    assert len(hashes) == 1 + len(others)


def test_commands_carry_the_frame_and_the_effort_and_are_read_back() -> None:
    contract = Contract.parse(GRIPPERS)
    targets = np.array([0.25, 0.5, -1.0])
    messages = dict(encode_commands(contract, targets, 3_000_000_007, from_rosbags, 0.1))
    left = messages['/left/gripper_cmd/sent']
    assert (left.header.frame_id, left.name, list(left.effort)) == ('hand', ['finger'], [20.0])
    assert messages['/right/gripper_cmd/sent'].max_effort == 5.0
    assert messages['/servo/twist'].header.frame_id == 'base_link'
    for action, target in zip(contract.action, targets, strict=True):
        wire = STORE.serialize_cdr(messages[action.topic], action.type)
        found = decode_command(action, STORE.deserialize_cdr(wire, action.type))
        assert found.tolist() == [target]


def test_a_float32_command_is_what_will_arrive() -> None:
    dim = 'dims: [{name: x, field: data, low: 0, high: 1, bins: 3}]'
    text = GRIPPERS[: GRIPPERS.index('action:')]
    contract = Contract.parse(
        f'{text}action: [{{topic: /x, type: std_msgs/msg/Float32, {dim}}}]\n'
    )
    ((_, message),) = encode_commands(contract, np.array([0.35]), 0, from_rosbags, 0.1)
    assert message.data == float(np.float32(0.35))


@pytest.mark.parametrize(
    ('right', 'wrong', 'expected'),
    [
        ('mode: delta, low: 0', 'mode: velocity, low: 0', 'a goal is no velocity'),
        ('field: position.finger, mode', 'field: finger, mode',
         "'finger' is not a field of sensor_msgs/msg/JointState"),
        ('max_effort: 20', 'max_effort: -1', 'max_effort'),
        ('max_effort: 20', 'max_effort: much', 'max_effort'),
        ('field: position, low', 'field: max_effort, low', 'a dimension commands the effort'),
        ('    frame_id: base_link', '    max_effort: 1', 'is for gripper commands only'),
        ('max_effort: 5', 'frame_id: hand', 'GripperCommand has no header'),
        ('frame_id: base_link', 'frame_id: /base_link', 'no slash in front: base_link'),
        ('topic: /right/gripper_cmd', 'topic: /left/gripper_cmd',
         '/left/gripper_cmd/sent has type control_msgs/msg/GripperCommand here|'
         '/left/gripper_cmd/sent is commanded in line 8 too'),
        ('topic: /left/gripper_cmd', 'topic: left', 'is not an absolute topic name'),
        ('control_msgs/action/ParallelGripperCommand', 'control_msgs/action/FollowJointTrajectory',
         'control_msgs/action/ParallelGripperCommand'),
        ('topic: /arm, type: sensor_msgs/msg/JointState',
         'topic: /arm, type: control_msgs/action/GripperCommand', 'type'),
    ],
)  # fmt: skip
def test_faults_are_named(right: str, wrong: str, expected: str) -> None:
    assert right in GRIPPERS
    with pytest.raises(ContractError) as error:
        Contract.parse(GRIPPERS.replace(right, wrong, 1))
    text = '\n'.join(error.value.problems)
    assert all(part in text for part in expected.split('|')), text


def test_actions_are_commanded_never_observed() -> None:
    assert set(ACTIONS) <= set(COMMAND_TYPES)
    assert not set(ACTIONS) & set(STATE_TYPES)


def test_a_goal_is_sent_as_a_whole_never_in_steps() -> None:
    contract = Contract.parse(GRIPPERS.replace('bins: 2', 'bins: 20'))
    assert at_once(contract).tolist() == [True, True, True]
    over_a_topic = GRIPPERS.replace('bins: 2', 'bins: 20').replace(
        'control_msgs/action/Gripper', 'control_msgs/msg/Gripper'
    )
    assert at_once(Contract.parse(over_a_topic)).tolist() == [True, False, True]
