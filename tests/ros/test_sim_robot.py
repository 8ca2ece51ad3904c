"""The simulated robot over real topics: rates, stamps, resets, and commands it must refuse."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy')

from probe import Probe
from q_transformer_ros.srv import ResetScene
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qt_ros.nodes.ros import LATCHED, to_ns, to_stamp
from qt_ros.processes import NodeGroup
from qt_ros.sim.scene import JOINTS

pytestmark = pytest.mark.ros

SENSORS = {
    '/joint_states': ('sensor_msgs/msg/JointState', 50),
    '/arm_controller/reference': ('sensor_msgs/msg/JointState', 50),
    '/sim/ground_truth': ('geometry_msgs/msg/PoseArray', 50),
    '/front/image/compressed': ('sensor_msgs/msg/CompressedImage', 20),
    '/wrist/image/compressed': ('sensor_msgs/msg/CompressedImage', 20),
}
ARM = '/arm_controller/joint_trajectory'
GRIPPER = '/gripper_controller/commands'


@pytest.fixture
def probe(ros_domain: int) -> Iterator[Probe]:
    probe = Probe(ros_domain)
    yield probe
    probe.close()


@pytest.fixture
def group(ros_domain: int, tmp_path: Path) -> Iterator[NodeGroup]:
    with NodeGroup(tmp_path / 'logs') as group:
        yield group
        group.check()


def trajectory(positions: list[float], stamp_ns: int = 0, joints=JOINTS) -> JointTrajectory:
    msg = JointTrajectory(joint_names=list(joints))
    msg.header.stamp = to_stamp(stamp_ns)
    point = JointTrajectoryPoint(positions=positions)
    point.time_from_start.nanosec = 100_000_000
    msg.points = [point]
    return msg


def stamps(probe: Probe, topic: str) -> np.ndarray:
    return np.array([to_ns(msg.header.stamp) for msg in probe.heard[topic]])


def test_real_time_robot(group: NodeGroup, probe: Probe) -> None:
    sim = group.start('sim_robot', {'image_height': 48, 'image_width': 80})
    sim.wait_for('ready', 30.0)
    for topic, (kind, _) in SENSORS.items():
        probe.listen(topic, kind)
    probe.listen('/sim/success', 'std_msgs/msg/Bool', LATCHED)
    probe.until(lambda: all(len(probe.heard[topic]) >= 20 for topic in SENSORS))

    for topic, (_, rate_hz) in SENSORS.items():
        gaps = np.diff(stamps(probe, topic))
        assert (gaps > 0).all()
        assert np.median(gaps) == pytest.approx(10**9 / rate_hz, rel=0.1), topic
    assert not probe.heard['/sim/success'][-1].data
    _resets_the_scene(probe)
    _refuses_what_is_wrong(probe, sim.tail)
    _obeys_what_is_right(probe)


def test_stamps_are_true_again_after_a_stall(group: NodeGroup, probe: Probe) -> None:
    sim = group.start('sim_robot')
    sim.wait_for('ready', 30.0)
    probe.listen('/joint_states', 'sensor_msgs/msg/JointState')
    probe.until(lambda: bool(probe.heard['/joint_states']))
    os.kill(sim.pid, signal.SIGSTOP)
    probe.spin(1.0)
    os.kill(sim.pid, signal.SIGCONT)
    probe.spin(0.5)
    probe.heard['/joint_states'].clear()
    probe.until(lambda: len(probe.heard['/joint_states']) >= 5)
    age_ns = time.time_ns() - stamps(probe, '/joint_states')[-1]
    assert age_ns < 500_000_000  # not the second that was lost


def _resets_the_scene(probe: Probe) -> None:
    first = probe.call(ResetScene, '/sim/reset', instruction='pick up the blue block', seed=7)
    assert first.success
    assert first.seed == 7
    probe.heard['/sim/ground_truth'].clear()
    probe.until(lambda: bool(probe.heard['/sim/ground_truth']))
    start = _blocks(probe)
    for topic in SENSORS:  # the full set comes at once, not with the next period
        probe.until(lambda topic=topic: bool(probe.heard[topic]))
    unknown = probe.call(ResetScene, '/sim/reset', instruction='make coffee', seed=1)
    assert not unknown.success
    assert 'pick up the blue block' in unknown.message
    drawn = probe.call(ResetScene, '/sim/reset', instruction='', seed=-1)
    assert drawn.success
    assert drawn.message == 'pick up the blue block'
    probe.call(ResetScene, '/sim/reset', instruction='', seed=7)
    probe.heard['/sim/ground_truth'].clear()
    probe.until(lambda: bool(probe.heard['/sim/ground_truth']))
    np.testing.assert_allclose(_blocks(probe), start, atol=1e-3)


def _refuses_what_is_wrong(probe: Probe, log) -> None:
    before = _newest_reference(probe)
    arm = probe.publisher(ARM, 'trajectory_msgs/msg/JointTrajectory')
    nan = [*before[:5].tolist(), float('nan')]
    arm.publish(trajectory(nan))
    probe.until(lambda: 'wrist_rotate is not a finite number' in log())
    probe.spin(1.1)  # warnings are throttled
    arm.publish(trajectory((before + 0.1).tolist(), joints=['waist', 'hip', *JOINTS[2:]]))
    probe.until(lambda: 'hip' in log())
    gripper = probe.publisher(GRIPPER, 'std_msgs/msg/Float64MultiArray')
    gripper.publish(gripper.msg_type(data=[float('nan')]))
    probe.until(lambda: 'gripper command' in log())
    np.testing.assert_array_equal(_newest_reference(probe), before)


def _obeys_what_is_right(probe: Probe) -> None:
    before = _newest_reference(probe)
    target = before + np.array([0.1, 0.0, 0.0, 0.0, 0.0, -0.1])
    arm = probe.publisher(ARM, 'trajectory_msgs/msg/JointTrajectory')
    shuffled = list(reversed(JOINTS))
    arm.publish(trajectory(target[::-1].tolist(), joints=shuffled))
    probe.until(lambda: np.allclose(_newest_reference(probe), target))
    positions = np.array([msg.position[0] for msg in probe.heard['/arm_controller/reference']])
    between = positions[(positions > before[0] + 1e-6) & (positions < target[0] - 1e-6)]
    assert len(between) >= 2  # time_from_start is honoured: a ramp, not a jump


def _newest_reference(probe: Probe) -> np.ndarray:
    heard = probe.heard['/arm_controller/reference']
    count = len(heard)
    probe.until(lambda: len(heard) > count)
    return np.array(heard[-1].position[:6])


def _blocks(probe: Probe) -> np.ndarray:
    poses = probe.heard['/sim/ground_truth'][-1].poses
    return np.array([[pose.position.x, pose.position.y, pose.position.z] for pose in poses])


def test_lockstep_waits_for_both_commands_of_a_tick(group: NodeGroup, probe: Probe) -> None:
    group.start('sim_robot', {'lockstep': True}).wait_for('ready', 30.0)
    probe.listen('/clock', 'rosgraph_msgs/msg/Clock')
    probe.listen('/joint_states', 'sensor_msgs/msg/JointState')
    probe.listen('/arm_controller/reference', 'sensor_msgs/msg/JointState')
    arm = probe.publisher(ARM, 'trajectory_msgs/msg/JointTrajectory')
    gripper = probe.publisher(GRIPPER, 'std_msgs/msg/Float64MultiArray')
    target = _newest_reference(probe).tolist()  # nobody drives: time goes on all the same

    arm.publish(trajectory(target, _clock_ns(probe)))
    gripper.publish(gripper.msg_type(data=[1.0]))
    probe.spin(0.5)
    stands_ns = _clock_ns(probe)  # from here on time waits for the driver
    for order in ((arm, gripper), (gripper, arm), (gripper, arm), (arm, gripper)):
        messages = {arm: trajectory(target, stands_ns), gripper: gripper.msg_type(data=[1.0])}
        order[0].publish(messages[order[0]])
        probe.spin(0.2)
        assert _clock_ns(probe) == stands_ns, 'time went on with half of a command'
        order[1].publish(messages[order[1]])
        hold_ns = stands_ns + 100_000_000
        probe.until(lambda hold_ns=hold_ns: _clock_ns(probe) >= hold_ns)
        probe.spin(0.2)
        stands_ns = _clock_ns(probe)
        assert hold_ns <= stands_ns <= hold_ns + 5_000_000
        # The clock never stands where sensors were captured: a command cannot carry their stamp.
        assert stands_ns not in stamps(probe, '/joint_states')


def _clock_ns(probe: Probe) -> int:
    return to_ns(probe.heard['/clock'][-1].clock)
