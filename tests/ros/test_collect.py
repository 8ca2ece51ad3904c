"""The collector closes every episode that it opened, with the outcome that it had."""

from __future__ import annotations

import signal
from pathlib import Path

import policy_rig
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('q_transformer_ros', reason='the interfaces are not built')

pytestmark = pytest.mark.ros


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy_rig.make_checkpoint(tmp_path_factory.mktemp('run'))


def test_attempts_are_recorded_with_their_outcome(ros_domain: int, run: Path, tmp_path: Path):
    """One runs out of time, one is judged a success, one is interrupted by Ctrl-C."""
    from std_msgs.msg import Bool

    with policy_rig.running(
        policy_rig.robot(), policy_rig.recorder(tmp_path), policy_rig.policy(run)
    ) as (client, _, recorder, *_):
        judge = client.node.create_publisher(Bool, '/judge', 10)
        with policy_rig.collector(
            episodes=5,
            instructions=['left', 'right'],
            max_duration_s=2.5,
            reset_service='',
            success_topic='/judge',
        ) as collector:
            recorder.event('start')
            client.connect(judge)
            first = collector.event('episode')
            recorder.event('start')
            client.spin(0.7)
            judge.publish(Bool(data=True))
            client.spin(0.1)
            second = collector.event('episode')
            judge.publish(Bool(data=False))
            recorder.event('start')
            client.spin(0.5)
            collector.signal(signal.SIGINT)
            third = collector.event('episode')
            summary = collector.event('summary')
            assert collector.wait() == 3
        recorded = [recorder.event('recorded') for _ in range(3)]
    assert (first['outcome'], first['instruction']) == ('timeout', 'left')
    assert 20 <= first['steps'] <= 25  # late decisions of a busy machine are not sent
    assert (second['outcome'], second['instruction']) == ('success', 'right')
    assert second['steps'] < 25
    assert (third['outcome'], third['message']) == ('aborted', 'interrupted')
    outcomes = ['timeout', 'success', 'aborted']
    assert [each['outcome'] for each in recorded] == outcomes
    assert summary['outcomes'] == dict.fromkeys(outcomes, 1)
    assert summary['policy_id'].startswith('run')
    for attempt, outcome in zip((first, second, third), outcomes, strict=True):
        built, _ = policy_rig.converted(attempt['bag'])
        assert built.episode.outcome == outcome
        assert built.episode.instruction == attempt['instruction']
        assert built.episode.policy_id == summary['policy_id']


def test_missing_nodes_are_named(ros_domain: int):
    with policy_rig.collector(start_timeout_s=1.0) as collector:
        message = collector.event('error')['message']
        assert collector.wait() == 1
    for name in ('the action of the policy node', 'the recorder', 'the scene'):
        assert name in message
