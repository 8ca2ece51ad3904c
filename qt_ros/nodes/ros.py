"""What every node here needs from rclpy: types, stamps, qualities, parameters, a way to run.

Programs that start nodes read their stdout: a line `QT {"event": ...}` per thing worth knowing,
the first of them `ready`.
"""

from __future__ import annotations

import importlib
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import FrameType
from typing import Any, Protocol

import rclpy
from builtin_interfaces.msg import Time as TimeMsg
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.callback_groups import CallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription

from qt_ros.errors import QtRosError

SPIN_S = 0.1  # the longest a stop signal waits to be seen
INSIST_S = 2.0  # a stop signal that comes this long after the first one is meant
LAST_WORDS_S = 1.0  # how long clients are still answered after it

# Deep enough that a reader that falls behind by a second loses nothing.
RELIABLE = QoSProfile(depth=100)
NEWEST = QoSProfile(depth=1)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
EVENTS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Runnable(Protocol):
    """A node that `run_node` can run."""

    @property
    def busy(self) -> bool:
        """True while a client still waits for an answer."""

    def stop(self, reason: str) -> None:
        """Bring everything to a safe end, for good; called on every way out."""

    def destroy_node(self) -> None:
        """Destroy the node."""


def announce(event: str, **fields: Any) -> None:
    """Print a progress line for programs on stdout: `QT {"event": ...}`."""
    print('QT ' + json.dumps({'event': event, **fields}), flush=True)


@cache
def message_class(type_name: str) -> Any:
    """Return the class of 'package/msg/Name', of any installed package.

    The goal of an action is written 'package/action/Name_Goal'.
    """
    parts = type_name.split('/')
    if len(parts) == 2:
        parts.insert(1, 'msg')
    if len(parts) != 3:
        raise QtRosError(f"'{type_name}' is no message type; it is written package/msg/Name")
    package, kind, name = parts
    outer, _, part = name.partition('_') if kind == 'action' else (name, '', '')
    try:
        found = getattr(importlib.import_module(f'{package}.{kind}'), outer)
        return getattr(found, part) if part else found
    except ModuleNotFoundError:
        raise QtRosError(
            f"message type '{type_name}': package {package} is not installed or not sourced; "
            f'install ros-$ROS_DISTRO-{package.replace("_", "-")} or source its workspace'
        ) from None
    except AttributeError:
        raise QtRosError(f"message type '{type_name}': {package} has no {kind} {name}") from None


def new_message(type_name: str) -> Any:
    """Return an empty message of a type."""
    return message_class(type_name)()


def to_ns(stamp: TimeMsg) -> int:
    """Return a stamp in nanoseconds."""
    return stamp.sec * 10**9 + stamp.nanosec


def to_stamp(time_ns: int) -> TimeMsg:
    """Return nanoseconds as a stamp."""
    sec, nanosec = divmod(int(time_ns), 10**9)
    return TimeMsg(sec=sec, nanosec=nanosec)


def now_ns(node: Node) -> int:
    """Return the node's time: simulated time with use_sim_time, else the system's."""
    return node.get_clock().now().nanoseconds


def subscription_qos(node: Node, topic: str, depth: int) -> QoSProfile:
    """Return a quality that matches every present publisher: as strict as all of them allow."""
    offered = [info.qos_profile for info in node.get_publishers_info_by_topic(topic)]
    reliable = all(qos.reliability == ReliabilityPolicy.RELIABLE for qos in offered)
    latched = offered and all(
        qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offered
    )
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def with_info(callback: Callable[[Any, Mapping[str, Any]], None]) -> Callable[..., None]:
    """Return a subscription's callback that is told what is known about each message.

    Humble hands over the message alone: nothing is known there.
    """
    if hasattr(Subscription, 'CallbackType'):
        return callback
    return lambda message: callback(message, {})


def declare(
    node: Node,
    name: str,
    default: Any,
    description: str,
    limits: Sequence[float] | None = None,
) -> Any:
    """Declare a parameter that is read once, and return its value.

    default: a value, or the `Parameter.Type` of a parameter that has to be given. limits: (low,
    high) of a number.
    """
    descriptor = ParameterDescriptor(description=description, read_only=True)
    if limits is not None:
        low, high = limits
        if isinstance(default, int):
            descriptor.integer_range = [
                IntegerRange(from_value=int(low), to_value=int(high), step=1)
            ]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
    parameter = node.declare_parameter(name, default, descriptor)
    if parameter.type_ == Parameter.Type.NOT_SET:
        raise QtRosError(f"parameter '{name}' of {node.get_name()} has to be given: {description}")
    return parameter.value


class Polled(CallbackGroup):
    """Subscriptions that the executor leaves alone: their messages are taken when it suits.

    A wake-up of a Python executor costs many times more than taking a message.
    """

    def can_execute(self, entity: Any) -> bool:
        """Return False: nothing here is called back."""
        del entity
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Return False: nothing here is called back."""
        del entity
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing was executed."""


def take(subscription: Subscription) -> tuple[Any, Mapping[str, Any]] | None:
    """Return the next message of a subscription and what is known about it, None without one."""
    with subscription.handle:
        return subscription.handle.take_message(subscription.msg_type, subscription.raw)


class StopFlag:
    """Takes over SIGINT and SIGTERM: set once one of them came.

    Ctrl-C under `ros2 launch` sends two of them. One that comes later than that kills as usual.
    """

    def __init__(self) -> None:
        self._since_s: float | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def is_set(self) -> bool:
        """Say whether the process was told to stop."""
        return self._since_s is not None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._since_s is None:
            self._since_s = time.monotonic()
        elif time.monotonic() - self._since_s > INSIST_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def run_node(make: Callable[[], Runnable], start: Callable[[Any], bool] | None = None) -> int:
    """Make a node, start it and spin it until SIGINT or SIGTERM; return the exit status.

    start(node) returns False when the node could not start. The node's `stop` has the last word
    on every way out. A QtRosError is reported as one event and a log line, not as a traceback.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    flag = StopFlag()
    node: Any = None
    executor = SingleThreadedExecutor()
    try:
        node = make()
        flag.on_stop = getattr(node, 'interrupt', None)
        executor.add_node(node)
        if start is not None and not start(node):
            return 0 if flag.is_set() else 1
        while not flag.is_set():
            executor.spin_once(timeout_sec=SPIN_S)
        return 0
    except QtRosError as error:
        refuse(error)
        return 1
    finally:
        if node is not None:
            node.stop('the process was told to stop' if flag.is_set() else 'the node failed')
            deadline_s = time.monotonic() + LAST_WORDS_S
            while node.busy and time.monotonic() < deadline_s:
                executor.spin_once(timeout_sec=SPIN_S)
            executor.shutdown()
            node.destroy_node()
        rclpy.try_shutdown()


def refuse(error: QtRosError) -> None:
    """Say why a node cannot do what it was asked, to programs and to people."""
    announce('error', message=str(error))
    rclpy.logging.get_logger('qt_ros').error(str(error))
