"""The robot as the policy hears it: a subscription per observation topic, newest samples kept.

Images are taken as they come, for they are decoded ahead of time. Numbers may come 500 times a
second, and to be woken by each costs an executor more than all the rest of the node: they are
taken when somebody is about to look at them. Their time of arrival is the middleware's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.subscription import Subscription

from qt_ros.arrivals import Arrivals
from qt_ros.contract import Camera, Contract
from qt_ros.interlocks import ReceiveGate
from qt_ros.nodes.control.checks import Seen, robot_problems
from qt_ros.nodes.ros import Polled, message_class, subscription_qos, take, with_info
from qt_ros.observation import ObservationSampler, stamp_of

POLL_S = 0.02
QUEUE = {True: 10, False: 200}  # is it a camera: messages that wait to be taken


class RobotListener:
    """Subscribes to what a contract observes and stores every message under its stamp."""

    def __init__(
        self,
        node: Node,
        contract: Contract,
        seen: Callable[[Any, Camera], None] = lambda message, camera: None,
    ) -> None:
        """seen(message, camera): called for every image."""
        self._seen_image = seen
        self._cameras: dict[str, list[Camera]] = {}
        for camera in contract.cameras:
            self._cameras.setdefault(camera.topic, []).append(camera)
        self._node = node
        self._contract = contract
        self._types = {s.topic: s.type for s in contract.observed}
        self._subscriptions: dict[str, Subscription] = {}
        self._polled = Polled()
        self._newest: dict[str, Any] = {}
        self._streams: dict[str, list[str]] = {}
        for item in contract.observed:
            self._streams.setdefault(item.topic, []).append(item.stream)
        self.gate = ReceiveGate({s.stream: round(s.max_age_s * 1e9) for s in contract.observed})
        self.sampler = self.forget()
        self._counted = {topic: Arrivals() for topic in self._types}

        self._since = dict.fromkeys(self._types, (0, 0))  # topic -> counts at `count_anew`
        self._told = dict.fromkeys(self._types, 0)  # topic -> messages at `lately`

    def count_anew(self) -> None:
        """Count messages from now on."""
        self._since = {topic: each.counts for topic, each in self._counted.items()}

    def counted(self) -> dict[str, tuple[int, int]]:
        """Return {stream: (messages received, lost)} since then."""
        return {
            stream: self._counted[topic].since(self._since[topic])
            for topic, streams in self._streams.items()
            for stream in streams
        }

    def lately(self) -> dict[str, int]:
        """Return {topic: messages received} since this was asked last."""
        before, self._told = self._told, {t: each.received for t, each in self._counted.items()}
        return {topic: count - before[topic] for topic, count in self._told.items()}

    def wait(self, timeout_s: float, stopped: Callable[[], bool]) -> list[str]:
        """Wait until the running robot fits the contract; return what it still lacks.

        Works without an executor, which a lifecycle transition holds up: it takes the messages out
        of the subscriptions itself.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._subscribe()
            self._take()
            problems = robot_problems(self._contract, self._seen())
            if not problems or stopped() or time.monotonic() > deadline_s:
                return problems
            time.sleep(POLL_S)

    def forget(self) -> ObservationSampler:
        """Start over with empty buffers, as when the clock jumped; return them."""
        self.listen()  # what waits was stamped before, too
        longest_s = max(s.max_age_s for s in self._contract.observed)
        self.sampler = ObservationSampler(self._contract, keep_ns=round((longest_s + 1.0) * 1e9))
        self.gate.forget()
        return self.sampler

    def close(self) -> None:
        """Drop the subscriptions."""
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _subscribe(self) -> None:
        """Subscribe to each topic once its publisher, and so the quality it offers, is known."""
        for topic, type_name in self._types.items():
            if topic in self._subscriptions or not self._node.count_publishers(topic):
                continue
            self._subscriptions[topic] = self._node.create_subscription(
                message_class(type_name),
                topic,
                with_info(partial(self._store, topic)),
                subscription_qos(self._node, topic, depth=QUEUE[topic in self._cameras]),
                callback_group=None if topic in self._cameras else self._polled,
            )

    def listen(self) -> None:
        """Take in what came of the topics that are not taken as it comes."""
        for topic, subscription in self._subscriptions.items():
            if topic not in self._cameras:
                while (taken := take(subscription)) is not None:
                    self._store(topic, *taken)

    def _take(self) -> None:
        for topic, subscription in self._subscriptions.items():
            if (taken := take(subscription)) is not None:
                self._newest[topic] = taken[0]
                self._store(topic, *taken)

    def _store(self, topic: str, message: Any, info: Mapping[str, Any]) -> None:
        receive_ns = self._received_ns(info)
        stamp_ns = stamp_of(self._contract, message, self._types[topic], receive_ns)
        self.sampler.add(topic, stamp_ns, message, message)
        for stream in self._streams[topic]:
            self.gate.hear(stream, receive_ns)
        self._counted[topic].add(info.get('publication_sequence_number'), sender_of(info))
        for camera in self._cameras.get(topic, ()):
            self._seen_image(message, camera)

    def _received_ns(self, info: Mapping[str, Any]) -> int:
        """Return when a message came: it may have waited to be taken."""
        clock = self._node.get_clock()
        received_ns = 0 if clock.ros_time_is_active else info.get('received_timestamp', 0)
        return int(received_ns) or clock.now().nanoseconds

    def _seen(self) -> Seen:
        types = dict(self._node.get_topic_names_and_types())
        publishers = {topic: self._node.count_publishers(topic) for topic in self._types}
        return Seen(types, publishers, self._newest)


def sender_of(info: Mapping[str, Any]) -> bytes:
    """Return who sent a message, as the middleware knows it; b'' where it does not tell."""
    return bytes((info.get('publisher_gid') or {}).get('data', b''))
