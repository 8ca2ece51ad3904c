"""Whatever goes wrong while the simulated arm moves: it ends in the fallback in time, and stands.

A program stands between the simulator and the policy and spoils what the policy sees. The arm's
own joint states are heard directly, so they say where it really is.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import policy_rig
import pytest

from qt_ros.resources import resource

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('q_transformer_ros', reason='the interfaces are not built')

pytestmark = pytest.mark.ros

CAMERA, JOINTS = '/front/image/compressed', '/joint_states'
COMMANDS = '/arm_controller/joint_trajectory'
SPOILER = str(Path(__file__).resolve().parent / 'spoiling.py')
STALE_S, WATCHDOG_S = 0.25, 0.3  # of the contract
SLACK_S = 1.0  # a busy machine; and the arm reaches what it was told last
SETTLED_S = 5.0  # at the latest, however far that is
MOVING, STANDING = 0.05, 0.02  # [rad/s] of any joint

STREAMS = [  # what goes wrong, what is said of it, how long the policy may go on [s]
    ('same', 'front: newest sample of', STALE_S + WATCHDOG_S),
    ('black', 'front: all pixels are the same', WATCHDOG_S),
    ('wrong_size', 'an image of 102x102', 0.0),
    ('mute', 'newest sample of /spoilt/joint_states is', STALE_S + WATCHDOG_S),
    ('nan', 'a number that is not finite', WATCHDOG_S),
    ('other_joints', 'messages lacked some of its fields', STALE_S + WATCHDOG_S),
]


class Bystander:
    """Sees the arm move and hears what is said."""

    def __init__(self, client: policy_rig.Client) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Bool, String
        from trajectory_msgs.msg import JointTrajectory

        self.client = client
        self.commands = client.keep(JointTrajectory, COMMANDS)
        self.diagnostics = client.keep(DiagnosticArray, '/diagnostics')
        self.joints: list[tuple[float, np.ndarray, np.ndarray]] = []  # when, positions, velocities
        client.node.create_subscription(JointState, JOINTS, self._on_joints, 100)
        self._do = client.node.create_publisher(String, '/spoil/do', 10)
        self.button = client.node.create_publisher(Bool, '/policy/estop', 10)
        client.connect(self.button)
        client.until(lambda: self._do.get_subscription_count() == 2, what='both spoilers')

    def _on_joints(self, message: Any) -> None:
        position, velocity = np.array(message.position[:6]), np.array(message.velocity[:6])
        self.joints.append((time.monotonic(), position, velocity))

    def spoil(self, what: str) -> None:
        from std_msgs.msg import String

        self._do.publish(String(data=what))

    def drive(self) -> Any:
        """Put the arm back, let the policy drive, wait until the arm moves."""
        from q_transformer_ros.srv import ResetScene

        self.spoil('')
        assert self.client.call(ResetScene, '/sim/reset', ResetScene.Request(seed=1)).success
        self.client.spin(0.5)
        handle = self.client.send_goal(instruction='do it', max_duration_s=60.0)
        assert handle.accepted
        before = len(self.commands)
        self.client.until(
            lambda: len(self.commands) > before + 8 and self.speed() > MOVING, what='motion'
        )
        return handle

    def speed(self) -> float:
        """Return the largest speed of a joint [rad/s]."""
        return float(np.abs(self.joints[-1][2]).max()) if self.joints else 0.0

    def stood_since(self) -> float:
        """Wait until the arm has stood for half a second; return since when it did.

        Not one command may come meanwhile.
        """
        self.client.spin(0.1)  # what was sent before the answer may come after it
        count = len(self.commands)
        self.client.until(lambda: self.moved_s() + 0.5 < time.monotonic(), SETTLED_S, 'standing')
        assert len(self.commands) == count, 'commands after the fallback'
        last = [list(command.points[0].positions) for command in self.commands[-2:]]
        assert last[0] == last[1], 'the last command is not a hold'
        still = [where for at_s, where, _ in self.joints if at_s > self.moved_s() + 0.1]
        assert len(still) > 5, 'too few joint states to tell'
        assert np.ptp(still, axis=0).max() < 0.01
        return self.moved_s()

    def moved_s(self) -> float:
        """Return when the arm moved last."""
        return next(
            at_s for at_s, _, speed in reversed(self.joints) if np.abs(speed).max() > STANDING
        )


def check(watch: Bystander, cause: Callable[[], object], reason: str, within_s: float) -> None:
    """Cause something while the arm moves; it must end as an abort, be told of, and stand."""
    answer = watch.drive().get_result_async()
    began_s = time.monotonic()
    cause()
    result = watch.client.wait(answer).result
    assert (result.outcome, result.termination) == ('aborted', 'fault')
    assert reason in result.message
    watch.client.until(
        lambda: reason in policy_rig.told(watch.diagnostics), what=f'{reason!r} on /diagnostics'
    )
    stood_s = watch.stood_since() - began_s
    assert stood_s < within_s + SLACK_S, f'{reason}: the arm moved for {stood_s:.2f} s'


def test_the_arm_stands_whatever_goes_wrong(ros_domain, tmp_path):
    from lifecycle_msgs.msg import Transition
    from std_msgs.msg import Bool
    from std_srvs.srv import Trigger

    text = resource('config/robots/block_arm.yaml').read_text(encoding='utf-8')
    for topic in (CAMERA, JOINTS):
        text = text.replace(f'topic: {topic}', f'topic: /spoilt{topic}')
    run, start_arm = policy_rig.block_arm(tmp_path / 'run', text)
    with policy_rig.running(
        policy_rig.Process(SPOILER, '--images', CAMERA),
        policy_rig.Process(SPOILER, '--joints', JOINTS),
        start_arm(),
        policy_rig.policy(run, command_rate_hz=30.0, start_timeout_s=30.0),
        ready_s=60.0,
    ) as (client, camera, _, _, policy):
        watch = Bystander(client)

        for what, reason, within_s in STREAMS:
            check(watch, lambda what=what: watch.spoil(what), reason, within_s)

        check(watch, lambda: watch.button.publish(Bool(data=True)), 'emergency stop', 0.0)
        assert not client.send_goal(instruction='do it', max_duration_s=1.0).accepted
        watch.button.publish(Bool(data=False))
        assert client.call(Trigger, '/policy/clear_estop', Trigger.Request()).success

        deactivated = 'the node was deactivated'
        answer = watch.drive().get_result_async()
        client.change_state(Transition.TRANSITION_DEACTIVATE)
        assert deactivated in client.wait(answer).result.message
        watch.stood_since()
        client.change_state(Transition.TRANSITION_ACTIVATE)

        # A network that loses a third of all messages: driven through or stopped at, never wild.
        handle = watch.drive()
        watch.spoil('loss')
        client.spin(3.0)
        client.wait(handle.cancel_goal_async())
        result = client.wait(handle.get_result_async()).result
        assert result.termination in ('canceled', 'fault'), result
        watch.stood_since()

        check(watch, lambda: camera.signal(signal.SIGKILL), 'front: newest sample of', 0.55)
        assert 'Traceback' not in policy.output
