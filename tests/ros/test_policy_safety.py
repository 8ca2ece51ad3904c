"""People stop the robot, enable it, take over; processes die: the arm stands, and it is told."""

from __future__ import annotations

import signal
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


def trigger(client: policy_rig.Client, name: str) -> Any:
    from std_srvs.srv import Trigger

    return client.call(Trigger, f'/policy/{name}', Trigger.Request())


def set_parameters(client: policy_rig.Client, **values: Any) -> None:
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    parameters = [Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
    request = SetParameters.Request(parameters=parameters)
    answer = client.call(SetParameters, '/policy/set_parameters', request)
    assert all(result.successful for result in answer.results), answer.results


def test_an_emergency_stop_is_latched(ros_domain, run):
    """By topic and by service, in an episode that a Trigger service started."""
    from diagnostic_msgs.msg import DiagnosticArray
    from std_msgs.msg import Bool
    from trajectory_msgs.msg import JointTrajectory

    with policy_rig.running(policy_rig.robot(), policy_rig.policy(run)) as (client, _, policy):
        commands = client.keep(JointTrajectory, '/arm/joint_trajectory')
        diagnostics = client.keep(DiagnosticArray, '/diagnostics')
        button = client.node.create_publisher(Bool, '/policy/estop', 10)
        client.connect(button)
        assert not trigger(client, 'stop').success
        set_parameters(client, instruction='do it', max_duration_s=60.0)
        started = trigger(client, 'start')
        assert started.success, started.message
        assert 'already running' in trigger(client, 'start').message
        client.until(lambda: len(commands) > 12, what='motion')
        button.publish(Bool(data=True))
        ended = policy.event('episode')
        assert ended['termination'] == 'fault'
        assert ended['episode_id'] == started.message
        assert 'emergency stop: pressed on its topic' in ended['message']
        client.spin(0.3)
        before = len(commands)
        assert list(commands[-1].points[0].positions) == list(commands[-2].points[0].positions)
        button.publish(Bool(data=False))  # does not clear it
        client.spin(0.3)
        refused = trigger(client, 'start')
        assert not refused.success
        assert 'emergency stop' in refused.message
        assert not client.send_goal(instruction='do it', max_duration_s=1.0).accepted
        client.until(
            lambda: 'emergency stop' in diagnostics[-1].status[0].message, what='the reason'
        )
        assert diagnostics[-1].status[0].level == b'\x02'
        assert len(commands) == before
        assert trigger(client, 'clear_estop').success
        assert trigger(client, 'start').success
        client.until(lambda: len(commands) > before + 12, what='motion again')
        assert trigger(client, 'estop').success
        assert 'pressed by its service' in policy.event('episode')['message']
        trigger(client, 'clear_estop')
        assert trigger(client, 'start').success
        assert trigger(client, 'stop').success
        assert policy.event('episode')['termination'] == 'canceled'
    assert 'Traceback' not in policy.output


def test_nothing_moves_unless_somebody_enables_it(ros_domain, run):
    from std_msgs.msg import Bool
    from trajectory_msgs.msg import JointTrajectory

    with policy_rig.running(policy_rig.robot(), policy_rig.policy(run, enable_timeout_s=1.0)) as (
        client,
        *_,
    ):
        commands = client.keep(JointTrajectory, '/arm/joint_trajectory')
        assert not client.send_goal(instruction='do it', max_duration_s=1.0).accepted
        enable = client.node.create_publisher(Bool, '/policy/enable', 10)
        client.connect(enable)
        timer = client.node.create_timer(0.05, lambda: enable.publish(Bool(data=True)))
        client.spin(0.3)
        answer = client.send_goal(instruction='do it', max_duration_s=60.0).get_result_async()
        client.until(lambda: len(commands) > 12, what='motion')
        client.node.destroy_timer(timer)  # the hand lets go
        result = client.wait(answer).result
        client.spin(0.3)
        count = len(commands)
        client.spin(0.5)
    assert result.termination == 'fault'
    assert 'not enabled: nothing heard for 1 s' in result.message
    assert list(commands[-1].points[0].positions) == list(commands[-2].points[0].positions)
    assert len(commands) == count


def test_a_person_takes_over_and_the_recording_says_so(ros_domain, run, tmp_path):
    """Rows carry the intervention, the episode is mixed, and actions are what went out."""
    from q_transformer_ros.msg import PolicyStep
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

    text = policy_rig.CONTRACT.replace('position: [-0.05, 0.05]', 'position: [-0.5, 0.5]')
    with policy_rig.running(
        policy_rig.robot(),
        policy_rig.recorder(tmp_path),
        policy_rig.policy(
            policy_rig.make_checkpoint(tmp_path / 'run', text), teleop_prefix='/teleop'
        ),
    ) as (client, *_):
        steps = client.keep(PolicyStep, '/policy/step')
        stick = client.node.create_publisher(JointTrajectory, '/teleop/arm/joint_trajectory', 10)
        client.connect(stick)

        def push() -> None:
            if 10 <= (steps[-1].step if steps else 0) < 25:
                point = JointTrajectoryPoint(positions=[0.4])
                stick.publish(JointTrajectory(joint_names=['one'], points=[point]))

        client.node.create_timer(0.05, push)
        result, bag = client.record(instruction='do it', max_duration_s=5.0)
        client.until(lambda: len(steps) >= result.steps, what='every step')
    assert result.termination == 'time_limit', result.message
    built, _ = policy_rig.converted(bag)
    rows = {number: row for row, number in enumerate(built.ticks.numbers.tolist())}
    sent = [step for step in steps if len(step.sent)]
    driven = [step for step in sent if 'takeover' in step.limit_reasons]
    assert len(driven) > 5
    for step in sent:
        np.testing.assert_array_equal(
            built.episode.action[rows[step.step]], np.array(step.sent, np.float32), str(step.step)
        )
    assert built.episode.source == 'mixed'
    marked = built.episode.intervention
    inner = [rows[step.step] for step in driven][1:-1]
    assert marked[inner].all()
    assert not marked[rows[sent[0].step]]
    assert not marked[rows[sent[-1].step]]
    # The arm went where the person wanted it to be.
    there = np.cumsum([step.sent[0] for step in sent])[sent.index(driven[-2])]
    assert there == pytest.approx(0.4, abs=0.05)


def test_an_arm_whose_policy_is_killed_stands_still(ros_domain, tmp_path):
    """SIGKILL: no last command. What was commanded is reached within a slot, and held."""
    from sensor_msgs.msg import JointState

    run, start_arm = policy_rig.block_arm(tmp_path / 'run')
    with policy_rig.running(start_arm(), ready_s=60.0) as (client, *_):
        joints = client.keep(JointState, '/joint_states')
        with policy_rig.policy(run) as policy:
            policy.event('ready')
            assert client.send_goal(instruction='do it', max_duration_s=60.0).accepted
            client.until(
                lambda: joints and max(np.abs(joints[-1].velocity[:6])) > 0.05, what='motion'
            )
            policy.signal(signal.SIGKILL)
            policy.wait()
        client.spin(1.5)
        count = len(joints)
        client.until(lambda: len(joints) > count + 10, what='joint states')
        assert max(np.abs(joint.velocity[:6]).max() for joint in joints[-10:]) < 0.05
        moved = np.ptp([joint.position[:6] for joint in joints[-10:]], axis=0)
        assert moved.max() < 0.01


def test_a_restarted_simulator_is_driven_again(ros_domain, tmp_path):
    """The robot is gone (SIGKILL): the fallback in time, the reason told; then it is back."""
    from diagnostic_msgs.msg import DiagnosticArray
    from trajectory_msgs.msg import JointTrajectory

    run, start_arm = policy_rig.block_arm(tmp_path / 'run')
    with policy_rig.Client() as client:
        commands = client.keep(JointTrajectory, '/arm_controller/joint_trajectory')
        diagnostics = client.keep(DiagnosticArray, '/diagnostics')
        with start_arm() as arm:
            arm.event('ready', 60.0)
            with policy_rig.policy(run, start_timeout_s=30.0) as policy:
                policy.event('ready')
                answer = client.send_goal(instruction='do it', max_duration_s=60.0)
                answer = answer.get_result_async()
                client.until(lambda: len(commands) > 12, what='motion')
                arm.signal(signal.SIGKILL)
                result = client.wait(answer).result
                client.spin(0.3)
                last = [list(c.points[0].positions) for c in commands[-2:]]
                client.until(
                    lambda: 'newest sample of' in diagnostics[-1].status[0].message,
                    what='the reason',
                )
                with start_arm() as again:
                    again.event('ready', 60.0)
                    before = len(commands)
                    handle = client.send_goal(instruction='do it', max_duration_s=60.0)
                    client.until(lambda: len(commands) > before + 12, 40.0, 'motion again')
                    client.wait(handle.cancel_goal_async())
    assert (result.outcome, result.termination) == ('aborted', 'fault')
    assert 'stale' in result.message
    assert last[0] == last[1]
