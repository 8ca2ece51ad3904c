"""Every kind of command that a contract may name reaches a real receiver as it was sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import policy_rig
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('q_transformer_ros', reason='the interfaces are not built')

pytestmark = pytest.mark.ros
OBSERVED = policy_rig.CONTRACT[: policy_rig.CONTRACT.index('action:')]
SAFETY = 'safety: {watchdog_s: 0.5, fallback: hold}\n'


def dim(name: str, field: str, mode: str = 'absolute') -> str:
    return f'{{name: {name}, field: {field}, mode: {mode}, low: -0.5, high: 0.5, bins: 21}}'


STANDARD = f"""
action:
  - {{topic: /arm/joint_trajectory, type: trajectory_msgs/msg/JointTrajectory,
     dims: [{dim('t', 'one')}, {dim('t2', 'two')}]}}
  - {{topic: /c/forward, type: std_msgs/msg/Float64MultiArray,
     dims: [{dim('f', '"1"')}, {dim('f2', '"0"')}]}}
  - {{topic: /c/forward32, type: std_msgs/msg/Float32MultiArray, dims: [{dim('g', '"0"')}]}}
  - {{topic: /c/joints, type: sensor_msgs/msg/JointState, frame_id: base,
     dims: [{dim('j', 'position.one')}, {dim('j2', 'position.two')}]}}
  - {{topic: /c/by_index, type: sensor_msgs/msg/JointState, by_index: true,
     dims: [{dim('i', 'velocity.0')}]}}
  - {{topic: /c/twist, type: geometry_msgs/msg/Twist,
     dims: [{dim('x', 'linear.x', 'velocity')}, {dim('turn', 'angular.z', 'velocity')}]}}
  - {{topic: /servo/delta_twist_cmds, type: geometry_msgs/msg/TwistStamped, frame_id: tool0,
     dims: [{dim('s', 'linear.z', 'velocity')}]}}
  - {{topic: /c/pose, type: geometry_msgs/msg/PoseStamped, frame_id: base,
     dims: [{dim('p', 'position.x')}]}}
  - {{topic: /c/single, type: std_msgs/msg/Float32, dims: [{dim('n32', 'data')}]}}
  - {{topic: /c/double, type: std_msgs/msg/Float64, dims: [{dim('n64', 'data')}]}}
  - {{topic: /c/bool, type: std_msgs/msg/Bool,
     dims: [{{name: b, field: data, low: 0.0, high: 1.0, bins: 2}}]}}
"""
# MoveIt Servo takes JointJog; grippers take GripperCommand as a message or as an action.
CONTROL = f"""
action:
  - {{topic: /servo/delta_joint_cmds, type: control_msgs/msg/JointJog, frame_id: base,
     dims: [{dim('v', 'velocity.one', 'velocity')}, {dim('v2', 'velocity.two', 'velocity')}]}}
  - {{topic: /c/gripper, type: control_msgs/msg/GripperCommand, max_effort: 5.0,
     dims: [{dim('m', 'position')}]}}
  - {{topic: /left/gripper_cmd, type: control_msgs/action/GripperCommand, max_effort: 7.5,
     dims: [{{name: l, field: position, low: 0.0, high: 1.0, bins: 2}}]}}
  - {{topic: /right/gripper_cmd, type: control_msgs/action/ParallelGripperCommand, max_effort: 2.5,
     dims: [{{name: r, field: position.finger, low: 0.0, high: 1.0, bins: 2}}]}}
"""
EVENTS = 'episodes: {events: /episode/events}\n'


def contract_text(action: str) -> str:
    return OBSERVED + action + EVENTS + SAFETY


def receive(client: policy_rig.Client, contract: Any) -> dict[str, list[Any]]:
    """Return {topic: messages that arrive} of every command."""
    from qt_ros.nodes.ros import message_class

    heard = {a.topic: client.keep(message_class(a.type), a.topic) for a in contract.action}
    client.until(lambda: all(client.node.count_publishers(t) for t in heard), what='the policy')
    client.spin(1.0)
    return heard


def check_received(contract: Any, steps: list[Any], heard: dict[str, list[Any]]) -> None:
    """Check that each topic carried what the steps say was sent, and the fallback last."""
    from qt_ros.commands import decode_command

    sent = np.array([step.sent for step in steps if len(step.sent)])
    assert len(sent) >= 8
    start = 0
    for action in contract.action:
        columns = slice(start, start + len(action.dims))
        start = columns.stop
        got = [decode_command(action, message) for message in heard[action.topic]]
        np.testing.assert_array_equal(np.array(got)[: len(sent)], sent[:, columns], action.topic)
        assert len(got) == len(sent) + 1, 'the fallback'
        for message, step in zip(heard[action.topic], steps, strict=False):
            if hasattr(message, 'header'):
                assert message.header.stamp == step.command_stamp
                assert message.header.frame_id == action.frame_id


def test_standard_commands_arrive_as_sent(ros_domain: int, tmp_path: Path):
    from q_transformer_ros.msg import PolicyStep

    from qt_ros.contract import Contract

    text = contract_text(STANDARD)
    contract = Contract.parse(text)
    run = policy_rig.make_checkpoint(tmp_path / 'run', text)
    with policy_rig.running(policy_rig.robot(), policy_rig.policy(run, command_rate_hz=10.0)) as (
        client,
        *_,
    ):
        steps = client.keep(PolicyStep, '/policy/step')
        heard = receive(client, contract)
        result = client.result(client.send_goal(instruction='do it', max_duration_s=1.5))
        assert result.outcome == 'timeout', result
        client.spin(1.0)
        sent = [step for step in steps if len(step.sent)]
        check_received(contract, sent, heard)
        # MoveIt Servo takes what is stamped now and names its frame.
        assert {m.header.frame_id for m in heard['/servo/delta_twist_cmds']} == {'tool0'}
        assert any(m.data for m in heard['/c/bool'])


def server(name: str, kind: str) -> policy_rig.Process:
    return policy_rig.Process(str(policy_rig.HERE / 'action_server.py'), name, kind)


def goals_of(process: policy_rig.Process) -> list[list[Any]]:
    found = []
    while True:
        try:
            found.append(process.event('goal', 0.2)['numbers'])
        except AssertionError:
            return found


def changes(values: list[float]) -> list[float]:
    return [v for i, v in enumerate(values) if i == 0 or v != values[i - 1]]


def test_servo_and_gripper_commands_arrive_and_come_back_from_the_recording(
    ros_domain: int, tmp_path: Path
):
    pytest.importorskip('control_msgs', reason='control_msgs is not installed')
    from diagnostic_msgs.msg import DiagnosticArray
    from q_transformer_ros.msg import PolicyStep

    from qt_ros.contract import Contract

    text = contract_text(CONTROL)
    contract = Contract.parse(text)
    run = policy_rig.make_checkpoint(tmp_path / 'run', text)
    left_type, right_type = (a.action_type for a in contract.action[2:])
    with policy_rig.running(
        policy_rig.robot(),
        server('/left/gripper_cmd', left_type),
        server('/right/gripper_cmd', right_type),
        policy_rig.recorder(tmp_path, text),
        policy_rig.policy(run, command_rate_hz=10.0),
    ) as (client, _, left, right, _, _):
        steps = client.keep(PolicyStep, '/policy/step')
        health = client.keep(DiagnosticArray, '/diagnostics')
        heard = receive(client, contract)
        commands = tuple(action.topic for action in contract.action)
        result, bag = client.record(commands, instruction='do it', max_duration_s=4.0)
        assert result.outcome == 'timeout', result
        client.spin(1.0)
        sent = [step for step in steps if len(step.sent)]
        check_received(contract, sent, heard)
        assert {m.max_effort for m in heard['/c/gripper']} == {5.0}
        # Goals go out on change only, with the effort that the contract gives.
        opened, closed = goals_of(left), goals_of(right)
        assert opened == [[v, 7.5] for v in changes([step.sent[3] for step in sent])]
        assert closed == [['finger', v, 2.5] for v in changes([step.sent[4] for step in sent])]
        seen = len(health)
        client.until(lambda: len(health) > seen, what='diagnostics')
        values = {pair.key: pair.value for pair in health[-1].status[0].values}
        assert values['goals/left/gripper_cmd.accepted'] == str(len(opened))
        assert values['goals/right/gripper_cmd.accepted'] == str(len(closed))
    built, _ = policy_rig.converted(bag, text)
    rows = {number: row for row, number in enumerate(built.ticks.numbers.tolist())}
    for step in sent:
        np.testing.assert_array_equal(
            built.episode.action[rows[step.step]], np.array(step.sent, np.float32)
        )
