"""A policy and a recorder in a namespace: they find each other, and the recording is whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import policy_rig
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('q_transformer_ros', reason='the interfaces are not built')

pytestmark = pytest.mark.ros


def node(name: str, **parameters: object) -> policy_rig.Process:
    given = [part for k, v in parameters.items() for part in ('-p', f'{k}:={v}')]
    rules = ('-r', '__ns:=/left')
    return policy_rig.Process(f'qt_ros.nodes.{name}', '--ros-args', *rules, *given)


def test_the_steps_of_a_namespaced_policy_are_recorded(ros_domain: int, tmp_path: Path):
    from q_transformer_ros.action import RunEpisode
    from q_transformer_ros.msg import PolicyStep
    from q_transformer_ros.srv import EndEpisode, StartEpisode
    from rclpy.action import ActionClient

    run = policy_rig.make_checkpoint(tmp_path / 'run')
    contract = tmp_path / 'contract.yaml'
    contract.write_text(policy_rig.CONTRACT, encoding='utf-8')
    with policy_rig.running(
        policy_rig.robot(),
        node('recorder', contract=contract, out=tmp_path / 'bags'),
        node('policy', checkpoint=run, autostart=True),
    ) as (client, *_):
        steps = client.keep(PolicyStep, '/left/policy/step')
        client.until(lambda: client.node.count_subscribers('/left/policy/step') == 2)
        client.spin(1.0)
        start = StartEpisode.Request(instruction='do it', source='policy')
        started = client.call(StartEpisode, '/left/recorder/start_episode', start)
        assert started.success, started.message
        action = ActionClient(client.node, RunEpisode, '/left/policy/run_episode')
        client.until(action.server_is_ready)
        goal = RunEpisode.Goal(
            instruction='do it', max_duration_s=1.5, episode_id=started.episode_id
        )
        result = client.result(client.wait(action.send_goal_async(goal)))
        assert result.steps > 0, result
        end = EndEpisode.Request(outcome=result.outcome)
        ended = client.call(EndEpisode, '/left/recorder/end_episode', end)
        client.until(lambda: sum(bool(len(s.sent)) for s in steps) == result.steps)
    built, _ = policy_rig.converted(ended.uri)
    rows = {number: row for row, number in enumerate(built.ticks.numbers.tolist())}
    for step in steps:
        if len(step.sent):
            row = built.episode.action[rows[step.step]]
            np.testing.assert_array_equal(row, np.array(step.sent, np.float32))
