"""Whatever goes wrong, the policy says what, and the last command out is the fallback."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import policy_rig
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('q_transformer_ros', reason='the interfaces are not built')

pytestmark = pytest.mark.ros


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy_rig.make_checkpoint(tmp_path_factory.mktemp('run'))


def refusal(capfd: pytest.CaptureFixture[str], run: Path, **parameters: Any) -> str:
    """Try to configure a node and return why it refused."""
    import rclpy
    from rclpy.lifecycle import TransitionCallbackReturn
    from rclpy.parameter import Parameter

    from qt_ros.nodes.policy import PolicyNode

    context = rclpy.Context()
    rclpy.init(context=context)
    given = {'checkpoint': str(run), 'start_timeout_s': 3.0, **parameters}
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    node = PolicyNode(context=context, parameter_overrides=overrides)
    capfd.readouterr()
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert node.loop is None
        # It can be asked again: nothing was left behind.
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith('QT ')]
    events = [json.loads(line[3:]) for line in lines]
    assert [event['event'] for event in events] == ['refused', 'refused']
    return events[0]['message']


def test_a_robot_without_its_camera_is_refused(ros_domain, run, capfd):
    with policy_rig.robot('--blind') as robot:
        robot.event('ready')
        message = refusal(capfd, run)
    assert '/eye/compressed: nobody publishes it' in message
    assert 'is the robot (or its driver) running?' in message
    assert '/joint_states' not in message


def test_a_robot_with_other_joints_is_refused_with_the_names_it_has(ros_domain, run, capfd):
    with policy_rig.robot('--joints', 'one,zwei,gripper') as robot:
        robot.event('ready')
        message = refusal(capfd, run)
    assert 'two' in message
    assert 'zwei' in message


def test_a_contract_of_another_robot_is_refused(ros_domain, run, tmp_path, capfd):
    text = policy_rig.CONTRACT
    for before, after in (('bins: 21', 'bins: 33'), ('[24, 32]', '[48, 64]'), ('10.0', '20.0')):
        text = text.replace(before, after)
    path = tmp_path / 'other.yaml'
    path.write_text(text, encoding='utf-8')
    message = refusal(capfd, run, contract=str(path))
    for part in ('rate_hz', '24x32', '48x64', 'in 21 bins', 'in 33 bins', 'other.yaml'):
        assert part in message


def test_missing_checkpoints_and_odd_rates_are_refused(ros_domain, run, tmp_path, capfd):
    assert 'parameter checkpoint is empty' in refusal(capfd, Path(''), checkpoint='')
    assert 'holds no checkpoint' in refusal(capfd, tmp_path)
    message = refusal(capfd, run, command_rate_hz=25.0)
    assert 'command_rate_hz is 25; it must be a multiple' in message


def last_is_hold(commands: list[Any]) -> bool:
    """Say whether the last command repeats the one before."""
    last, before = (list(command.points[0].positions) for command in (commands[-1], commands[-2]))
    return last == before


def test_a_camera_that_freezes_ends_the_episode_in_the_fallback(ros_domain, run):
    from q_transformer_ros.msg import PolicyStep
    from std_msgs.msg import String
    from trajectory_msgs.msg import JointTrajectory

    from qt_ros.nodes.policy import PolicyNode

    with (
        policy_rig.running(policy_rig.robot()) as (client, *_),
        policy_rig.in_process(PolicyNode, run),
    ):
        commands = client.keep(JointTrajectory, '/arm/joint_trajectory')
        steps = client.keep(PolicyStep, '/policy/step')
        do = client.node.create_publisher(String, '/fake/do', 10)
        client.connect(do)
        handle = client.send_goal(instruction='do it', max_duration_s=30.0)
        client.until(lambda: len(commands) > 5, what='motion')
        do.publish(String(data='freeze'))
        result = client.result(handle)
        client.spin(0.3)
        frozen = len(commands)
        # A new goal finds the camera stale, and says so instead of driving.
        again = client.result(client.send_goal(instruction='do it', max_duration_s=1.0))
        client.spin(0.2)
    assert (result.outcome, result.termination) == ('aborted', 'fault')
    assert 'stale eye: newest sample of /eye/compressed is' in result.message
    assert last_is_hold(commands)
    assert any(not all(step.stream_valid) and not len(step.sent) for step in steps)
    assert again.termination == 'fault'
    assert 'cannot begin: eye: newest sample of /eye/compressed is' in again.message
    assert len(commands) == frozen


def test_faults_of_the_policy_end_the_episode_and_not_the_node(ros_domain, run):
    """Inference that raises, then one that hangs, a busy node, a cancel, and a deactivation."""
    from trajectory_msgs.msg import JointTrajectory

    from qt_ros.nodes.policy import PolicyNode

    hang = threading.Event()
    release = threading.Event()
    fail = threading.Event()

    class Faulty(PolicyNode):
        def load_policy(self):
            policy = super().load_policy()
            decide = policy.decide

            def faulty():
                if fail.is_set():
                    raise RuntimeError('the network is gone')
                if hang.is_set():
                    release.wait(10.0)
                return decide()

            policy.decide = faulty
            return policy

    with (
        policy_rig.running(policy_rig.robot()) as (client, *_),
        policy_rig.in_process(Faulty, run) as node,
    ):
        commands = client.keep(JointTrajectory, '/arm/joint_trajectory')

        def moving(duration_s: float = 30.0):
            commands.clear()
            handle = client.send_goal(instruction='do it', max_duration_s=duration_s)
            assert handle.accepted
            client.until(lambda: len(commands) > 3, what='motion')
            return handle

        handle = moving()
        fail.set()
        result = client.result(handle)
        assert (result.outcome, result.termination) == ('aborted', 'fault')
        assert 'RuntimeError: the network is gone' in result.message
        client.spin(0.1)
        assert last_is_hold(commands)
        fail.clear()

        handle = moving()
        hang.set()
        result = client.result(handle)
        assert 'still deciding' in result.message
        client.spin(0.1)
        assert last_is_hold(commands)
        hang.clear()
        release.set()

        handle = moving()
        assert not client.send_goal(instruction='other', max_duration_s=1.0).accepted
        answer = client.wait(handle.cancel_goal_async())
        assert len(answer.goals_canceling) == 1
        result = client.result(handle)
        assert (result.outcome, result.termination) == ('unknown', 'canceled')
        client.spin(0.1)
        assert last_is_hold(commands)
        assert len(client.feedback) > 3

        assert not client.send_goal(instruction='do it', max_duration_s=0.0).accepted
        handle = moving()
        result = deactivate(client, handle)
        assert 'the node was deactivated' in result.message
        client.spin(0.1)
        assert last_is_hold(commands)
        assert not client.send_goal(instruction='do it', max_duration_s=1.0).accepted
        assert node.loop is not None


def deactivate(client: policy_rig.Client, handle: Any) -> Any:
    """Deactivate the policy through its lifecycle service; return the result of its goal."""
    from lifecycle_msgs.msg import Transition

    client.change_state(Transition.TRANSITION_DEACTIVATE)
    return client.result(handle)


def test_a_stopped_process_leaves_the_robot_in_the_fallback(ros_domain, run):
    """SIGINT during motion: the client gets its answer and the arm a hold."""
    from diagnostic_msgs.msg import DiagnosticArray
    from std_msgs.msg import Float64MultiArray
    from trajectory_msgs.msg import JointTrajectory

    with policy_rig.running(policy_rig.robot(), policy_rig.policy(run)) as (client, _, policy):
        commands = client.keep(JointTrajectory, '/arm/joint_trajectory')
        gripper = client.keep(Float64MultiArray, '/gripper/commands')
        diagnostics = client.keep(DiagnosticArray, '/diagnostics')
        handle = client.send_goal(instruction='do it', max_duration_s=60.0)
        client.until(lambda: len(commands) > 12 and diagnostics, what='motion')
        before = len(commands)
        answer = handle.get_result_async()
        client.spin(0.1)
        policy.signal(signal.SIGINT)
        result = client.wait(answer).result
        assert policy.wait() == 0
        client.spin(0.3)
    assert (result.outcome, result.termination) == ('aborted', 'fault')
    assert 'the process was told to stop' in result.message
    assert len(commands) > before
    assert last_is_hold(commands)
    assert list(gripper[-1].data) == list(gripper[-2].data)
    stamps = [c.header.stamp.sec + c.header.stamp.nanosec / 1e9 for c in commands]
    assert np.all(np.diff(stamps) > 0)
    status = diagnostics[-1].status[0]
    assert status.name == 'policy: control loop'
    values = {pair.key: pair.value for pair in status.values}
    assert int(values['sent']) > 0
    assert values['policy_id'].startswith('run')
    assert 'Traceback' not in policy.output


def test_dry_run_publishes_no_command(ros_domain, run):
    from q_transformer_ros.msg import PolicyStep
    from trajectory_msgs.msg import JointTrajectory

    from qt_ros.nodes.policy import PolicyNode

    with (
        policy_rig.running(policy_rig.robot()) as (client, *_),
        policy_rig.in_process(PolicyNode, run),
    ):
        commands = client.keep(JointTrajectory, '/arm/joint_trajectory')
        steps = client.keep(PolicyStep, '/policy/step')
        handle = client.send_goal(instruction='do it', max_duration_s=1.0, dry_run=True)
        result = client.result(handle)
        client.until(lambda: len(steps) >= result.steps, what='every step')
    assert result.steps >= 8
    assert commands == []
    assert all(len(step.requested) == 3 and not len(step.sent) for step in steps)
    assert {tuple(step.bin_counts) for step in steps} == {(21, 16, 2)}
    assert all(len(step.q_values) == 39 for step in steps)
