"""Actions converted from a recording of the policy equal the actions that the policy sent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import policy_rig
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('q_transformer_ros', reason='the interfaces are not built')

pytestmark = pytest.mark.ros


def test_actions_come_back_from_the_recording_as_they_were_sent(ros_domain: int, tmp_path: Path):
    from q_transformer_ros.msg import PolicyStep
    from trajectory_msgs.msg import JointTrajectory

    from qt_ros.nodes.ros import to_ns

    run = policy_rig.make_checkpoint(tmp_path / 'run')
    spoilt = ('--jitter-s', '0.06', '--drops', '0.15', '--late', '0.3')
    with policy_rig.running(
        policy_rig.robot(*spoilt), policy_rig.recorder(tmp_path), policy_rig.policy(run)
    ) as (client, *_):
        steps = client.keep(PolicyStep, '/policy/step')
        commands = client.keep(JointTrajectory, '/arm/joint_trajectory')
        result, bag = client.record(instruction='do it', max_duration_s=5.0)
        client.until(lambda: len(steps) >= result.steps, what='every step')
    built, _ = policy_rig.converted(bag)
    rows = {number: row for row, number in enumerate(built.ticks.numbers.tolist())}
    sent = [step for step in steps if len(step.sent)]
    assert len(sent) == result.steps >= 25
    assert any(any(step.limited) for step in sent)
    for step in sent:
        row = rows[step.step]
        assert list(step.dims) == ['one', 'two', 'gripper']
        np.testing.assert_array_equal(
            built.episode.action[row], np.array(step.sent, np.float32), f'tick {step.step}'
        )
        np.testing.assert_array_equal(
            built.episode.requested[row], np.array(step.requested, np.float32)
        )
        for name, was_limited, asked, got in zip(
            step.dims, step.limited, step.requested, step.sent, strict=True
        ):
            # A delta goes through the absolute target and back: that may cost the last digits.
            assert was_limited or abs(got - asked) < 1e-12, f'tick {step.step}, {name}'
    # Commands are more frequent than decisions; the last one of a tick is what was decided.
    by_stamp = {to_ns(c.header.stamp): c.points[0].positions for c in commands}
    told = [[to_ns(stamp) for stamp in step.command_stamps] for step in sent]
    assert np.median([len(stamps) for stamps in told]) >= 3
    reached = 0
    for step in sent:
        t_ns, last_ns = to_ns(step.tick), to_ns(step.command_stamp)
        in_tick = [stamp for stamp in by_stamp if t_ns < stamp <= t_ns + 100_000_000]
        assert last_ns == max(in_tick), f'tick {step.step}'
        if not step.limited[1]:
            assert by_stamp[last_ns][1] == step.requested[1]
            reached += 1
    assert reached
    assert built.episode.source == 'policy'
    _, disorder = policy_rig.heard_by_the_recorder(bag)
    assert all(each['backwards'] for each in disorder.values()), 'nothing came out of order'
