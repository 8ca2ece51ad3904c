"""Whatever becomes of what the policy sees, the arm ends in the fallback in time, and stands."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import policy_rig
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('q_transformer_ros', reason='the interfaces are not built')

pytestmark = pytest.mark.ros

STALE_S, WATCHDOG_S, SLACK_S = 0.3, 0.3, 1.0  # of the contract; a busy machine


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy_rig.make_checkpoint(tmp_path_factory.mktemp('run'))


class Watch:
    """What a bystander hears while the policy drives."""

    def __init__(self, client: policy_rig.Client) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from sensor_msgs.msg import JointState
        from std_msgs.msg import String
        from trajectory_msgs.msg import JointTrajectory

        self.client = client
        self.commands = client.keep(JointTrajectory, '/arm/joint_trajectory')
        self.joints = client.keep(JointState, '/joint_states')
        self.diagnostics = client.keep(DiagnosticArray, '/diagnostics')
        self._do = client.node.create_publisher(String, '/fake/do', 10)
        client.connect(self._do)

    def spoil(self, what: str) -> None:
        from std_msgs.msg import String

        self._do.publish(String(data=what))

    def drive(self, seconds: float = 60.0) -> Any:
        handle = self.client.send_goal(instruction='do it', max_duration_s=seconds)
        assert handle.accepted
        before = len(self.commands)
        self.client.until(lambda: len(self.commands) > before + 12, what='motion')
        return handle

    def told(self) -> str:
        return policy_rig.told(self.diagnostics)

    def stands(self) -> None:
        """The last command repeats the one before, no more come, and the arm does not move."""
        self.client.spin(0.3)
        last = [list(c.points[0].positions) for c in self.commands[-2:]]
        assert last[0] == last[1]
        count = len(self.commands)
        self.client.spin(1.0)
        assert len(self.commands) == count
        newest = [j for j in self.joints if list(j.name)[:1] == ['one']][-10:]
        if newest:
            positions = np.array([j.position[:1] for j in newest])
            assert np.ptp(positions[np.isfinite(positions)]) < 0.02  # noise of 1 mrad


@pytest.mark.parametrize(
    ('what', 'reason', 'after_s'),
    [
        ('same', 'eye: newest sample of /eye/compressed is', STALE_S + WATCHDOG_S),
        ('black', 'eye: all pixels are the same', WATCHDOG_S),
        ('wrong_size', 'an image of 48x64 (height x width); the episode began with 30x40', 0.0),
        ('mute', 'newest sample of /joint_states is', STALE_S + WATCHDOG_S),
        ('nan', 'joint_states: a number that is not finite', WATCHDOG_S),
        ('other_joints', 'messages lacked some of its fields', STALE_S + WATCHDOG_S),
    ],
)
def test_a_stream_that_fails_ends_the_episode_in_the_fallback(
    ros_domain, run, what, reason, after_s
):
    with policy_rig.running(policy_rig.robot(), policy_rig.policy(run)) as (client, _, policy):
        watch = Watch(client)
        handle = watch.drive()
        answer = handle.get_result_async()
        watch.spoil(what)
        began_s = time.monotonic()
        result = client.wait(answer).result
        took_s = time.monotonic() - began_s
        client.until(lambda: reason in watch.told(), what=f'{reason} on /diagnostics')
        watch.spoil('')  # so that the joint states tell where the arm is
        watch.stands()
    assert (result.outcome, result.termination) == ('aborted', 'fault')
    assert reason in result.message
    assert took_s < after_s + SLACK_S
    assert 'Traceback' not in policy.output


def test_a_camera_whose_process_is_killed_ends_the_episode(ros_domain, run):
    with policy_rig.running(
        policy_rig.robot('--blind'), policy_rig.robot('--eye-only'), policy_rig.policy(run)
    ) as (client, _, camera, _):
        watch = Watch(client)
        answer = watch.drive().get_result_async()
        camera.signal(signal.SIGKILL)
        began_s = time.monotonic()
        result = client.wait(answer).result
        took_s = time.monotonic() - began_s
        client.until(lambda: '/eye/compressed is' in watch.told(), what='the reason')
        watch.stands()
        # It comes back, and so does the policy.
        with policy_rig.robot('--eye-only') as again:
            again.event('ready')
            watch.drive()
    assert (result.outcome, result.termination) == ('aborted', 'fault')
    assert 'stale eye: newest sample of /eye/compressed is' in result.message
    assert took_s < STALE_S + WATCHDOG_S + SLACK_S


def test_joints_in_another_order_change_nothing(ros_domain, run):
    with policy_rig.running(policy_rig.robot(), policy_rig.policy(run)) as (client, *_):
        watch = Watch(client)
        handle = watch.drive(2.0)
        watch.spoil('reversed')
        result = client.result(handle)
    assert result.termination == 'time_limit', result.message
    # The arm follows `one` as before: its deltas start from the right joint.
    ones = np.array([c.points[0].positions[0] for c in watch.commands])
    assert np.abs(ones).max() <= 0.05 + 1e-9
    assert np.abs(np.diff(ones)).max() <= 0.1


def test_a_third_of_all_messages_lost_is_driven_through_or_stopped_at(ros_domain, run):
    with policy_rig.running(
        policy_rig.robot('--loss', '0.3', '--jitter-s', '0.02'), policy_rig.policy(run)
    ) as (client, *_):
        watch = Watch(client)
        result = client.result(watch.drive(4.0))
        watch.stands()
    assert result.termination in ('time_limit', 'fault')
    if result.termination == 'fault':
        assert 'stale' in result.message or 'no command for' in result.message


def test_a_clock_that_jumps_back_ends_the_episode(ros_domain, run):
    from rosgraph_msgs.msg import Clock

    simulated = ('--ros-args', '-p', 'use_sim_time:=true')
    with policy_rig.robot(*simulated) as robot, policy_rig.Client() as client:
        clock = client.node.create_publisher(Clock, '/clock', 10)
        offset_s = [100.0 - time.monotonic()]

        def tick() -> None:
            message = Clock()
            now_s = time.monotonic() + offset_s[0]
            message.clock.sec = int(now_s)
            message.clock.nanosec = int(now_s % 1.0 * 1e9)
            clock.publish(message)

        client.node.create_timer(0.01, tick)
        robot.event('ready')
        with policy_rig.policy(run, use_sim_time=True) as policy:
            client.until(lambda: any('"ready"' in line for line in policy.lines), what='ready')
            watch = Watch(client)
            answer = watch.drive().get_result_async()
            offset_s[0] -= 5.0
            result = client.wait(answer).result
            client.until(lambda: 'the clock went back' in watch.told(), what='the reason')
            watch.stands()
    assert (result.outcome, result.termination) == ('aborted', 'fault')
    assert 'the clock went back by' in result.message
