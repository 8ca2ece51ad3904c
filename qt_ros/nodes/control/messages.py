"""ROS messages that the control loop sends: commands, steps and diagnostics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from numpy.typing import NDArray
from q_transformer_ros.msg import PolicyStep
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import QoSProfile

from qt_ros.commands import decode_command, encode_commands
from qt_ros.contract import Contract
from qt_ros.nodes.control.goals import GoalSender
from qt_ros.nodes.control.records import StepRecord
from qt_ros.nodes.ros import message_class, new_message, to_stamp


class CommandPublisher:
    """Publishes the commands for a vector of targets: encodes all of them, then publishes all.

    What an action takes is published as well, so that a recording has it.
    """

    def __init__(
        self, node: LifecycleNode, contract: Contract, qos: QoSProfile, reached_s: float
    ) -> None:
        """reached_s: after which time a commanded position is to be reached [s]."""
        self._contract = contract
        self._reached_s = reached_s
        self._node = node
        self._publishers: dict[str, LifecyclePublisher] = {
            action.topic: node.create_lifecycle_publisher(
                message_class(action.type), action.topic, qos
            )
            for action in contract.action
        }
        self._goals = {
            action.topic: GoalSender(node, action.action, message_class(action.action_type))
            for action in contract.action
            if action.action
        }

    def send(self, targets: NDArray[np.float64], stamp_ns: int) -> NDArray[np.float64]:
        """Publish the commands for (A,) targets; nothing if one of them cannot be encoded.

        Returns the targets as they stand in the messages, rounded where a message holds float32.
        """
        contract = self._contract
        messages = dict(
            encode_commands(
                contract,
                targets,
                stamp_ns,
                new_message,
                self._reached_s,
            )
        )
        # Those without a header first: whoever stamps them on arrival does so before a simulator
        # that waits for the stamped ones moves its clock on.
        for topic in sorted(messages, key=lambda topic: hasattr(messages[topic], 'header')):
            self._publishers[topic].publish(messages[topic])
        sent = [decode_command(action, messages[action.topic]) for action in contract.action]
        for action, values in zip(contract.action, sent, strict=True):
            if action.action:
                goal = message_class(action.action_type).Goal(command=messages[action.topic])
                self._goals[action.topic].want(tuple(values.tolist()), goal)
        return np.concatenate(sent)

    def unheard(self) -> list[str]:
        """Return the command topics that nobody listens to, as they are after remapping."""
        return [
            publisher.topic_name
            for topic, publisher in self._publishers.items()
            if topic not in self._goals and publisher.get_subscription_count() == 0
        ]

    def problems(self) -> list[str]:
        """Say what is wrong with the actions that take commands."""
        return [problem for goals in self._goals.values() for problem in goals.problems()]

    def values(self) -> dict[str, str]:
        """Return how many goals went out and what became of them, for diagnostics."""
        return {k: v for goals in self._goals.values() for k, v in goals.values().items()}

    def flush(self, timeout_s: float = 0.5) -> None:
        """Wait until reliable subscribers have what was published."""
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=timeout_s))

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
        for goals in self._goals.values():
            goals.close()
        self._goals.clear()


def step_message(
    contract: Contract,
    record: StepRecord,
    command_rate_hz: float,
    counted: Mapping[str, tuple[int, int]],
) -> PolicyStep:
    """Turn what became of a tick into a `PolicyStep`.

    counted: {stream: (messages received, lost)} since the episode began.
    """
    tick, decided = record.tick, record.decided
    observation = decided.observation if decided is not None else None
    streams = list(tick.samples)
    valid = {name: sample.valid for name, sample in tick.samples.items()}
    if observation is not None:
        valid |= observation.valid
    message = PolicyStep(
        episode_id=tick.goal.episode_id,
        step=tick.step,
        streams=streams,
        stream_stamps=[to_stamp(tick.samples[name].stamp_ns) for name in streams],
        stream_valid=[valid[name] for name in streams],
        observation_age_s=record.age_ns / 1e9,
        dims=[dim.name for dim in contract.dims],
        limited=[bool(reason) for reason in record.reasons],
        limit_reasons=list(record.reasons),
        late=record.late,
        period_s=record.period_ns / 1e9,
        fate=record.fate,
        wait_s=record.wait_s,
        limit_s=record.limit_s,
        publish_s=record.publish_s,
        command_rate_hz=command_rate_hz,
        command_stamps=[to_stamp(stamp) for stamp in record.stamps_ns],
        stream_received=[counted[name][0] for name in streams],
        stream_lost=[counted[name][1] for name in streams],
    )
    message.header.stamp = to_stamp(max(s.stamp_ns for s in tick.samples.values()))
    message.tick = to_stamp(tick.t_ns)
    if record.command_ns:
        message.command_stamp = to_stamp(record.command_ns)
        message.command_age_s = record.age_ns / 1e9 + record.limit_s + record.publish_s
    if record.sent is not None:
        message.sent = record.sent.tolist()
    if decided is not None and not decided.error and not decided.unusable:
        message.inference_s = decided.inference_s
        message.decode_s, message.encode_s = decided.decode_s, decided.encode_s
        message.infer_s = decided.infer_s
        message.requested = decided.action.tolist()
        message.bins = decided.bins.tolist()
        message.q = decided.q.tolist()
        message.bin_counts = [len(values) for values in decided.q_values]
        message.q_values = np.concatenate(decided.q_values).tolist() if decided.q_values else []
    return message


def diagnostics(
    level: bytes, name: str, text: str, values: Mapping[str, str], now_ns: int
) -> DiagnosticArray:
    """Return a `/diagnostics` message of one status."""
    array = DiagnosticArray()
    array.header.stamp = to_stamp(now_ns)
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    array.status = [DiagnosticStatus(level=level, name=name, message=text, values=pairs)]
    return array
