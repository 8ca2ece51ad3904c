"""Subscriptions that hand over messages as they came, of whatever type and quality of service."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.subscription import Subscription
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)

from qt_ros.nodes.log_clock import Arrival
from qt_ros.nodes.ros import Polled, message_class, subscription_qos, take

DEPTH = 2000  # messages that may wait for this process, per topic
OnMessage = Callable[[str, bytes, Arrival], None]  # topic, serialized message, when


class RawTopics:
    """One subscription per topic; `drain` hands the messages over.

    A subscription is made again when publishers with another quality appear. Topics without a
    publisher are subscribed to as reliable, as commands are sent, so that the first message of a
    late publisher is not missed.
    """

    def __init__(
        self,
        node: Node,
        topics: Mapping[str, str],
        on_message: OnMessage,
        live_only: Collection[str] = (),
    ) -> None:
        """topics: {topic: type}; live_only: those whose past is not asked for."""
        self._node = node
        self._group = Polled()
        self._live_only = live_only
        self.types = dict(topics)
        self._on_message = on_message
        self._subscriptions: dict[str, tuple[Subscription, QoSProfile]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Adapt the subscriptions to the publishers that there are now."""
        for topic, type_name in self.types.items():
            qos = subscription_qos(self._node, topic, DEPTH)
            if topic in self._live_only:
                qos.durability = DurabilityPolicy.VOLATILE
            if topic in self._subscriptions:
                subscription, old = self._subscriptions[topic]
                if qos == old or not self._node.count_publishers(topic):
                    continue
                self._node.destroy_subscription(subscription)
            self._subscriptions[topic] = (self._subscribe(topic, type_name, qos), qos)

    def drain(self) -> int:
        """Hand over what has arrived since the last call; return how much that was."""
        taken = 0
        for topic, (subscription, _) in self._subscriptions.items():
            while (message := take(subscription)) is not None:
                self._on_message(topic, message[0], _arrival(message[1]))
                taken += 1
        return taken

    def qualities(self, topic: str) -> list[Qos]:
        """Return what the publishers of a topic offer, as a bag stores it."""
        return [
            _bag_qos(info.qos_profile) for info in self._node.get_publishers_info_by_topic(topic)
        ]

    def latched(self, topic: str) -> bool:
        """Say whether a topic's publishers keep their last message for late subscribers."""
        return self._subscriptions[topic][1].durability == DurabilityPolicy.TRANSIENT_LOCAL

    def _subscribe(self, topic: str, type_name: str, qos: QoSProfile) -> Subscription:
        return self._node.create_subscription(
            message_class(type_name),
            topic,
            _never_called,
            qos,
            callback_group=self._group,
            raw=True,
        )


def _never_called(data: bytes) -> None:
    """Stand in for the callback that a subscription must have."""


def _arrival(info: Mapping[str, Any]) -> Arrival:
    """Return when a message was sent and received; now, where the middleware does not say."""
    received_ns = info['received_timestamp'] or time.time_ns()
    return Arrival(info['source_timestamp'] or received_ns, received_ns, time.monotonic())


def _bag_qos(qos: QoSProfile) -> Qos:
    """Return a quality of service in the words of a bag."""
    forever = QosTime(2147483647, 4294967295)
    reliable = qos.reliability == ReliabilityPolicy.RELIABLE
    latched = qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
    manual = qos.liveliness == LivelinessPolicy.MANUAL_BY_TOPIC
    everything = qos.history == HistoryPolicy.KEEP_ALL
    return Qos(
        history=QosHistory.KEEP_ALL if everything else QosHistory.KEEP_LAST,
        depth=qos.depth,
        reliability=QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=forever,
        lifespan=forever,
        liveliness=QosLiveliness.MANUAL_BY_TOPIC if manual else QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )
