"""Types and qualities of topics, progress lines, and how a node of this package runs and stops."""

from __future__ import annotations

import importlib
import json
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

SPIN_S = 0.1  # the longest a stop signal waits
LAST_WORDS_S = 1.0  # how long clients are still answered after it


def message_class(type_name: str) -> Any:
    """Return the class of 'package/msg/Name'."""
    package, kind, name = type_name.split('/')
    return getattr(importlib.import_module(f'{package}.{kind}'), name)


def subscription_qos(node: Node, topic: str, depth: int) -> QoSProfile:
    """Return a quality that matches every present publisher: reliable only if all of them are."""
    offered = node.get_publishers_info_by_topic(topic)
    reliable = all(p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in offered)
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
    )


def announce(event: str, **fields: Any) -> None:
    """Print a progress line for programs on stdout: `QT {"event": ...}`."""
    print('QT ' + json.dumps({'event': event, **fields}), flush=True)


def run_node(make: Callable[[], Any], start: Callable[[Any], bool]) -> int:
    """Make a node, start it and spin it until SIGINT or SIGTERM; return the exit status.

    The node's `stop(reason)` has the last word on every way out, and its `busy` holds the exit up
    for a moment while a client still waits for an answer.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    node = make()

    def on_signal(number: int, _: FrameType | None) -> None:
        node.stopping = True
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if not start(node):
            return 0 if stop.is_set() else 1
        while not stop.is_set():
            executor.spin_once(timeout_sec=SPIN_S)
        return 0
    finally:
        node.stop('the process was told to stop' if stop.is_set() else 'the node failed')
        deadline_s = time.monotonic() + LAST_WORDS_S
        while node.busy and time.monotonic() < deadline_s:
            executor.spin_once(timeout_sec=SPIN_S)
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
