"""What people may say to the policy node while it drives: stop, go on, you may, I take over.

~/estop        std_msgs/Bool, true stops; and a Trigger service of the same name: latched
~/clear_estop  Trigger: the only way out of it
~/enable       std_msgs/Bool, where `enable_timeout_s` asks for it: true at least that often
PREFIX/TOPIC   where `teleop_prefix` is given: a person's commands for the command TOPIC
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from q_transformer_ros.msg import EpisodeEvent
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from qt_ros.commands import CommandError, decode_command
from qt_ros.contract import ActionTopic, Contract
from qt_ros.decoding import DecodeError
from qt_ros.interlocks import Deadman, EmergencyStop
from qt_ros.nodes.control.records import Goal
from qt_ros.nodes.ros import EVENTS, message_class, to_stamp


class Guards:
    """The emergency stop and the enable topic of a node, from its start to its end."""

    def __init__(
        self,
        node: LifecycleNode,
        steady_ns: Callable[[], int],
        enable_timeout_s: Callable[[], float],
        stopped: Callable[[str], None],
    ) -> None:
        """stopped(reason): called at once when the emergency stop is pressed, or enabling ends."""
        self._logger = node.get_logger()
        self._steady_ns = steady_ns
        self._enable_timeout_s = enable_timeout_s
        self._stopped = stopped
        self.estop = EmergencyStop()
        self._deadman = Deadman(0.0)
        node.create_subscription(Bool, '~/estop', self._on_estop, 10)
        node.create_service(Trigger, '~/estop', self._on_estop_service)
        node.create_service(Trigger, '~/clear_estop', self._on_clear)
        node.create_subscription(Bool, '~/enable', self._on_enable, 10)

    def problem(self) -> str:
        """Say why nothing may move, or ''."""
        self._deadman.timeout_s = self._enable_timeout_s()
        return self.estop.problem() or self._deadman.problem(self._steady_ns())

    def values(self) -> dict[str, str]:
        """Return the key-value pairs for diagnostics."""
        return {'estop': str(bool(self.estop.problem())), 'estop.pressed': str(self.estop.pressed)}

    def _press(self, reason: str) -> None:
        if self.estop.press(reason):
            self._logger.error(f'emergency stop: {reason}')
            self._stopped(self.estop.problem())

    def _on_estop(self, message: Bool) -> None:
        if message.data:  # a false does not clear it: that takes the service
            self._press('pressed on its topic')

    def _on_estop_service(self, request: Any, response: Any) -> Any:
        del request
        self._press('pressed by its service')
        response.success, response.message = True, self.estop.problem()
        return response

    def _on_clear(self, request: Any, response: Any) -> Any:
        del request
        response.success = True
        was = self.estop.clear()
        response.message = 'cleared; start again when ready' if was else 'it was not pressed'
        if was:
            self._logger.warning('the emergency stop was cleared')
        return response

    def _on_enable(self, message: Bool) -> None:
        self._deadman.timeout_s = self._enable_timeout_s()
        was_enabled = not self._deadman.problem(self._steady_ns())
        self._deadman.hear(message.data, self._steady_ns())
        problem = self._deadman.problem(self._steady_ns())
        if was_enabled and problem:
            self._stopped(problem)


class TeleopListener:
    """Hands on a person's commands, and tells recordings when a person drove."""

    def __init__(
        self,
        node: LifecycleNode,
        contract: Contract,
        prefix: str,
        command: Callable[[slice, NDArray[np.float64]], None],
    ) -> None:
        """command(columns, targets): of the dimensions of one command topic."""
        self._node = node
        self._command = command
        self._contract = contract
        self._subscriptions = []
        start = 0
        for action in contract.action:
            columns = slice(start, start + len(action.dims))
            start = columns.stop
            self._subscriptions.append(
                node.create_subscription(
                    message_class(action.type),
                    f'{prefix.rstrip("/")}{action.topic}',
                    lambda message, a=action, c=columns: self._on_command(a, c, message),
                    10,
                )
            )
        topic = contract.episodes.topic or '/episode/events'
        self._events = node.create_publisher(EpisodeEvent, topic, EVENTS)

    def mark(self, goal: Goal, by_person: bool, policy_id: str, now_ns: int) -> None:
        """Publish that a person took over, or gave control back."""
        kinds = (EpisodeEvent.INTERVENTION_STOP, EpisodeEvent.INTERVENTION_START)
        event = EpisodeEvent(
            kind=kinds[by_person],
            episode_id=goal.episode_id,
            instruction=goal.instruction,
            source='mixed',
            policy_id=policy_id,
        )
        event.header.stamp = to_stamp(now_ns)
        self._events.publish(event)

    def close(self) -> None:
        """Stop listening."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._node.destroy_publisher(self._events)

    def _on_command(self, action: ActionTopic, columns: slice, message: Any) -> None:
        try:
            targets = decode_command(action, message)
        except (CommandError, DecodeError) as error:
            self._node.get_logger().warning(
                f'a command of the person was refused: {error}', throttle_duration_sec=1.0
            )
            return
        self._command(columns, targets)
