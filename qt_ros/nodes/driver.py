"""Drives the robot of a contract with absolute targets, through the limiter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node

from qt_ros.commands import encode_commands, initial_targets
from qt_ros.contract import Contract
from qt_ros.decoding import decode_state
from qt_ros.nodes.ros import (
    NEWEST,
    RELIABLE,
    Polled,
    message_class,
    new_message,
    now_ns,
    take,
    to_ns,
)
from qt_ros.safety import Limiter
from qt_ros.sim.env import check_contract
from qt_ros.sim.scene import JOINTS, STEP_NS
from qt_ros.sim.sensors import ARM_TOPIC

AFTER_NS = STEP_NS  # a command is stamped at least this long after what it is based on


@dataclass(frozen=True)
class _State:
    state: NDArray[np.float32]  # (S,)


class Driver:
    """Listens to the contract's state topics and publishes its commands.

    For the simulated arm: raises SimError for a contract that names anything else.
    """

    def __init__(self, node: Node, contract: Contract) -> None:
        check_contract(contract)
        self._node = node
        self._contract = contract
        self._limiter = Limiter(contract)
        self._last_ns: int | None = None
        self._newest: dict[str, Any] = {}
        types = {stream.topic: stream.type for stream in contract.state}
        group = Polled()
        self._subscriptions = {
            topic: node.create_subscription(
                message_class(kind), topic, lambda message: None, NEWEST, callback_group=group
            )
            for topic, kind in types.items()
        }
        self._topics = tuple(types)
        self._publishers = {
            action.topic: node.create_publisher(message_class(action.type), action.topic, RELIABLE)
            for action in contract.action
        }

    def listen(self) -> None:
        """Take the newest message of every state topic."""
        for topic, subscription in self._subscriptions.items():
            message = take(subscription)
            if message is not None:
                self._newest[topic] = message[0]

    def missing(self) -> list[str]:
        """Return what is not there yet: topics without a message, commands nobody listens to."""
        self.listen()
        silent = [topic for topic in self._topics if topic not in self._newest]
        unheard = [
            f'listener to {topic}'
            for topic, publisher in self._publishers.items()
            if publisher.get_subscription_count() == 0
        ]
        return silent + unheard

    @property
    def newest_ns(self) -> int:
        """Return up to which time every state topic is known (ns)."""
        if len(self._newest) < len(self._topics):
            return 0
        return min(to_ns(msg.header.stamp) for msg in self._newest.values())

    def positions(self, topic: str) -> dict[str, float]:
        """Return the newest positions of a JointState topic by name."""
        msg = self._newest[topic]
        return dict(zip(msg.name, msg.position, strict=True))

    def begin(self) -> None:
        """Start an attempt where the robot is now."""
        parts = [
            decode_state(self._newest[s.topic], s.type, s.fields, s.by_index)
            for s in self._contract.state
        ]
        state = _State(np.concatenate(parts).astype(np.float32))
        self._limiter.reset(initial_targets(self._contract, state))
        self._last_ns = None

    def send(self, command: NDArray[np.float64], based_on_ns: int) -> None:
        """Publish an operator's command (7,), joints [rad] and opening, based on what was at a
        time (ns).
        """
        stamp_ns = max(now_ns(self._node), based_on_ns + AFTER_NS)
        dt_ns = self._contract.period_ns if self._last_ns is None else stamp_ns - self._last_ns
        self._last_ns = stamp_ns
        targets = self._limiter.limit(self._targets(command), dt_ns / 1e9).targets
        messages = encode_commands(
            self._contract, targets, stamp_ns, new_message, self._contract.period_ns / 1e9
        )
        # Those without a header first: whoever stamps them on arrival does so before a simulator
        # that waits for the stamped ones moves its clock on.
        for topic, message in sorted(messages, key=lambda item: hasattr(item[1], 'header')):
            self._publishers[topic].publish(message)

    def _targets(self, command: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a command (7,) in the order of the contract's dimensions."""
        rows = []
        for action in self._contract.action:
            for dim in action.dims:
                rows.append(JOINTS.index(dim.field) if action.topic == ARM_TOPIC else 6)
        return np.asarray(command, np.float64)[rows]
