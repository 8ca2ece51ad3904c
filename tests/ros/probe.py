"""A node of the test's own: it listens, publishes and calls services of the nodes under test."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile

from qt_ros.nodes.ros import message_class


class Probe:
    """Listens in a context of its own, so that tests do not share a ROS domain."""

    def __init__(self, domain: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node('probe', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.heard: dict[str, list[Any]] = defaultdict(list)

    def listen(self, topic: str, type_name: str, qos: QoSProfile | int = 100) -> None:
        self.node.create_subscription(
            message_class(type_name), topic, self.heard[topic].append, qos
        )

    def publisher(self, topic: str, type_name: str, qos: QoSProfile | int = 100) -> Any:
        """Return a publisher that somebody listens to."""
        publisher = self.node.create_publisher(message_class(type_name), topic, qos)
        self.until(lambda: publisher.get_subscription_count() > 0)
        return publisher

    def until(self, done: Callable[[], bool], timeout_s: float = 15.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline_s, 'it did not happen in time'
            self._executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds: float) -> None:
        deadline_s = time.monotonic() + seconds
        while time.monotonic() < deadline_s:
            self._executor.spin_once(timeout_sec=0.05)

    def call(self, service: Any, name: str, **fields: Any) -> Any:
        client = self.node.create_client(service, name)
        self.until(client.service_is_ready)
        future = client.call_async(service.Request(**fields))
        self.until(future.done)
        self.node.destroy_client(client)
        return future.result()

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()
