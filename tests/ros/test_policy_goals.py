"""Commands as goals of an action: real servers that accept, refuse, dawdle, die and come back.

They serve an action that is always installed; what the policy node makes of a gripper's own
actions is in `test_policy_outputs.py`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import policy_rig
import pytest

from qt_ros.contract import Contract
from qt_ros.nodes.control.checks import Seen, robot_problems

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('q_transformer_ros', reason='the interfaces are not built')

pytestmark = pytest.mark.ros
NAME = '/gripper/cmd'
PERIOD_S = 0.05


class Sender:
    """A node with a `GoalSender`, which wants something 20 times a second."""

    def __init__(self, client: policy_rig.Client) -> None:
        from q_transformer_ros.action import RunEpisode

        from qt_ros.nodes.control.goals import GoalSender

        self.client = client
        self.kind = RunEpisode
        self.goals = GoalSender(client.node, NAME, RunEpisode)
        self.longest_s = 0.0

    def want(self, value: float, seconds: float = 0.5) -> None:
        """Want a goal again and again for a while."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            start_s = time.monotonic()
            self.goals.want((value,), self.kind.Goal(max_duration_s=value))
            self.longest_s = max(self.longest_s, time.monotonic() - start_s)
            self.client.spin(PERIOD_S)

    def want_until(self, value: float, count: str, number: int) -> None:
        """Want a goal until so many were counted as `count`."""
        deadline_s = time.monotonic() + 30.0
        while self.goals.counts[count] < number:
            assert time.monotonic() < deadline_s, (count, self.goals.counts, self.goals.problems())
            self.want(value, PERIOD_S)


def test_an_action_of_another_type_is_named():
    text = policy_rig.CONTRACT.replace('field: "0"', 'field: position').replace(
        'std_msgs/msg/Float64MultiArray', 'control_msgs/action/GripperCommand'
    )
    contract = Contract.parse(text)
    types = {'/gripper/commands/_action/feedback': ['a/action/Other_FeedbackMessage']}
    found = robot_problems(contract, Seen(types, {}, {}))
    assert (
        '/gripper/commands is the action a/action/Other, the contract says '
        'control_msgs/action/GripperCommand'
    ) in found
    right = {'/gripper/commands/_action/feedback': [
        'control_msgs/action/GripperCommand_FeedbackMessage']}  # fmt: skip
    assert not any('is the action' in p for p in robot_problems(contract, Seen(right, {}, {})))


def server(*options: str) -> policy_rig.Process:
    program = str(policy_rig.HERE / 'action_server.py')
    return policy_rig.Process(program, NAME, 'q_transformer_ros/action/RunEpisode', *options)


@contextmanager
def sending() -> Iterator[Sender]:
    with policy_rig.Client() as client:
        sender = Sender(client)
        try:
            yield sender
        finally:
            sender.goals.close()


def goals_of(process: policy_rig.Process) -> list[float]:
    """Return the numbers of the goals that a server told of, once."""
    found: list[float] = []
    while True:
        try:
            found += process.event('goal', 0.2)['numbers']
        except AssertionError:
            return found


def test_a_goal_goes_out_when_it_changes_and_only_then(ros_domain: int):
    with server() as process, sending() as sender:
        process.event('ready')
        sender.want_until(1.0, 'reached', 1)
        sender.want(1.0)
        sender.want_until(0.0, 'reached', 2)
        sender.want(0.0)
        sender.want_until(1.0, 'reached', 3)
        assert goals_of(process) == [1.0, 0.0, 1.0]
        assert sender.goals.problems() == []
        # After a pause somebody else may have moved it.
        sender.client.spin(1.5)
        sender.want_until(1.0, 'reached', 4)
        assert sender.goals.counts['sent'] == 4


def test_without_a_server_nothing_is_waited_for_and_the_first_one_gets_the_goal(ros_domain: int):
    with sending() as sender:
        sender.want(1.0)
        assert sender.goals.counts['sent'] == 0
        (problem,) = sender.goals.problems()
        assert f'nobody serves the action {NAME}' in problem
        with server() as process:
            process.event('ready')
            sender.want_until(1.0, 'reached', 1)
            assert goals_of(process) == [1.0]
    assert sender.longest_s < 0.5


def test_a_refused_goal_is_counted_told_and_tried_again(ros_domain: int):
    from std_msgs.msg import String

    with server('--refuse') as process, sending() as sender:
        process.event('ready')
        sender.want_until(0.25, 'refused', 2)
        (problem,) = sender.goals.problems()
        assert f'{NAME} refused the goal 0.25' in problem
        assert sender.goals.counts['sent'] == sender.goals.counts['refused']
        switch = sender.client.node.create_publisher(String, '/fake_server/do', 10)
        sender.client.connect(switch)
        switch.publish(String(data='accept'))
        sender.want_until(0.25, 'accepted', 1)
        assert sender.goals.problems() == []


def test_a_slow_server_holds_nobody_up_and_gets_the_newest_goal(ros_domain: int):
    with server('--answer-s', '4.0') as process, sending() as sender:
        process.event('ready')
        for value in (0.1, 0.2, 0.3):
            sender.want_until(value, 'sent', 1)
        assert sender.goals.counts['sent'] == 1  # the others wait for the answer
        sender.want_until(0.4, 'unanswered', 1)
        sender.want(0.4, 1.5)
        problems: list[Any] = []
        while not problems:
            sender.want(0.4, PERIOD_S)
            problems = sender.goals.problems()
        assert 'has not answered a goal for' in problems[0]
        found = goals_of(process)
        assert sender.longest_s < 2.0, 'the server was waited for'
    assert 0.2 not in found
    assert 0.3 not in found


def test_a_server_that_was_killed_gets_the_last_goal_when_it_is_back(ros_domain: int):
    with sending() as sender:
        with server() as first:
            first.event('ready')
            sender.want_until(0.75, 'reached', 1)
            first.signal(signal.SIGKILL)
            assert first.wait() == -signal.SIGKILL
        with server() as second:
            sender.want_until(0.75, 'reached', 2)
            assert set(goals_of(second)) == {0.75}
        assert sender.goals.counts['resent'] == 1, sender.goals.counts
    assert sender.longest_s < 0.5
