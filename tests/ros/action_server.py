"""An action server of the test's own: it accepts, refuses, takes its time, and tells every goal.

Run as a program by the tests: NAME TYPE [--answer-s S] [--refuse] [--result-s S]. What it does
with the next goals can be changed over /fake_server/do: 'accept' or 'refuse'.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from typing import Any

import rclpy
from rclpy.action import ActionServer, GoalResponse
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import String

from qt_ros.nodes.ros import message_class


class Server(Node):
    """Serves one action."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__('fake_server')
        self.options = options
        self.refusing = options.refuse
        self.kind = message_class(options.type)
        self.create_subscription(String, '/fake_server/do', self.on_do, 10)
        self.server = ActionServer(
            self, self.kind, options.name, self.execute, goal_callback=self.on_goal
        )

    def on_do(self, message: String) -> None:
        self.refusing = message.data == 'refuse'

    def on_goal(self, goal: Any) -> GoalResponse:
        time.sleep(self.options.answer_s)
        tell('goal', refused=self.refusing, numbers=numbers(goal))
        return GoalResponse.REJECT if self.refusing else GoalResponse.ACCEPT

    def execute(self, handle: Any) -> Any:
        time.sleep(self.options.result_s)
        handle.succeed()
        return self.kind.Result()


def numbers(goal: Any) -> list[Any]:
    """Return what a goal asks for."""
    command = getattr(goal, 'command', None)
    if command is None:
        return [goal.max_duration_s]
    if hasattr(command, 'name'):
        return [*command.name, *command.position, *command.effort]
    return [command.position, command.max_effort]


def tell(event: str, **fields: Any) -> None:
    print('QT ' + json.dumps({'event': event, **fields}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('name')
    parser.add_argument('type')
    parser.add_argument('--answer-s', type=float, default=0.0)
    parser.add_argument('--result-s', type=float, default=0.0)
    parser.add_argument('--refuse', action='store_true')
    rclpy.init()
    executor = MultiThreadedExecutor(num_threads=4)
    executor.add_node(Server(parser.parse_args()))
    tell('ready')
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        executor.spin()


if __name__ == '__main__':
    sys.exit(main())
