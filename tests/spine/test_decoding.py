"""Numbers from the messages of bags and of live nodes: the same from both."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spine_messages import set_array

from qt_ros.decoding import DecodeError, decode_state, fields_of, holds
from qt_ros.message_types import JOINT_STATE, JOINT_TRAJECTORY

NewMessage = Callable[[str], Any]


def joint_state(new: NewMessage, names: list[str], **arrays: list[float]) -> Any:
    msg = new(JOINT_STATE)
    msg.name = names
    for name, values in arrays.items():
        set_array(msg, name, values)
    return msg


def test_joints_are_found_by_name_whatever_their_order(new_message: NewMessage) -> None:
    names = ['left/arm.joint_1', 'a', 'a.b', '0', 'position.x']
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        msg = joint_state(
            new_message, [names[i] for i in order], position=[values[i] for i in order]
        )
        fields = [f'position.{name}' for name in names]
        np.testing.assert_array_equal(decode_state(msg, JOINT_STATE, fields), values)


def test_kinds_of_joint_values(new_message: NewMessage) -> None:
    msg = joint_state(new_message, ['a', 'b'], position=[1.0, 2.0], velocity=[3.0, 4.0],
                      effort=[5.0, 6.0])  # fmt: skip
    fields = ['effort.b', 'velocity.a', 'position.b']
    np.testing.assert_array_equal(decode_state(msg, JOINT_STATE, fields), [6.0, 3.0, 2.0])
    assert fields_of(msg, JOINT_STATE)[:2] == ('position.a', 'position.b')


def test_what_a_joint_state_lacks_is_named_with_what_it_holds(new_message: NewMessage) -> None:
    msg = joint_state(new_message, ['a', 'b'], position=[1.0])
    with pytest.raises(DecodeError, match=r'no position\.b, velocity\.a; it holds: position\.a$'):
        decode_state(msg, JOINT_STATE, ['position.a', 'position.b', 'velocity.a'])
    assert holds(msg, JOINT_STATE, ['position.a'])
    assert not holds(msg, JOINT_STATE, ['position.a', 'position.b'])


def test_unnamed_joints_only_by_index(new_message: NewMessage) -> None:
    msg = joint_state(new_message, [], position=[0.25, 0.5])
    with pytest.raises(DecodeError, match='it holds: none'):
        decode_state(msg, JOINT_STATE, ['position.0'])
    fields = ['position.1', 'position.0']
    np.testing.assert_array_equal(decode_state(msg, JOINT_STATE, fields, True), [0.5, 0.25])
    with pytest.raises(DecodeError, match=r'no position\.2; it holds: position\.0, position\.1'):
        decode_state(msg, JOINT_STATE, ['position.2'], True)


@given(st.lists(st.text(min_size=1, max_size=5), unique=True, min_size=1, max_size=6), st.data())
def test_any_selection_of_any_joints(names: list[str], data: st.DataObject) -> None:
    floats = st.floats(allow_nan=False)
    values = data.draw(st.lists(floats, min_size=len(names), max_size=len(names)))
    chosen = data.draw(st.lists(st.sampled_from(names)))
    msg = SimpleNamespace(name=names, position=values, velocity=[], effort=[])
    decoded = decode_state(msg, JOINT_STATE, [f'position.{name}' for name in chosen])
    assert decoded.tolist() == [values[names.index(name)] for name in chosen]
    assert decoded.dtype == np.float64


def test_the_other_number_types(new_message: NewMessage) -> None:
    twist = new_message('geometry_msgs/msg/TwistStamped')
    twist.twist.linear.x, twist.twist.angular.z = 0.5, -1.5
    fields = ['angular.z', 'linear.x', 'linear.y']
    expected = [-1.5, 0.5, 0.0]
    assert decode_state(twist, 'geometry_msgs/msg/TwistStamped', fields).tolist() == expected
    assert decode_state(twist.twist, 'geometry_msgs/msg/Twist', fields).tolist() == expected
    pose = new_message('geometry_msgs/msg/PoseStamped')
    pose.pose.position.y, pose.pose.orientation.w = 2.0, 0.5
    fields = ['position.y', 'orientation.w']
    assert decode_state(pose, 'geometry_msgs/msg/PoseStamped', fields).tolist() == [2.0, 0.5]
    for kind in ('Float32', 'Float64'):
        scalar = new_message(f'std_msgs/msg/{kind}')
        scalar.data = 0.25
        assert decode_state(scalar, f'std_msgs/msg/{kind}', ['data']).tolist() == [0.25]
        array = new_message(f'std_msgs/msg/{kind}MultiArray')
        set_array(array, 'data', [0.5, 0.25])
        type = f'std_msgs/msg/{kind}MultiArray'
        assert decode_state(array, type, ['1', '0']).tolist() == [0.25, 0.5]
        with pytest.raises(DecodeError, match='no 2; it holds: 0, 1'):
            decode_state(array, type, ['2'])
    flag = new_message('std_msgs/msg/Bool')
    flag.data = True
    assert decode_state(flag, 'std_msgs/msg/Bool', ['data']).tolist() == [1.0]


def test_a_trajectory_is_its_first_point(new_message: NewMessage) -> None:
    msg = new_message(JOINT_TRAJECTORY)
    msg.joint_names = ['b.x', 'a/y', 'short']
    with pytest.raises(DecodeError, match='it holds: none'):
        decode_state(msg, JOINT_TRAJECTORY, ['a/y'])
    for positions in ([1.0, 2.0], [9.0, 9.0]):
        point = new_message('trajectory_msgs/msg/JointTrajectoryPoint')
        set_array(point, 'positions', positions)
        msg.points = [*msg.points, point]
    assert decode_state(msg, JOINT_TRAJECTORY, ['a/y', 'b.x']).tolist() == [2.0, 1.0]
    assert not holds(msg, JOINT_TRAJECTORY, ['short'])


def test_unsupported_types_list_the_supported_ones(new_message: NewMessage) -> None:
    with pytest.raises(DecodeError, match='supported: sensor_msgs/msg/JointState'):
        decode_state(new_message('std_msgs/msg/String'), 'std_msgs/msg/String', ['data'])
